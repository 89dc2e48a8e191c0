/*!
Zeros by tile: what the pictures of a report are drawn from.

In: the weights of matrices, chunk by chunk. Out: for each matrix a [`TileMap`], and of a few tiles which weights live
([`MagnifiedTile`]). Both are written as base64 of little-endian bytes, so that a report of a large model stays small.
*/

pub(crate) mod grid;
pub(crate) mod magnified;

use serde::{Deserialize, Serialize};

/// Edge of a magnified tile, and the smallest edge of the tiles of a map, in weights.
pub(crate) const EDGE: u64 = 256;

/// The zeros of each tile of a matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileMap {
    /// Dimensions of the matrix as it is stored.
    pub shape: [u64; 2],
    /// Edge of a tile in weights; those at the right and at the bottom may be smaller.
    pub edge: u64,
    /// Number of zeros of any origin in each tile, row by row: base64 of unsigned 32-bit little-endian integers.
    pub zeros: String,
}

impl TileMap {
    pub(crate) fn new(shape: [u64; 2], edge: u64, zeros: &[u32]) -> TileMap {
        let bytes: Vec<u8> = zeros.iter().flat_map(|count| count.to_le_bytes()).collect();
        TileMap { shape, edge, zeros: base64::encode(bytes) }
    }

    /// Zeros and elements of each tile, row by row; `None` if the map is not of this shape, as in a report that was
    /// changed.
    pub fn tiles(&self) -> Option<Vec<[u64; 2]>> {
        let [rows, cols] = self.shape;
        let bytes = base64::decode(&self.zeros).ok()?;
        let (counts, rest) = bytes.as_chunks::<4>();
        let lengths = |all: u64| {
            let edge = self.edge;
            (0..all.div_ceil(edge)).map(move |tile| edge.min(all - tile * edge))
        };
        if self.edge == 0 || !rest.is_empty() {
            return None;
        }
        let tiles = rows.div_ceil(self.edge).checked_mul(cols.div_ceil(self.edge))?;
        if tiles != counts.len() as u64 {
            return None;
        }
        let elements =
            lengths(rows).flat_map(|height| lengths(cols).map(move |width| height * width));
        let zeros = counts.iter().map(|count| u64::from(u32::from_le_bytes(*count)));
        let all: Vec<[u64; 2]> = zeros.zip(elements).map(|(zeros, all)| [zeros, all]).collect();
        all.iter().all(|[zeros, all]| zeros <= all).then_some(all)
    }
}

/// One tile of a matrix, weight by weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MagnifiedTile {
    /// Name of the tensor.
    pub tensor: String,
    /// Its projection's name.
    pub projection: String,
    /// Number of its expert; `None` if the tensor is not a stack of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<u32>,
    /// Row and column of its first weight in the matrix as it is stored.
    pub at: [u64; 2],
    /// Its rows and columns.
    pub shape: [u64; 2],
    /// Which weights are not zero, row by row: base64 of bits, the first in the lowest bit of a byte.
    pub alive: String,
}
