//! Which weights of a scope die: all below one magnitude, and the first so many at it.

use crate::census::{Magnitudes, TileView};

/// The line between dead and alive in a scope (a tile, a tensor).
///
/// A weight that is not zero dies when its key is smaller than `below`, or equal to it and its
/// row-major position in the scope is before `ties_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// First key that does not die whole.
    pub below: u32,
    /// Ties at `below` before this position die.
    pub ties_end: u64,
}

impl Cut {
    /// Nothing dies.
    pub const NOTHING: Cut = Cut { below: 0, ties_end: 0 };
}

/// The cut that leaves exactly `zeros` weights of a tile zero, those that are zero already
/// counted first; ties die in row-major order. Infinite and NaN weights never die.
///
/// If the tile has more zeros than that already, nothing dies.
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
