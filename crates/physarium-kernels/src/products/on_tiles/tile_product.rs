/*!
A product whose factors are AMX tiles, on the calling thread.

In: bands of 16 rows and bands of 16 columns, each a tile or two for every 32 elements of depth. Out: their product, or
the product added to what is there.
*/

use std::ops::Range;

use crate::blocked::{Target, Update};
use crate::tiles::{Begin, Sums, TILE_ROWS, Terms, Tile, TileUnit};

/// Number of steps over the depth after which sums are stored, so that columns stay in a cache.
const STEPS: usize = 24;
/// Most columns whose sums stay in a cache while the depth passes, of as many rows as tasks have.
const COLS: usize = 256;
/// Rows and columns of a block of sums. Factors have an even number of bands, of which the last may be padding.
pub(super) const EDGE: usize = 2 * TILE_ROWS;

/// A product of some rows and some columns.
pub(super) struct TileProduct<'a> {
    /// Bands of rows `[steps, terms]`.
    pub(super) left: (Terms, &'a [Tile]),
    /// Bands of columns `[steps]`.
    pub(super) right: &'a [Tile],
    /// Tiles over the depth.
    pub(super) steps: usize,
    /// The rows of the result that these are.
    pub(super) rows: Range<usize>,
    /// The columns of the result that these are.
    pub(super) cols: Range<usize>,
}

/// A part of the sums: columns of the product, and steps over the depth, each of 32.
struct Part {
    cols: Range<usize>,
    steps: Range<usize>,
    /// What the sums begin from.
    begin: Begin,
}

impl TileProduct<'_> {
    /// Computes the product.
    ///
    /// # Safety
    /// `out` has the rows and columns, and no other thread accesses them.
    pub(super) unsafe fn run(&self, out: Target) {
        let unit = TileUnit::configure();
        for col in (0..self.cols.len()).step_by(COLS) {
            for first in (0..self.steps).step_by(STEPS) {
                let begin = match out.update {
                    Update::Replace if first == 0 => Begin::Zero,
                    Update::Replace | Update::Add => Begin::FromSums,
                    Update::Subtract => unreachable!("tiles only add"),
                };
                let steps = first..(first + STEPS).min(self.steps);
                let part = Part { cols: col..(col + COLS).min(self.cols.len()), steps, begin };
                // SAFETY: guaranteed by the caller.
                unsafe { self.add_part(&unit, &part, out) };
            }
        }
    }

    /// Adds the products over the steps of a part.
    ///
    /// # Safety
    /// As [`TileProduct::run`].
    unsafe fn add_part(&self, unit: &TileUnit, part: &Part, out: Target) {
        let Part { cols, steps, begin } = part;
        let (terms, left) = self.left;
        let each = terms.count();
        // A pair of bands of columns stays in the first-level cache while all rows pass.
        for col in cols.clone().step_by(EDGE) {
            let right = [0, 1].map(|next| {
                let band = (col / TILE_ROWS + next) * self.steps;
                &self.right[band + steps.start..band + steps.end]
            });
            for row in (0..self.rows.len()).step_by(EDGE) {
                let left = [0, 1].map(|next| {
                    let band = (row / TILE_ROWS + next) * self.steps;
                    &left[(band + steps.start) * each..(band + steps.end) * each]
                });
                let sum = |sums: Sums<'_>| unit.block((terms, left), right, sums, *begin);
                // SAFETY: guaranteed by the caller.
                unsafe { self.with_sums(out, [row, col], sum) };
            }
        }
    }

    /// Calls `work` with the block of the result at `row` and `col` of this product.
    ///
    /// # Safety
    /// As [`TileProduct::run`].
    unsafe fn with_sums(&self, out: Target, [row, col]: [usize; 2], work: impl FnOnce(Sums<'_>)) {
        let size = [EDGE.min(self.rows.len() - row), EDGE.min(self.cols.len() - col)];
        let at = (self.rows.start + row) * out.stride + self.cols.start + col;
        // SAFETY: this row and column are within the result.
        let begin = unsafe { out.begin.add(at) };
        if size == [EDGE; 2] {
            // SAFETY: a whole block is within the result, and only this thread accesses it.
            work(unsafe { Sums::new(begin, out.stride) });
        } else {
            // SAFETY: `size` rows and columns are within the result, and only this thread accesses them.
            unsafe { with_copy(begin, out.stride, size, work) };
        }
    }
}

/// Calls `work` with a 32 × 32 copy of a block that has fewer rows or columns, and stores the result.
///
/// # Safety
/// `size` rows and columns at `begin`, `stride` floats apart, can be read and written, and no other thread accesses
/// them.
unsafe fn with_copy(
    begin: *mut f32,
    stride: usize,
    [rows, cols]: [usize; 2],
    work: impl FnOnce(Sums<'_>),
) {
    let mut whole = [0.0; EDGE * EDGE];
    for row in 0..rows {
        // SAFETY: guaranteed by the caller.
        let from = unsafe { std::slice::from_raw_parts(begin.add(row * stride), cols) };
        whole[row * EDGE..row * EDGE + cols].copy_from_slice(from);
    }
    // SAFETY: `whole` has 32 rows of 32.
    work(unsafe { Sums::new(whole.as_mut_ptr(), EDGE) });
    for row in 0..rows {
        // SAFETY: guaranteed by the caller.
        let to = unsafe { std::slice::from_raw_parts_mut(begin.add(row * stride), cols) };
        to.copy_from_slice(&whole[row * EDGE..row * EDGE + cols]);
    }
}
