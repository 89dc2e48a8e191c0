/*!
The weights of a map as tiles.

In: the BF16 weights of a [`Linear`], dense or sparse. Out: bands of 16 outputs, each a tile for every 32 inputs.
*/

use crate::arithmetic::Precision;
use crate::compute::Compute;
use crate::matvec;
use crate::products::linear::Linear;
use crate::tiles::{TILE_DEPTH, TILE_ROWS, Terms, Tile, TileKind, pack_band};
use crate::weights::{Dense, Sparse, Weights};

impl Linear {
    /// What products with many rows run on, and the terms of an activation there; `None` for float32.
    pub(in crate::products) fn tiles(&self, compute: &Compute) -> Option<(TileKind, Terms)> {
        let terms = match compute.activations() {
            Precision::Full => Terms::Two,
            Precision::Coarse => Terms::One,
        };
        let bf16 = matches!(self.weights.values(), Dense::Bf16(_));
        compute.tiles_of(terms).filter(|_| bf16).map(|kind| (kind, terms))
    }
}

/// All weights of a map; an even number of bands, of which the last may be padding.
pub(in crate::products) fn pack_weights(compute: &Compute, map: &Linear) -> Vec<Tile> {
    let band = map.inputs.div_ceil(TILE_DEPTH);
    let mut packed = vec![Tile::ZERO; map.outputs.div_ceil(2 * TILE_ROWS) * 2 * band];
    compute.each_chunk(&mut packed, band, |index, packed| {
        pack_outputs(compute, map, index * TILE_ROWS, packed);
    });
    packed
}

/// The band of at most 16 outputs that begins at output `first`.
pub(in crate::products) fn pack_outputs(
    compute: &Compute,
    map: &Linear,
    first: usize,
    packed: &mut [Tile],
) {
    let (first, last) = (first.min(map.outputs), (first + TILE_ROWS).min(map.outputs));
    match &*map.weights {
        Weights::Dense(Dense::Bf16(weights)) => {
            pack_band(&weights[first * map.inputs..last * map.inputs], map.inputs, packed);
        }
        Weights::Sparse(weights) => {
            let width = Sparse::words(map.inputs) * TILE_DEPTH;
            let mut rows = vec![0; (last - first) * width];
            for (offset, row) in rows.chunks_exact_mut(width).enumerate() {
                matvec::expand_words(compute.vectors(), weights, first + offset, row);
            }
            pack_band(&rows, width, packed);
        }
        Weights::Dense(_) => unreachable!("only BF16 weights run on tiles"),
    }
}
