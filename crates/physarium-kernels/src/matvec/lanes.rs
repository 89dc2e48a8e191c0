//! The one loop over a row's weights, for any instructions that have 32 lanes of float32.

use half::f16;

/// Lanes of a row's sum, and weights that are taken at once.
pub(super) const LANES: usize = 32;

/// Which lanes are added first when a row is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// 2j and 2j + 1: neighbours share a word where 16-bit weights are widened by halves of words.
    Neighbours,
    /// j and j + 16.
    Halves,
}

/// Adds up 32 lanes: sixteen pairs, then halves of what is left.
pub(super) fn add_lanes(lanes: &[f32; LANES], tree: Tree) -> f32 {
    let mut sums: [f32; 16] = std::array::from_fn(|j| match tree {
        Tree::Neighbours => lanes[2 * j] + lanes[2 * j + 1],
        Tree::Halves => lanes[j] + lanes[j + 16],
    });
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            sums[j] += sums[j + half];
        }
    }
    sums[0]
}

/// Instructions that the loop runs on.
///
/// # Safety
/// Every function needs the instructions that the type stands for. Pointers are good for the 32 elements
/// that a function reads or writes; what [`Lanes::expand_words`] and [`Lanes::expand_floats`] read may
/// end with the last element that the mask asks for, but must be readable memory for all 32.
pub(super) unsafe trait Lanes {
    /// 32 words of 16 bits, in order.
    type Words: Copy;
    /// 32 numbers, in an order that belongs to the element type: see [`Lanes::arrange`].
    type Numbers: Copy;

    unsafe fn words(from: *const u16) -> Self::Words;
    /// The next words to where `mask` has ones, nought elsewhere.
    unsafe fn expand_words(from: *const u16, mask: u32) -> Self::Words;
    unsafe fn store_words(words: Self::Words, to: *mut u16);
    unsafe fn bf16(words: Self::Words) -> Self::Numbers;
    unsafe fn float16(words: Self::Words) -> Self::Numbers;
    unsafe fn floats(from: *const f32) -> Self::Numbers;
    /// The next floats to where `mask` has ones, nought elsewhere.
    unsafe fn expand_floats(from: *const f32, mask: u32) -> Self::Numbers;
    unsafe fn zero() -> Self::Numbers;
    /// sums + weights · x, each lane rounded once.
    unsafe fn add(sums: Self::Numbers, weights: Self::Numbers, x: Self::Numbers) -> Self::Numbers;
    /// The sum of all lanes as [`add_lanes`] has it.
    unsafe fn total(sums: Self::Numbers, tree: Tree) -> f32;
    /// Asks for memory that is read soon; it need not be there.
    unsafe fn prefetch(at: *const u8);

    /// Puts 32 elements of x into the order that numbers widened by [`Lanes::bf16`] (`Neighbours`) or by
    /// the other functions (`Halves`) have.
    fn arrange(x: &[f32; LANES], tree: Tree) -> [f32; LANES] {
        let _ = tree;
        *x
    }
}

/// An element type of weights, on some instructions.
///
/// # Safety
/// As [`Lanes`].
pub(super) unsafe trait Element<L: Lanes> {
    /// As stored.
    type Stored: Copy + Default;
    const TREE: Tree;

    unsafe fn load(from: *const Self::Stored) -> L::Numbers;
    unsafe fn expand(from: *const Self::Stored, mask: u32) -> L::Numbers;
}

/// bfloat16 by its bits.
pub(super) struct Bf16;
/// IEEE half precision.
pub(super) struct F16;
/// IEEE single precision.
pub(super) struct F32;

// SAFETY: passes on what the trait asks for.
unsafe impl<L: Lanes> Element<L> for Bf16 {
    type Stored = u16;
    const TREE: Tree = Tree::Neighbours;

    #[inline(always)]
    unsafe fn load(from: *const u16) -> L::Numbers {
        // SAFETY: as the caller says.
        unsafe { L::bf16(L::words(from)) }
    }

    #[inline(always)]
    unsafe fn expand(from: *const u16, mask: u32) -> L::Numbers {
        // SAFETY: as the caller says.
        unsafe { L::bf16(L::expand_words(from, mask)) }
    }
}

// SAFETY: passes on what the trait asks for.
unsafe impl<L: Lanes> Element<L> for F16 {
    type Stored = f16;
    const TREE: Tree = Tree::Halves;

    #[inline(always)]
    unsafe fn load(from: *const f16) -> L::Numbers {
        // SAFETY: as the caller says.
        unsafe { L::float16(L::words(from.cast())) }
    }

