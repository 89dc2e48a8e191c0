//! The lanes on AVX2: sparse values are moved to their positions eight at a time, with a table of all masks.

use std::arch::x86_64::*;

use super::lanes::{LANES, Lanes, Tree, add_lanes};
use super::shuffles::{FLOATS, WORDS};

pub(super) struct Avx2;

impl Avx2 {
    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt")
    }
}

/// The eight bits of a mask for the `index`-th vector of eight elements.
#[inline(always)]
fn eighth(mask: u32, index: usize) -> usize {
    (mask >> (8 * index)) as usize & 0xff
}

/// Number of bits set before the `index`-th vector of eight elements.
#[inline(always)]
fn before(mask: u32, index: usize) -> usize {
    (mask & ((1 << (8 * index)) - 1)).count_ones() as usize
}

// SAFETY: the functions use only instructions that `is_available` checks for.
unsafe impl Lanes for Avx2 {
    type Words = [__m128i; 4];
    type Numbers = [__m256; 4];

    #[inline(always)]
    unsafe fn words(from: *const u16) -> [__m128i; 4] {
        // SAFETY: 32 words can be read at `from`.
        unsafe {
            let mut words = [_mm_setzero_si128(); 4];
            for (index, words) in words.iter_mut().enumerate() {
                *words = _mm_loadu_si128(from.add(8 * index).cast());
            }
            words
        }
    }

    #[inline(always)]
    unsafe fn expand_words(from: *const u16, mask: u32) -> [__m128i; 4] {
        // SAFETY: 32 words can be read at `from`; at most 24 are skipped before the last load.
        unsafe {
            let mut words = [_mm_setzero_si128(); 4];
            for (index, words) in words.iter_mut().enumerate() {
                let values = _mm_loadu_si128(from.add(before(mask, index)).cast());
                let positions = WORDS[eighth(mask, index)].as_ptr();
                *words = _mm_shuffle_epi8(values, _mm_loadu_si128(positions.cast()));
            }
            words
        }
    }

    #[inline(always)]
    unsafe fn store_words(words: [__m128i; 4], to: *mut u16) {
        for (index, words) in words.into_iter().enumerate() {
            // SAFETY: 32 words can be written at `to`.
            unsafe { _mm_storeu_si128(to.add(8 * index).cast(), words) }
        }
    }

    #[inline(always)]
    unsafe fn bf16(words: [__m128i; 4]) -> [__m256; 4] {
        // SAFETY: the processor supports AVX2.
        unsafe {
            let mut numbers = [_mm256_setzero_ps(); 4];
            for index in 0..4 {
                let wide = _mm256_cvtepu16_epi32(words[index]);
                numbers[index] = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide));
            }
            numbers
        }
    }

    #[inline(always)]
    unsafe fn float16(words: [__m128i; 4]) -> [__m256; 4] {
        // SAFETY: the processor supports F16C.
        unsafe {
            let mut numbers = [_mm256_setzero_ps(); 4];
            for index in 0..4 {
                numbers[index] = _mm256_cvtph_ps(words[index]);
            }
            numbers
        }
    }

    #[inline(always)]
    unsafe fn floats(from: *const f32) -> [__m256; 4] {
        // SAFETY: 32 floats can be read at `from`.
        unsafe {
            let mut numbers = [_mm256_setzero_ps(); 4];
            for (index, numbers) in numbers.iter_mut().enumerate() {
                *numbers = _mm256_loadu_ps(from.add(8 * index));
            }
            numbers
        }
    }

    #[inline(always)]
    unsafe fn expand_floats(from: *const f32, mask: u32) -> [__m256; 4] {
        // SAFETY: 32 floats can be read at `from`; at most 24 are skipped before the last load.
        unsafe {
            let mut numbers = [_mm256_setzero_ps(); 4];
            for (index, numbers) in numbers.iter_mut().enumerate() {
                let values = _mm256_loadu_ps(from.add(before(mask, index)));
                let positions = _mm_loadl_epi64(FLOATS[eighth(mask, index)].as_ptr().cast());
                let positions = _mm256_cvtepi8_epi32(positions);
                let there = _mm256_permutevar8x32_ps(values, positions);
                // Positions without a value have negative indices.
                let absent = _mm256_castsi256_ps(_mm256_srai_epi32::<31>(positions));
                *numbers = _mm256_andnot_ps(absent, there);
            }
            numbers
        }
    }

    #[inline(always)]
    unsafe fn zero() -> [__m256; 4] {
        // SAFETY: the processor supports AVX2.
        unsafe { [_mm256_setzero_ps(); 4] }
    }

    #[inline(always)]
    unsafe fn add(sums: [__m256; 4], weights: [__m256; 4], x: [__m256; 4]) -> [__m256; 4] {
        // SAFETY: the processor supports FMA.
        unsafe {
            let mut added = sums;
            for index in 0..4 {
                added[index] = _mm256_fmadd_ps(weights[index], x[index], sums[index]);
            }
            added
        }
    }

    #[inline(always)]
    unsafe fn total(sums: [__m256; 4], tree: Tree) -> f32 {
        let mut lanes = [0.0; LANES];
        for (index, sums) in sums.into_iter().enumerate() {
            // SAFETY: the array has 32 floats.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr().add(8 * index), sums) }
        }
        add_lanes(&lanes, tree)
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: a prefetch accepts any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}
