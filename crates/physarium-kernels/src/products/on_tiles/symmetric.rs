/*!
Products with one symmetric matrix on AMX tiles.

In: a matrix in float32, rows `[rows, width]`. Out: their products. An element of either is the sum of two BF16 terms;
the product of two low terms is below 16 bits and is left out. Memory holds the tiles only: four bytes for an element.
*/

use super::tile_product::{EDGE, TileProduct};
use crate::arithmetic::Precision;
use crate::blocked::{PerTask, Target, Update};
use crate::compute::Compute;
use crate::products::block::block_outputs;
use crate::tiles::{Rows, TILE_DEPTH, TILE_ROWS, Terms, Tile, TileKind, pack_columns, split_band};

/// Number of rows that are split at once, so that their terms stay in a cache.
const ROWS: usize = 256;

/// A symmetric matrix: an even number of bands of 16 columns, each a tile for every 32 of the depth.
#[derive(Debug, Clone)]
pub(in crate::products) struct SymmetricTiles {
    width: usize,
    /// Tiles of a band.
    steps: usize,
    high: Vec<Tile>,
    low: Vec<Tile>,
}

impl SymmetricTiles {
    /// The matrix with these elements, `[width, width]`.
    pub(in crate::products) fn new(
        compute: &Compute,
        elements: &[f32],
        width: usize,
    ) -> SymmetricTiles {
        let steps = width.div_ceil(TILE_DEPTH);
        let bands = width.div_ceil(EDGE) * 2;
        let mut high = vec![Tile::ZERO; bands * steps];
        let mut low = high.clone();
        let mut both: Vec<_> = high.chunks_mut(2 * steps).zip(low.chunks_mut(2 * steps)).collect();
        compute.each_chunk(&mut both, 1, |pair, both| {
            let (high, low) = &mut both[0];
            for (at, (high, low)) in high.iter_mut().zip(&mut **low).enumerate() {
                let (next, step) = (at / steps, at % steps);
                let begin = step * TILE_DEPTH * width;
                let end = elements.len().min(begin + TILE_DEPTH * width);
                let rows = Rows { values: &elements[begin..end], stride: width, width };
                pack_columns(rows, (2 * pair + next) * TILE_ROWS, [high, low]);
            }
        });
        SymmetricTiles { width, steps, high, low }
    }

    /// Writes the product of `rows` `[rows, width]` and the matrix to `out` `[rows, width]`.
    pub(in crate::products) fn multiply(
        &self,
        compute: &Compute,
        rows: &[f32],
        precision: Precision,
        out: &mut [f32],
    ) {
        let SymmetricTiles { width, steps, .. } = *self;
        let chunks = rows.chunks(ROWS * width).zip(out.chunks_mut(ROWS * width));
        for (rows, out) in chunks {
            let tiles = (rows.len() / width).div_ceil(EDGE) * 2 * steps;
            compute.with_tiles(3 * tiles, |left| {
                let (high, both) = left.split_at_mut(tiles);
                self.split(compute, rows, precision, [high, both]);
                self.add_products(compute, precision, [high, both], out);
            });
        }
    }

    /// Splits rows into their high terms, and in full precision also into both.
    fn split(
        &self,
        compute: &Compute,
        rows: &[f32],
        precision: Precision,
        [high, both]: [&mut [Tile]; 2],
    ) {
        let SymmetricTiles { width, steps, .. } = *self;
        let mut bands: Vec<_> = high.chunks_mut(steps).zip(both.chunks_mut(2 * steps)).collect();
        compute.each_chunk(&mut bands, 1, |band, tiles| {
            let (high, both) = &mut tiles[0];
            let begin = (band * TILE_ROWS * width).min(rows.len());
            let end = (begin + TILE_ROWS * width).min(rows.len());
            let rows = Rows { values: &rows[begin..end], stride: width, width };
            match precision {
                Precision::Coarse => split_band(rows, Terms::One, high),
                Precision::Full => {
                    split_band(rows, Terms::Two, both);
                    let (pairs, _) = both.as_chunks::<2>();
                    high.iter_mut().zip(pairs).for_each(|(high, [of, _])| high.clone_from(of));
                }
            }
        });
    }

    /// Writes the products of rows that are split.
    fn add_products(
        &self,
        compute: &Compute,
        precision: Precision,
        [high, both]: [&[Tile]; 2],
        out: &mut [f32],
    ) {
        let SymmetricTiles { width, steps, .. } = *self;
        let rows = out.len() / width;
        let out =
            PerTask(Target { begin: out.as_mut_ptr(), stride: width, update: Update::Replace });
        let block = block_outputs(width);
        compute.each(width.div_ceil(block), |index| {
            let cols = index * block..((index + 1) * block).min(width);
            let add = |left, right: &[Tile], update| {
                let right = &right[cols.start / TILE_ROWS * steps..];
                let (kind, rows, cols) = (TileKind::Amx, 0..rows, cols.clone());
                let product = TileProduct { kind, left, right, steps, rows, cols };
                // SAFETY: `out` has all rows, and only this task accesses these columns.
                unsafe { product.run(Target { update, ..out.get() }) };
            };
            match precision {
                Precision::Coarse => add((Terms::One, high), &self.high, Update::Replace),
                Precision::Full => {
                    add((Terms::Two, both), &self.high, Update::Replace);
                    add((Terms::One, high), &self.low, Update::Add);
                }
            }
        });
    }
}
