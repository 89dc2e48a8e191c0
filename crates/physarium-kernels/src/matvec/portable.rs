//! The lanes in plain Rust, for any processor.

use half::f16;

use super::lanes::{LANES, Lanes, Tree, add_lanes};

pub(super) struct Portable;

// SAFETY: the functions use no special instructions.
unsafe impl Lanes for Portable {
    type Words = [u16; LANES];
    type Numbers = [f32; LANES];

    #[inline(always)]
    unsafe fn words(from: *const u16) -> [u16; LANES] {
        // SAFETY: 32 words can be read at `from`.
        unsafe { from.cast::<[u16; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn expand_words(from: *const u16, mask: u32) -> [u16; LANES] {
        // SAFETY: as many elements as the mask has bits set can be read at `from`.
        unsafe { expand(from, mask) }
    }

    #[inline(always)]
    unsafe fn store_words(words: [u16; LANES], to: *mut u16) {
        // SAFETY: 32 words can be written at `to`.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(words) }
    }

    #[inline(always)]
    unsafe fn bf16(words: [u16; LANES]) -> [f32; LANES] {
        words.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(always)]
    unsafe fn float16(words: [u16; LANES]) -> [f32; LANES] {
        words.map(|bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    unsafe fn floats(from: *const f32) -> [f32; LANES] {
        // SAFETY: 32 floats can be read at `from`.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn expand_floats(from: *const f32, mask: u32) -> [f32; LANES] {
        // SAFETY: as many elements as the mask has bits set can be read at `from`.
        unsafe { expand(from, mask) }
    }

    #[inline(always)]
    unsafe fn zero() -> [f32; LANES] {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn add(mut sums: [f32; LANES], weights: [f32; LANES], x: [f32; LANES]) -> [f32; LANES] {
        for lane in 0..LANES {
            sums[lane] = weights[lane].mul_add(x[lane], sums[lane]);
        }
        sums
    }

    #[inline(always)]
    unsafe fn total(sums: [f32; LANES], tree: Tree) -> f32 {
        add_lanes(&sums, tree)
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}
}

/// Moves the next elements to the positions of the bits set in `mask`; default values elsewhere.
///
/// # Safety
/// As many elements as the mask has bits set can be read at `from`.
#[inline(always)]
unsafe fn expand<T: Copy + Default>(mut from: *const T, mut mask: u32) -> [T; LANES] {
    let mut to = [T::default(); LANES];
    while mask != 0 {
        // SAFETY: there is an element for each bit set in the mask.
        unsafe {
            to[mask.trailing_zeros() as usize] = *from;
            from = from.add(1);
        }
        mask &= mask - 1;
    }
    to
}
