/* Rate of `vdpbf16ps` against `vfmadd231ps` on one thread, registers only.
 *
 *     gcc -O3 -funroll-all-loops -mavx512f -mavx512bf16 benchmarks/vdpbf16ps.c -o /tmp/vdpbf16ps && /tmp/vdpbf16ps
 */
#include <immintrin.h>
#include <stdio.h>
#include <time.h>

enum { SUMS = 12, ROUNDS = 100000000 / SUMS };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

/* 512-bit instructions on independent sums; `flops` of each. Prints GFLOP/s. */
#define RATE(name, flops)                                                                     \
    do {                                                                                      \
        __m512 sums[SUMS], a = _mm512_set1_ps(0x1p-10f), b = _mm512_set1_ps(0x1p-11f);       \
        for (int i = 0; i < SUMS; i++) sums[i] = _mm512_setzero_ps();                         \
        double begin = now();                                                                 \
        for (long round = 0; round < ROUNDS; round++)                                         \
            for (int i = 0; i < SUMS; i++) asm volatile(name " %1,%2,%0" : "+v"(sums[i]) : "v"(a), "v"(b)); \
        printf("%s: %.0f GFLOP/s\n", name, (double)ROUNDS * SUMS * flops / (now() - begin) / 1e9); \
    } while (0)

int main(void) {
    for (int repeat = 0; repeat < 2; repeat++) {
        RATE("vfmadd231ps", 32);
        RATE("vdpbf16ps", 64);
    }
}
