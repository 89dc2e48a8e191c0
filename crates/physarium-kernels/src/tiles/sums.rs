//! The block of sums that products of tiles are added to.

use super::tile::TILE_ROWS;

/// The initial values of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Zero.
    Zero,
    /// The values in the block: sums over the preceding inputs, or results to add to.
    FromSums,
}

/// Rows and columns of a block of sums.
pub(crate) const EDGE: usize = 2 * TILE_ROWS;

/// A block of 32 rows of 32 sums, in which no row of a tile is in two cache lines.
#[repr(C, align(64))]
#[derive(Debug, Clone)]
pub(crate) struct Sums(pub(crate) [[f32; EDGE]; EDGE]);

impl Sums {
    pub(crate) const ZERO: Sums = Sums([[0.0; EDGE]; EDGE]);
}