    #[inline(always)]
    unsafe fn expand(from: *const f16, mask: u32) -> L::Numbers {
        // SAFETY: as the caller says.
        unsafe { L::float16(L::expand_words(from.cast(), mask)) }
    }
}

// SAFETY: passes on what the trait asks for.
unsafe impl<L: Lanes> Element<L> for F32 {
    type Stored = f32;
    const TREE: Tree = Tree::Halves;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> L::Numbers {
        // SAFETY: as the caller says.
        unsafe { L::floats(from) }
    }

    #[inline(always)]
    unsafe fn expand(from: *const f32, mask: u32) -> L::Numbers {
        // SAFETY: as the caller says.
        unsafe { L::expand_floats(from, mask) }
    }
}

/// # Safety
/// The instructions are there.
#[inline(always)]
unsafe fn totals<L: Lanes, const R: usize>(sums: [L::Numbers; R], tree: Tree) -> [f32; R] {
    let mut totals = [0.0; R];
    // No closures: they would be compiled without the caller's instructions.
    for (total, sums) in totals.iter_mut().zip(sums) {
        // SAFETY: as the caller says.
        *total = unsafe { L::total(sums, tree) };
    }
    totals
}

/// Products of `R` dense rows of `inputs` weights, `inputs` apart, with x.
///
/// # Safety
/// The rows and `inputs` elements of x, rounded up to 32, can be read, and the instructions are there.
#[inline(always)]
pub(super) unsafe fn dense_rows<L: Lanes, E: Element<L>, const R: usize>(
    rows: *const E::Stored,
    inputs: usize,
    x: *const f32,
) -> [f32; R] {
    // SAFETY: every pointer stays within the rows and x, as the caller says of them.
    unsafe {
        let mut sums = [L::zero(); R];
        let whole = inputs / LANES * LANES;
        let mut at = 0;
        while at < whole {
            let x = L::floats(x.add(at));
            for (row, sum) in sums.iter_mut().enumerate() {
                let weights = rows.add(row * inputs + at);
                L::prefetch(weights.wrapping_add(R * inputs).cast());
                *sum = L::add(*sum, E::load(weights), x);
            }
            at += LANES;
        }
        if whole < inputs {
            let x = L::floats(x.add(whole));
            for (row, sum) in sums.iter_mut().enumerate() {
                let mut rest = [E::Stored::default(); LANES];
                let from = rows.add(row * inputs + whole);
                std::ptr::copy_nonoverlapping(from, rest.as_mut_ptr(), inputs - whole);
                *sum = L::add(*sum, E::load(rest.as_ptr()), x);
            }
        }
        totals::<L, R>(sums, E::TREE)
    }
}

/// Products of `R` sparse rows with x: `words` words of mask for each row, and where its values begin.
/// `next` is where the values of the row after them begin: their memory is asked for.
///
/// # Safety
/// The masks, as many values as they have ones and 32 more, and x can be read, `next` points into the
/// same values, and the instructions are there.
#[inline(always)]
pub(super) unsafe fn sparse_rows<L: Lanes, E: Element<L>, const R: usize>(
    masks: *const u32,
    words: usize,
    mut values: [*const E::Stored; R],
    next: *const E::Stored,
    x: *const f32,
) -> [f32; R] {
    // SAFETY: every pointer stays within masks, values and x, as the caller says of them.
    unsafe {
        let mut sums = [L::zero(); R];
        let ahead = next.byte_offset_from(values[0]);
        for word in 0..words {
            let x = L::floats(x.add(word * LANES));
            L::prefetch(masks.wrapping_add(R * (words + word)).cast());
            for row in 0..R {
                let mask = *masks.add(row * words + word);
                L::prefetch(values[row].wrapping_byte_offset(ahead).cast());
                sums[row] = L::add(sums[row], E::expand(values[row], mask), x);
                values[row] = values[row].add(mask.count_ones() as usize);
            }
        }
        totals::<L, R>(sums, E::TREE)
    }
}

/// Writes the 16-bit elements of one sparse row, noughts among them, to `to`, rounded up to 32.
///
/// # Safety
/// As [`sparse_rows`]; `to` holds 32 words for each word of mask.
#[inline(always)]
pub(super) unsafe fn expand_row<L: Lanes>(masks: &[u32], mut values: *const u16, mut to: *mut u16) {
    for mask in masks {
        // SAFETY: as the caller says.
        unsafe {
            L::store_words(L::expand_words(values, *mask), to);
            values = values.add(mask.count_ones() as usize);
            to = to.add(LANES);
        }
    }
}
