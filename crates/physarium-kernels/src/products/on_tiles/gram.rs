/*!
Sums over tokens on tiles: products of features with features, each a BF16 number for each token.

In: rows of activations `[tokens, width]`. Out: their products, added to `[width, width]`, or to `[width, other width]`
for two kinds of activations. An activation is rounded to one BF16 number: the sums are exact ones of activations that
differ by 2⁻⁸ of their size at most, each in its own direction.
*/

use super::tile_product::{EDGE, TileProduct};
use crate::blocked::{Target, Update};
use crate::compute::Compute;
use crate::products::block::block_outputs;
use crate::tiles::{
    Rows, TILE_DEPTH, TILE_ROWS, Terms, Tile, TileKind, pack_columns, transpose_pairs_of,
};

/// Number of tokens whose products are summed at once.
const TOKENS: usize = 2048;

/// Which part of a result is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    /// What is right of the diagonal, of a square.
    Upper,
}

/// Adds the upper half of xᵀx; what is below the diagonal becomes meaningless.
pub(in crate::products) fn add_upper(
    (compute, kind): (&Compute, TileKind),
    (x, width): (&[f32], usize),
    sums: &mut [f32],
) {
    for x in x.chunks(TOKENS * width) {
        Features::with(compute, x, width, |cols| {
            cols.add((compute, kind), cols, Part::Upper, sums)
        });
    }
}

/// Adds aᵀb; `a` and `b`: whole rows of `widths`.
pub(in crate::products) fn add_cross(
    (compute, kind): (&Compute, TileKind),
    [a, b]: [&[f32]; 2],
    widths: [usize; 2],
    out: &mut [f32],
) {
    for (a, b) in a.chunks(TOKENS * widths[0]).zip(b.chunks(TOKENS * widths[1])) {
        Features::with(compute, a, widths[0], |rows| {
            Features::with(compute, b, widths[1], |cols| {
                cols.add((compute, kind), rows, Part::All, out)
            });
        });
    }
}

/// Activations as tiles of weights: an even number of bands of 16 features, each a tile for every 32 tokens.
struct Features<'a> {
    width: usize,
    /// Tiles of a band.
    steps: usize,
    tiles: &'a [Tile],
}

impl Features<'_> {
    /// Calls `work` with the features of whole rows of activations.
    fn with(compute: &Compute, x: &[f32], width: usize, work: impl FnOnce(&Features<'_>)) {
        let steps = (x.len() / width).div_ceil(TILE_DEPTH);
        compute.with_tiles(width.div_ceil(EDGE) * 2 * steps, |tiles| {
            compute.each_chunk(tiles, 2 * steps, |pair, tiles| {
                let (first, second) = tiles.split_at_mut(steps);
                let tokens = x.chunks(TILE_DEPTH * width);
                for ((values, first), second) in tokens.zip(first).zip(second) {
                    let rows = Rows { values, stride: width, width };
                    for (next, tile) in [first, second].into_iter().enumerate() {
                        let first = (2 * pair + next) * TILE_ROWS;
                        pack_columns(rows, first, [tile]);
                    }
                }
            });
            work(&Features { width, steps, tiles });
        });
    }

    /// Adds the products of the features of `rows` with these to `out` `[width of rows, width]`.
    fn add(
        &self,
        (compute, kind): (&Compute, TileKind),
        rows: &Features<'_>,
        part: Part,
        out: &mut [f32],
    ) {
        let Features { width, steps, tiles } = *self;
        let block = block_outputs(rows.width);
        compute.each_chunk(out, block * width, |index, out| {
            let first = index * block;
            let count = out.len() / width;
            let bands = count.div_ceil(EDGE) * 2;
            compute.with_tiles(bands * steps, |left| {
                let from = &rows.tiles[first / TILE_ROWS * steps..][..bands * steps];
                for (from, to) in from.iter().zip(&mut *left) {
                    transpose_pairs_of(from, to);
                }
                let begin = match part {
                    Part::All => 0,
                    Part::Upper => first,
                };
                let product = TileProduct {
                    kind,
                    left: (Terms::One, left),
                    right: &tiles[begin / TILE_ROWS * steps..],
                    steps,
                    rows: 0..count,
                    cols: begin..width,
                };
                let out = Target { begin: out.as_mut_ptr(), stride: width, update: Update::Add };
                // SAFETY: `out` has `count` rows of `width` columns, and is this task's.
                unsafe { product.run(out) };
            });
        });
    }
}
