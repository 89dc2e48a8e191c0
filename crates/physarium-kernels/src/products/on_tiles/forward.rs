/*!
The blocks of a product with many rows on tiles.

In: rows of activations, blocks of maps with BF16 weights. Out: the columns of the results that belong to the
blocks.
*/

use super::tile_product::{EDGE, TileProduct};
use super::tile_weights::pack_outputs;
use crate::compute::Compute;
use crate::products::block::{Block, Rows};
use crate::tiles::{self, TILE_DEPTH, TILE_ROWS, Terms, TileKind, split_band};

/// Number of rows of activations that are split at once, so that their terms stay in a cache.
const ROWS: usize = 256;

/// Computes all blocks, from as many terms of each activation.
pub(in crate::products) fn run_on_tiles(
    compute: &Compute,
    x: Rows<'_>,
    (kind, terms): (TileKind, Terms),
    blocks: &[Block<'_>],
) {
    blocks.iter().for_each(|block| block.map.prepare(compute));
    let inputs = x.width;
    let steps = inputs.div_ceil(TILE_DEPTH);
    let band = steps * terms.count();
    for (chunk, rows) in x.values.chunks(ROWS * inputs).enumerate() {
        let count = rows.len() / inputs;
        let bands = count.div_ceil(EDGE) * 2;
        compute.with_tiles(bands * band, |split| {
            compute.each_chunk(split, band, |index, band| {
                let begin = (index * TILE_ROWS * inputs).min(rows.len());
                let end = (begin + TILE_ROWS * inputs).min(rows.len());
                let values = &rows[begin..end];
                split_band(tiles::Rows { values, stride: inputs, width: inputs }, terms, band);
            });
            let first = chunk * ROWS;
            compute.each(blocks.len(), |index| {
                let Block { map, y, outputs } = &blocks[index];
                let run = |right: &[_]| {
                    let (rows, cols) = (first..first + count, outputs.clone());
                    let product =
                        TileProduct { kind, left: (terms, split), right, steps, rows, cols };
                    // SAFETY: `y` has all rows of `x`, and only this block accesses these columns.
                    unsafe { product.run(*y) };
                    blocks[index].add_bias(first..first + count);
                };
                match map.packed.get() {
                    // Blocks begin at a pair of bands.
                    Some(packed) => run(&packed[outputs.start / TILE_ROWS * steps..]),
                    None => {
                        let bands = outputs.len().div_ceil(EDGE) * 2;
                        compute.with_tiles(bands * steps, |packed| {
                            for (index, packed) in packed.chunks_mut(steps).enumerate() {
                                let first = outputs.start + index * TILE_ROWS;
                                pack_outputs(compute, map, first, packed);
                            }
                            run(packed);
                        });
                    }
                }
            });
        });
    }
}
