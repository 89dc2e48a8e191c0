/*!
The loops over the weights of a row, for any instructions that provide 32 float32 lanes.

In: pointers to rows of weights and to x. Out: the sum of each row.
*/

use half::f16;

/// Number of lanes of a sum, and of weights that are processed at once.
pub(super) const LANES: usize = 32;

/// Which lanes are added first at the end of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// 2j and 2j + 1, which share a 32-bit word when BF16 weights are widened in place.
    Neighbours,
    /// j and j + 16.
    Halves,
}

/// Adds 32 lanes: sixteen pairs, then the two halves of the remaining sums until one is left.
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

/// Instructions that the loops run on.
///
/// # Safety
/// Every function needs the instructions that the type stands for. All 32 elements at a pointer can be read
/// or written. [`Lanes::expand_words`] and [`Lanes::expand_floats`] use only as many elements as the mask has
/// bits set, but all 32 must be readable.
pub(super) unsafe trait Lanes {
    /// 32 words of 16 bits, in ascending order.
    type Words: Copy;
    /// 32 numbers, in an order that depends on the element type: see [`Lanes::arrange`].
    type Numbers: Copy;

    unsafe fn words(from: *const u16) -> Self::Words;
    /// Moves the next words to the positions of the bits set in `mask`; zero elsewhere.
    unsafe fn expand_words(from: *const u16, mask: u32) -> Self::Words;
    unsafe fn store_words(words: Self::Words, to: *mut u16);
    unsafe fn bf16(words: Self::Words) -> Self::Numbers;
    unsafe fn float16(words: Self::Words) -> Self::Numbers;
    unsafe fn floats(from: *const f32) -> Self::Numbers;
    /// Moves the next floats to the positions of the bits set in `mask`; zero elsewhere.
    unsafe fn expand_floats(from: *const f32, mask: u32) -> Self::Numbers;
    unsafe fn zero() -> Self::Numbers;
    /// sums + weights · x, rounded once per lane.
    unsafe fn add(sums: Self::Numbers, weights: Self::Numbers, x: Self::Numbers) -> Self::Numbers;
    /// The sum of all lanes, in the order of [`add_lanes`].
    unsafe fn total(sums: Self::Numbers, tree: Tree) -> f32;
    /// Prefetches memory that is read soon; the address need not be valid.
    unsafe fn prefetch(at: *const u8);

    /// Puts 32 elements of x into the order of the numbers that [`Lanes::bf16`] (`Neighbours`) or the other
    /// functions (`Halves`) return.
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

/// bfloat16, as bits.
pub(super) struct Bf16;
/// IEEE half precision.
pub(super) struct F16;
/// IEEE single precision.
pub(super) struct F32;

// SAFETY: the requirements are those of `Lanes`, whose functions it calls.
unsafe impl<L: Lanes> Element<L> for Bf16 {
    type Stored = u16;
    const TREE: Tree = Tree::Neighbours;

    #[inline(always)]
    unsafe fn load(from: *const u16) -> L::Numbers {
        // SAFETY: guaranteed by the caller.
        unsafe { L::bf16(L::words(from)) }
    }

    #[inline(always)]
    unsafe fn expand(from: *const u16, mask: u32) -> L::Numbers {
        // SAFETY: guaranteed by the caller.
        unsafe { L::bf16(L::expand_words(from, mask)) }
    }
}

// SAFETY: the requirements are those of `Lanes`, whose functions it calls.
unsafe impl<L: Lanes> Element<L> for F16 {
    type Stored = f16;
    const TREE: Tree = Tree::Halves;

    #[inline(always)]
    unsafe fn load(from: *const f16) -> L::Numbers {
        // SAFETY: guaranteed by the caller.
        unsafe { L::float16(L::words(from.cast())) }
    }

    #[inline(always)]
    unsafe fn expand(from: *const f16, mask: u32) -> L::Numbers {
        // SAFETY: guaranteed by the caller.
        unsafe { L::float16(L::expand_words(from.cast(), mask)) }
    }
}

// SAFETY: the requirements are those of `Lanes`, whose functions it calls.
unsafe impl<L: Lanes> Element<L> for F32 {
    type Stored = f32;
    const TREE: Tree = Tree::Halves;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> L::Numbers {
        // SAFETY: guaranteed by the caller.
        unsafe { L::floats(from) }
    }

    #[inline(always)]
    unsafe fn expand(from: *const f32, mask: u32) -> L::Numbers {
        // SAFETY: guaranteed by the caller.
        unsafe { L::expand_floats(from, mask) }
    }
}

/// The sums of the lanes of `R` rows.
///
/// # Safety
/// The processor supports the instructions.
#[inline(always)]
unsafe fn totals<L: Lanes, const R: usize>(sums: [L::Numbers; R], tree: Tree) -> [f32; R] {
    let mut totals = [0.0; R];
    // Not a closure: it would be compiled without the instructions of the caller.
    for (total, sums) in totals.iter_mut().zip(sums) {
        // SAFETY: guaranteed by the caller.
        *total = unsafe { L::total(sums, tree) };
    }
    totals
}

/// Products of `R` dense rows of `inputs` weights, `inputs` apart, with x.
///
/// # Safety
/// The rows, and `inputs` elements of x rounded up to 32, can be read. The processor supports the instructions.
#[inline(always)]
pub(super) unsafe fn dense_rows<L: Lanes, E: Element<L>, const R: usize>(
    rows: *const E::Stored,
    inputs: usize,
    x: *const f32,
) -> [f32; R] {
    // SAFETY: every pointer stays within the rows and x, which the caller guarantees to be readable.
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

/// `R` consecutive sparse rows in memory.
pub(super) struct SparseRows<T, const R: usize> {
    /// The masks of the rows, one row after another.
    pub(super) masks: *const u32,
    /// Number of mask words of a row.
    pub(super) words: usize,
    /// The first value of each row.
    pub(super) values: [*const T; R],
    /// The first value of the row after these, whose memory is prefetched.
    pub(super) next: *const T,
}

/// Products of `R` sparse rows with x.
///
/// # Safety
/// The masks, as many values as they have bits set and 32 more, and x can be read. `next` points into the same
/// values. The processor supports the instructions.
#[inline(always)]
pub(super) unsafe fn sparse_rows<L: Lanes, E: Element<L>, const R: usize>(
    rows: SparseRows<E::Stored, R>,
    x: *const f32,
) -> [f32; R] {
    let SparseRows { masks, words, mut values, next } = rows;
    // SAFETY: every pointer stays within masks, values and x, which the caller guarantees to be readable.
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

/// Writes all 16-bit elements of one sparse row, including zeros, to `to`, padded to a multiple of 32.
///
/// # Safety
/// As [`sparse_rows`]; 32 words for each mask word can be written at `to`.
#[inline(always)]
pub(super) unsafe fn expand_row<L: Lanes>(masks: &[u32], mut values: *const u16, mut to: *mut u16) {
    for mask in masks {
        // SAFETY: guaranteed by the caller.
        unsafe {
            L::store_words(L::expand_words(values, *mask), to);
            values = values.add(mask.count_ones() as usize);
            to = to.add(LANES);
        }
    }
}
