/*!
A product whose factors are tiles, on the calling thread.

In: bands of 16 rows and bands of 16 columns, each a tile or two for every 32 elements of depth. Out: their product, or
the product added to what is there.
*/

use std::cell::RefCell;
use std::ops::Range;

use crate::blocked::{Target, Update};
pub(super) use crate::tiles::EDGE;
use crate::tiles::{Begin, Multiplier, RUN, Sums, TILE_ROWS, Terms, Tile, TileKind};

/// Number of steps over the depth after which sums are stored, so that columns stay in a cache: whole runs of AVX-512's sums.
const STEPS: usize = 32;
const _: () = assert!(STEPS.is_multiple_of(RUN));
/// Most columns whose sums stay in a cache while the depth passes, of as many rows as tasks have.
const COLS: usize = 256;

thread_local! {
    /// The sums of some columns, block after block. The rows of a result can be pages apart, and as many caches' ways: tiles
    /// are loaded and stored faster here, and copied once.
    static SUMS: RefCell<Vec<Sums>> = const { RefCell::new(Vec::new()) };
}

/// A product of some rows and some columns.
pub(super) struct TileProduct<'a> {
    /// What multiplies them.
    pub(super) kind: TileKind,
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
        let unit = self.kind.start();
        let blocks = self.rows.len().div_ceil(EDGE) * COLS.min(self.cols.len()).div_ceil(EDGE);
        SUMS.with_borrow_mut(|sums| {
            sums.resize(sums.len().max(blocks), Sums::ZERO);
            for first in (0..self.cols.len()).step_by(COLS) {
                let cols = first..(first + COLS).min(self.cols.len());
                let first = match out.update {
                    Update::Replace => Begin::Zero,
                    Update::Add => {
                        // SAFETY: guaranteed by the caller.
                        let load = |to: &mut [f32], at| unsafe {
                            to.copy_from_slice(of(out, at, to.len()))
                        };
                        self.each_run(&cols, sums, load);
                        Begin::FromSums
                    }
                    Update::Subtract => unreachable!("tiles only add"),
                };
                for step in (0..self.steps).step_by(STEPS) {
                    let begin = if step == 0 { first } else { Begin::FromSums };
                    let steps = step..(step + STEPS).min(self.steps);
                    self.add_part(&unit, &Part { cols: cols.clone(), steps, begin }, sums);
                }
                // SAFETY: guaranteed by the caller.
                let store =
                    |from: &mut [f32], at| unsafe { of(out, at, from.len()).copy_from_slice(from) };
                self.each_run(&cols, sums, store);
            }
        });
    }

    /// Adds the products over the steps of a part to the sums.
    fn add_part(&self, unit: &Multiplier, part: &Part, sums: &mut [Sums]) {
        let Part { cols, steps, begin } = part;
        let (terms, left) = self.left;
        let each = terms.count();
        let mut blocks = sums.iter_mut();
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
                let block = blocks.next().expect("a block for each 32 rows and columns");
                unit.block((terms, left), right, block, *begin);
            }
        }
    }

    /// Calls `copy` with each part of a row of a block of sums that is part of the result, and its row and column there.
    fn each_run(
        &self,
        cols: &Range<usize>,
        sums: &mut [Sums],
        copy: impl Fn(&mut [f32], [usize; 2]),
    ) {
        let rows = self.rows.len();
        let mut blocks = sums.iter_mut();
        for col in cols.clone().step_by(EDGE) {
            for row in (0..rows).step_by(EDGE) {
                let block = blocks.next().expect("a block for each 32 rows and columns");
                for (values, row) in block.0.iter_mut().zip(row..rows) {
                    let values = &mut values[..EDGE.min(cols.end - col)];
                    copy(values, [self.rows.start + row, self.cols.start + col]);
                }
            }
        }
    }
}

/// `len` numbers of a result from a row and column on.
///
/// # Safety
/// They are within the result, and nothing else accesses them while they are borrowed.
unsafe fn of<'a>(out: Target, [row, col]: [usize; 2], len: usize) -> &'a mut [f32] {
    // SAFETY: guaranteed by the caller.
    unsafe { std::slice::from_raw_parts_mut(out.begin.add(row * out.stride + col), len) }
}
