/*!
The threshold between pruned and kept weights of a scope.

In: the magnitudes of a tile and the number of weights that are to be zero. Out: a [`Cut`]: all weights
below one magnitude are pruned, and of those at it the ones before one position.
*/

use crate::census::Magnitudes;
use crate::tile::TileView;

/// The threshold between pruned and kept weights of a scope (a tile, a tensor).
///
/// A non-zero weight is pruned if its key is smaller than `below`, or if its key equals `below` and its
/// row-major position in the scope is before `ties_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Smallest key whose weights are not all pruned.
    pub below: u32,
    /// Weights with the key `below` are pruned before this position.
    pub ties_end: u64,
}

impl Cut {
    /// Prunes nothing.
    pub const NOTHING: Cut = Cut { below: 0, ties_end: 0 };
}

/// The cut after which exactly `zeros` weights of a tile are zero, including those that are zero
/// already; ties are pruned in row-major order. Infinite and NaN weights are never pruned.
///
/// If the tile has at least `zeros` zeros already, nothing is pruned.
pub fn exact_cut(tile: &TileView<'_>, magnitudes: &Magnitudes, zeros: u64) -> Cut {
    let mut left = zeros.saturating_sub(magnitudes.zeros);
    if left == 0 {
        return Cut::NOTHING;
    }
    for (&key, &count) in magnitudes.keys.iter().zip(&magnitudes.counts) {
        if left < u64::from(count) {
            let ties_end = if left == 0 { 0 } else { tile.end_of_ties(key, left) };
            return Cut { below: key, ties_end };
        }
        left -= u64::from(count);
    }
    Cut { below: tile.format().infinity_key(), ties_end: 0 }
}
