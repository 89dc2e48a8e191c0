//! The tile: what AMX loads at once, and AVX-512 row by row.

/// Number of rows of a tile: rows of activations, or outputs of weights.
pub(crate) const TILE_ROWS: usize = 16;
/// Number of inputs that a tile spans.
pub(crate) const TILE_DEPTH: usize = 32;

/// Sixteen rows of 64 bytes, which AMX loads at once; a row is a cache line.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[u16; TILE_DEPTH]; TILE_ROWS]);

impl Tile {
    /// A tile of zeros.
    pub(crate) const ZERO: Tile = Tile([[0; TILE_DEPTH]; TILE_ROWS]);
}
