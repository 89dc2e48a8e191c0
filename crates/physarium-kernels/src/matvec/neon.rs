//! The lanes on NEON: sparse values are moved to their positions eight at a time, with a table of all masks.

use std::arch::aarch64::*;

use half::f16;

use super::lanes::{LANES, Lanes, Tree, add_lanes};
use super::shuffles::WORDS;

pub(super) struct Neon;

// SAFETY: every aarch64 processor that the Rust standard library supports has NEON.
unsafe impl Lanes for Neon {
    type Words = [uint16x8_t; 4];
    type Numbers = [float32x4_t; 8];

    #[inline(always)]
    unsafe fn words(from: *const u16) -> [uint16x8_t; 4] {
        // SAFETY: 32 words can be read at `from`.
        unsafe { [0, 1, 2, 3].map(|index| vld1q_u16(from.add(8 * index))) }
    }

    #[inline(always)]
    unsafe fn expand_words(mut from: *const u16, mask: u32) -> [uint16x8_t; 4] {
        // SAFETY: 32 words can be read at `from`; at most 24 are skipped before the last load.
        unsafe {
            mask.to_le_bytes().map(|eighth| {
                let values = vreinterpretq_u8_u16(vld1q_u16(from));
                from = from.add(eighth.count_ones() as usize);
                let positions = vld1q_u8(WORDS[usize::from(eighth)].as_ptr());
                vreinterpretq_u16_u8(vqtbl1q_u8(values, positions))
            })
        }
    }

    #[inline(always)]
    unsafe fn store_words(words: [uint16x8_t; 4], to: *mut u16) {
        for (index, words) in words.into_iter().enumerate() {
            // SAFETY: 32 words can be written at `to`.
            unsafe { vst1q_u16(to.add(8 * index), words) }
        }
    }

    #[inline(always)]
    unsafe fn bf16(words: [uint16x8_t; 4]) -> [float32x4_t; 8] {
        // SAFETY: the processor supports NEON.
        unsafe {
            std::array::from_fn(|index| {
                let words = words[index / 2];
                let wide = if index % 2 == 0 {
                    vshll_n_u16::<16>(vget_low_u16(words))
                } else {
                    vshll_n_u16::<16>(vget_high_u16(words))
                };
                vreinterpretq_f32_u32(wide)
            })
        }
    }

    #[inline(always)]
    unsafe fn float16(words: [uint16x8_t; 4]) -> [float32x4_t; 8] {
        let mut bits = [0; LANES];
        // SAFETY: the arrays hold 32 elements.
        unsafe {
            Self::store_words(words, bits.as_mut_ptr());
            let numbers = bits.map(|bits| f16::from_bits(bits).to_f32());
            Self::floats(numbers.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn floats(from: *const f32) -> [float32x4_t; 8] {
        // SAFETY: 32 floats can be read at `from`.
        unsafe { std::array::from_fn(|index| vld1q_f32(from.add(4 * index))) }
    }

    #[inline(always)]
    unsafe fn expand_floats(mut from: *const f32, mask: u32) -> [float32x4_t; 8] {
        let mut to = [0.0; LANES];
        // SAFETY: there is a float for each bit set in the mask, and the array holds 32.
        unsafe {
            for (position, to) in to.iter_mut().enumerate() {
                if mask >> position & 1 == 1 {
                    *to = *from;
                    from = from.add(1);
                }
            }
            Self::floats(to.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn zero() -> [float32x4_t; 8] {
        // SAFETY: the processor supports NEON.
        unsafe { [vdupq_n_f32(0.0); 8] }
    }

    #[inline(always)]
    unsafe fn add(
        sums: [float32x4_t; 8],
        weights: [float32x4_t; 8],
        x: [float32x4_t; 8],
    ) -> [float32x4_t; 8] {
        // SAFETY: the processor supports NEON.
        unsafe { std::array::from_fn(|index| vfmaq_f32(sums[index], weights[index], x[index])) }
    }

    #[inline(always)]
    unsafe fn total(sums: [float32x4_t; 8], tree: Tree) -> f32 {
        let mut lanes = [0.0; LANES];
        for (index, sums) in sums.into_iter().enumerate() {
            // SAFETY: the array has 32 floats.
            unsafe { vst1q_f32(lanes.as_mut_ptr().add(4 * index), sums) }
        }
        add_lanes(&lanes, tree)
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}
}
