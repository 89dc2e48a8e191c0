/*!
The blocks of a product with many rows on AMX tiles.

In: rows of activations, blocks of maps with BF16 weights. Out: the columns of the results that belong to the
blocks.
*/

use std::ops::Range;

use super::block::{Block, Rows};
use super::tile_weights::pack_outputs;
use crate::blocked::Update;
use crate::compute::Compute;
use crate::tiles::{Begin, Sums, TERMS, TILE_DEPTH, TILE_ROWS, Tile, TileUnit, split_band};

/// Number of rows of activations that are split at once, so that their terms stay in a cache.
const ROWS: usize = 256;
/// Number of steps over the inputs after which sums are stored, so that weights stay in a cache.
const STEPS: usize = 24;
/// Rows and columns of a block of sums.
const EDGE: usize = 2 * TILE_ROWS;

/// Computes all blocks.
pub(super) fn run_on_tiles(compute: &Compute, x: Rows<'_>, blocks: &[Block<'_>]) {
    blocks.iter().for_each(|block| block.map.prepare(compute));
    let inputs = x.width;
    let band = inputs.div_ceil(TILE_DEPTH) * TERMS;
    for (chunk, rows) in x.values.chunks(ROWS * inputs).enumerate() {
        let count = rows.len() / inputs;
        let bands = count.div_ceil(EDGE) * 2;
        compute.with_tiles(bands * band, |split| {
            compute.each_chunk(split, band, |index, tiles| {
                let begin = (index * TILE_ROWS * inputs).min(rows.len());
                let end = (begin + TILE_ROWS * inputs).min(rows.len());
                split_band(&rows[begin..end], inputs, tiles);
            });
            let first = chunk * ROWS;
            let activations = Activations { split, band, rows: first..first + count };
            compute.each(blocks.len(), |index| match blocks[index].map.packed.get() {
                // Blocks begin at a pair of bands.
                Some(packed) => {
                    let begin = blocks[index].outputs.start / TILE_ROWS * (band / TERMS);
                    blocks[index].run_on_tiles(&activations, &packed[begin..]);
                }
                None => {
                    let Block { map, outputs, .. } = &blocks[index];
                    let len = outputs.len().div_ceil(EDGE) * 2 * (band / TERMS);
                    compute.with_tiles(len, |packed| {
                        for (index, packed) in packed.chunks_mut(band / TERMS).enumerate() {
                            let first = outputs.start + index * TILE_ROWS;
                            pack_outputs(compute, map, first, packed);
                        }
                        blocks[index].run_on_tiles(&activations, packed);
                    });
                }
            });
        });
    }
}

/// Rows split into terms: bands of 16 rows, each of `band` tiles.
struct Activations<'a> {
    split: &'a [Tile],
    band: usize,
    /// The rows of the result that these are.
    rows: Range<usize>,
}

impl Activations<'_> {
    /// The tiles of `steps` of the two bands that begin at row `row` of these rows.
    fn bands(&self, row: usize, steps: &Range<usize>) -> [&[Tile]; 2] {
        [0, 1].map(|next| {
            let begin = (row / TILE_ROWS + next) * self.band;
            &self.split[begin + steps.start * TERMS..begin + steps.end * TERMS]
        })
    }
}

/// A part of the sums: steps over the inputs, each of 32.
struct Part {
    steps: Range<usize>,
    /// What the sums begin from.
    begin: Begin,
}

impl Block<'_> {
    /// `packed`: the bands of the outputs of the block.
    fn run_on_tiles(&self, activations: &Activations<'_>, packed: &[Tile]) {
        let unit = TileUnit::configure();
        let band = self.map.inputs.div_ceil(TILE_DEPTH);
        for first in (0..band).step_by(STEPS) {
            let begin = match self.y.update {
                Update::Replace if first == 0 => Begin::Zero,
                _ => Begin::FromSums,
            };
            let part = Part { steps: first..(first + STEPS).min(band), begin };
            self.add_products(&unit, activations, packed, &part);
        }
        self.add_bias(activations.rows.clone());
    }

    /// Adds the products over the inputs of `part` to the columns of the block.
    fn add_products(
        &self,
        unit: &TileUnit,
        activations: &Activations<'_>,
        packed: &[Tile],
        part: &Part,
    ) {
        let Part { steps, begin } = part;
        let rows = activations.rows.len();
        let band = self.map.inputs.div_ceil(TILE_DEPTH);
        // A pair of bands of weights stays in the first-level cache while all rows pass.
        for (pair, col) in (0..self.outputs.len()).step_by(EDGE).enumerate() {
            let weights = [2 * pair, 2 * pair + 1]
                .map(|index| &packed[index * band + steps.start..index * band + steps.end]);
            for row in (0..rows).step_by(EDGE) {
                let x = activations.bands(row, steps);
                let sum = |sums: Sums<'_>| unit.block(x, weights, sums, *begin);
                self.with_sums(activations.rows.start + row, rows - row, col, sum);
            }
        }
    }

    /// Calls `work` with the block of `y` at row `row`, which has `rows` rows from there on, and column `col`.
    fn with_sums(&self, row: usize, rows: usize, col: usize, work: impl FnOnce(Sums<'_>)) {
        let size = [EDGE.min(rows), EDGE.min(self.outputs.len() - col)];
        // SAFETY: this row and column are within `y`.
        let y = unsafe { self.y.begin.add(row * self.y.stride + self.outputs.start + col) };
        if size == [EDGE; 2] {
            // SAFETY: a whole block is within `y`, in columns that are this block's.
            work(unsafe { Sums::new(y, self.y.stride) });
        } else {
            // SAFETY: `size` rows and columns are within `y`, and are this block's.
            unsafe { with_copy(y, self.y.stride, size, work) };
        }
    }
}

/// Calls `work` with a 32 × 32 copy of a block that has fewer rows or columns, and stores the result.
///
/// # Safety
/// `size` rows and columns at `y`, `stride` floats apart, can be read and written, and no other thread accesses
/// them.
unsafe fn with_copy(
    y: *mut f32,
    stride: usize,
    [rows, cols]: [usize; 2],
    work: impl FnOnce(Sums<'_>),
) {
    let mut whole = [0.0; EDGE * EDGE];
    for row in 0..rows {
        // SAFETY: guaranteed by the caller.
        let from = unsafe { std::slice::from_raw_parts(y.add(row * stride), cols) };
        whole[row * EDGE..row * EDGE + cols].copy_from_slice(from);
    }
    // SAFETY: `whole` has 32 rows of 32.
    work(unsafe { Sums::new(whole.as_mut_ptr(), EDGE) });
    for row in 0..rows {
        // SAFETY: guaranteed by the caller.
        let to = unsafe { std::slice::from_raw_parts_mut(y.add(row * stride), cols) };
        to.copy_from_slice(&whole[row * EDGE..row * EDGE + cols]);
    }
}
