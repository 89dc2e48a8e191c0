/*!
Products of strided matrices on AMX tiles, on the calling thread.

In: two factors in float32. Out: their product. Each element of a factor is the sum of two BF16 terms, 16 bits.
*/

use std::ops::Range;

use super::tile_product::{EDGE, TileProduct};
use crate::blocked::{Target, Update};
use crate::compute::Compute;
use crate::products::factors::{Left, Output, Right};
use crate::tiles::{
    Rows, TILE_DEPTH, TILE_ROWS, Terms, Tile, TileKind, pack_columns, split_band,
    transpose_pairs_of,
};

/// Products of terms whose sum is the product of two numbers: high · high, low · high, high · low.
const PRODUCTS: usize = 3;

/// `out = left · right`; `shape`: rows, depth, cols, none of them zero.
///
/// # Safety
/// The slices hold all elements of their shapes.
pub(in crate::products) unsafe fn multiply(
    compute: &Compute,
    [rows, depth, cols]: [usize; 3],
    (left, right): (Left<'_>, Right<'_>),
    out: Output<'_>,
) {
    let each = depth.div_ceil(TILE_DEPTH);
    // The products of terms follow each other in the sum, as if the depth were as many times as large.
    let steps = PRODUCTS * each;
    let tiles = |count: usize| count.div_ceil(EDGE) * 2 * steps;
    compute.with_tiles(tiles(rows) + tiles(cols) + 2 * each, |all| {
        let (left_tiles, rest) = all.split_at_mut(tiles(rows));
        let (right_tiles, scratch) = rest.split_at_mut(tiles(cols));
        let left = Rows { values: left.data, stride: left.stride, width: depth };
        pack_rows(left, rows, left_tiles, scratch);
        for (band, tiles) in right_tiles.chunks_exact_mut(steps).enumerate() {
            pack_right(right, [depth, cols], band, (tiles, scratch));
        }
        let (left, right) = ((Terms::One, &*left_tiles), &*right_tiles);
        let (kind, rows, cols) = (TileKind::Amx, 0..rows, 0..cols);
        let product = TileProduct { kind, left, right, steps, rows, cols };
        let update = Update::Replace;
        let out = Target { begin: out.data.as_mut_ptr(), stride: out.stride, update };
        // SAFETY: guaranteed by the caller; `out` was borrowed mutably.
        unsafe { product.run(out) };
    });
}

/// A right factor of several products: the transpose of rows.
pub(in crate::products) struct TransposedTiles {
    depth: usize,
    tiles: Vec<Tile>,
}

impl TransposedTiles {
    /// The transpose of `rows` `[cols, depth]`.
    pub(in crate::products) fn new(compute: &Compute, rows: &[f32], depth: usize) -> Self {
        let (cols, each) = (rows.len() / depth, depth.div_ceil(TILE_DEPTH));
        let mut tiles = vec![Tile::ZERO; cols.div_ceil(EDGE) * 2 * PRODUCTS * each];
        let right = Right::Transposed { data: rows, stride: depth };
        compute.each_chunk(&mut tiles, PRODUCTS * each, |band, tiles| {
            compute.with_tiles(2 * each, |scratch| {
                pack_right(right, [depth, cols], band, (tiles, scratch));
            });
        });
        TransposedTiles { depth, tiles }
    }

    /// The product of `left` `[rows, depth]` and the first `cols` columns, on the calling thread.
    ///
    /// # Safety
    /// `out` has as many rows and columns, and no other thread accesses them.
    pub(in crate::products) unsafe fn multiply(
        &self,
        compute: &Compute,
        left: &[f32],
        cols: usize,
        out: Target,
    ) {
        let (rows, each) = (left.len() / self.depth, self.depth.div_ceil(TILE_DEPTH));
        let steps = PRODUCTS * each;
        let count = rows.div_ceil(EDGE) * 2 * steps;
        compute.with_tiles(count + 2 * each, |all| {
            let (tiles, scratch) = all.split_at_mut(count);
            let left = Rows { values: left, stride: self.depth, width: self.depth };
            pack_rows(left, rows, tiles, scratch);
            let (left, right) = ((Terms::One, &*tiles), &self.tiles[..]);
            let (kind, rows, cols) = (TileKind::Amx, 0..rows, 0..cols);
            let product = TileProduct { kind, left, right, steps, rows, cols };
            // SAFETY: guaranteed by the caller.
            unsafe { product.run(out) };
        });
    }
}

/// Packs all bands of `count` rows. `scratch`: two tiles for every 32 of the depth.
fn pack_rows(rows: Rows<'_>, count: usize, tiles: &mut [Tile], scratch: &mut [Tile]) {
    for (band, tiles) in tiles.chunks_exact_mut(PRODUCTS * scratch.len() / 2).enumerate() {
        pack_left(part(rows, count, band, TILE_ROWS), tiles, scratch);
    }
}

/// Packs a band of 16 rows: high terms, low terms, high terms. `scratch`: two tiles for every 32 of the depth.
fn pack_left(rows: Rows<'_>, tiles: &mut [Tile], scratch: &mut [Tile]) {
    split_band(rows, Terms::Two, scratch);
    let [high, low, again] = thirds(tiles);
    for (step, pair) in scratch.chunks_exact(2).enumerate() {
        high[step].clone_from(&pair[0]);
        low[step].clone_from(&pair[1]);
    }
    again.clone_from_slice(high);
}

/// Packs band `band` of 16 columns of the right factor `[depth, cols]`: high terms, high terms, low terms.
fn pack_right(
    right: Right<'_>,
    [depth, cols]: [usize; 2],
    band: usize,
    (tiles, scratch): (&mut [Tile], &mut [Tile]),
) {
    let [high, again, low] = thirds(tiles);
    match right {
        Right::AsIs { data: values, stride } => {
            let all = Rows { values, stride, width: cols };
            for (step, (high, low)) in high.iter_mut().zip(low).enumerate() {
                let rows = part(all, depth, step, TILE_DEPTH);
                pack_columns(rows, band * TILE_ROWS, [high, low]);
            }
        }
        Right::Transposed { data: values, stride } => {
            let all = Rows { values, stride, width: depth };
            split_band(part(all, cols, band, TILE_ROWS), Terms::Two, scratch);
            for (step, pair) in scratch.chunks_exact(2).enumerate() {
                transpose_pairs_of(&pair[0], &mut high[step]);
                transpose_pairs_of(&pair[1], &mut low[step]);
            }
        }
    }
    again.clone_from_slice(high);
}

/// Three parts of equal length.
fn thirds(tiles: &mut [Tile]) -> [&mut [Tile]; PRODUCTS] {
    let (first, rest) = tiles.split_at_mut(tiles.len() / PRODUCTS);
    let (second, third) = rest.split_at_mut(first.len());
    [first, second, third]
}

/// Run `index` of `len` rows of the first `count`.
fn part(all: Rows<'_>, count: usize, index: usize, len: usize) -> Rows<'_> {
    let Range { start, end } = index * len..((index + 1) * len).min(count);
    if start >= end {
        return Rows { values: &[], ..all };
    }
    Rows { values: &all.values[start * all.stride..(end - 1) * all.stride + all.width], ..all }
}
