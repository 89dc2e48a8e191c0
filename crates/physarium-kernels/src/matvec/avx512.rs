//! The lanes on AVX-512 with VBMI2: one instruction moves 32 sparse values to their positions.

use std::arch::x86_64::*;

use super::lanes::{LANES, Lanes, Tree};

pub(super) struct Avx512;

impl Avx512 {
    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("popcnt")
    }
}

// SAFETY: the functions use only instructions that `is_available` checks for.
unsafe impl Lanes for Avx512 {
    type Words = __m512i;
    /// For `Tree::Neighbours`, the even elements, then the odd ones. For `Tree::Halves`, the first sixteen, then
    /// the others.
    type Numbers = [__m512; 2];

    #[inline(always)]
    unsafe fn words(from: *const u16) -> __m512i {
        // SAFETY: 32 words can be read at `from`.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn expand_words(from: *const u16, mask: u32) -> __m512i {
        // SAFETY: 32 words can be read at `from`.
        unsafe { _mm512_maskz_expand_epi16(mask, _mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_words(words: __m512i, to: *mut u16) {
        // SAFETY: 32 words can be written at `to`.
        unsafe { _mm512_storeu_si512(to.cast(), words) }
    }

    #[inline(always)]
    unsafe fn bf16(words: __m512i) -> [__m512; 2] {
        // SAFETY: the processor supports AVX-512.
        unsafe {
            let even = _mm512_slli_epi32::<16>(words);
            let odd = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)]
        }
    }

    #[inline(always)]
    unsafe fn float16(words: __m512i) -> [__m512; 2] {
        // SAFETY: the processor supports AVX-512.
        unsafe {
            [
                _mm512_cvtph_ps(_mm512_castsi512_si256(words)),
                _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(words)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn floats(from: *const f32) -> [__m512; 2] {
        // SAFETY: 32 floats can be read at `from`.
        unsafe { [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))] }
    }

    #[inline(always)]
    unsafe fn expand_floats(from: *const f32, mask: u32) -> [__m512; 2] {
        let first = mask as u16;
        // SAFETY: 32 floats can be read at `from`; at most sixteen are skipped before the last load.
        unsafe {
            let next = from.add(first.count_ones() as usize);
            [
                _mm512_maskz_expand_ps(first, _mm512_loadu_ps(from)),
                _mm512_maskz_expand_ps((mask >> 16) as u16, _mm512_loadu_ps(next)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn zero() -> [__m512; 2] {
        // SAFETY: the processor supports AVX-512.
        unsafe { [_mm512_setzero_ps(); 2] }
    }

    #[inline(always)]
    unsafe fn add(sums: [__m512; 2], weights: [__m512; 2], x: [__m512; 2]) -> [__m512; 2] {
        // SAFETY: the processor supports AVX-512.
        unsafe {
            [_mm512_fmadd_ps(weights[0], x[0], sums[0]), _mm512_fmadd_ps(weights[1], x[1], sums[1])]
        }
    }

    #[inline(always)]
    unsafe fn total(sums: [__m512; 2], _tree: Tree) -> f32 {
        // SAFETY: the processor supports AVX-512.
        unsafe {
            // In the order of the numbers, both trees begin with the same addition.
            let sums = _mm512_add_ps(sums[0], sums[1]);
            let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sums));
            let sums = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm256_castpd_ps(upper));
            let sums = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
            let sums = _mm_add_ps(sums, _mm_movehl_ps(sums, sums));
            _mm_cvtss_f32(_mm_add_ss(sums, _mm_movehdup_ps(sums)))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: a prefetch accepts any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    fn arrange(x: &[f32; LANES], tree: Tree) -> [f32; LANES] {
        match tree {
            Tree::Halves => *x,
            Tree::Neighbours => {
                std::array::from_fn(|lane| if lane < 16 { x[2 * lane] } else { x[2 * lane - 31] })
            }
        }
    }
}
