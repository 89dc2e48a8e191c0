/*!
How a projection falls into tiles, and the tiles of a run of its weights.

Tiles do not overlap: weight (row, col) is in the tile of band `row / edge` and column `col / edge`,
and nowhere else. A *band* is the row of tiles that spans the projection's width.
*/

use std::ops::Range;

use physarium_checkpoint::{Dtype, PlannedTensor, ProjectionShape};
use physarium_flow::{Counts, Cut, FloatFormat, apply_cut};

/// A projection's weights as a row-major matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub format: FloatFormat,
    /// out_features.
    pub rows: u64,
    /// in_features.
    pub cols: u64,
}

impl Matrix {
    /// The matrix of a target; `None` for a tensor that is skipped.
    pub fn of(tensor: &PlannedTensor) -> Option<Matrix> {
        let ProjectionShape { rows, cols } = tensor.target()?;
        let format = match tensor.info.dtype {
            Dtype::BF16 => FloatFormat::Bf16,
            Dtype::F16 => FloatFormat::F16,
            Dtype::F32 => FloatFormat::F32,
            other => unreachable!("the plan targets no {other}"),
        };
        Some(Matrix { format, rows, cols })
    }

    /// Bytes of one element.
    pub fn element_bytes(&self) -> u64 {
        self.format.size_bytes() as u64
    }

    pub fn row_bytes(&self) -> u64 {
        self.cols * self.element_bytes()
    }
}

/// A projection seen as tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub matrix: Matrix,
    /// Rows and columns of a tile that no edge clips.
    pub edge: u64,
}

impl Grid {
    pub fn bands(&self) -> u64 {
        self.matrix.rows.div_ceil(self.edge)
    }

    pub fn tile_columns(&self) -> u64 {
        self.matrix.cols.div_ceil(self.edge)
    }

    pub fn tiles(&self) -> u64 {
        self.bands() * self.tile_columns()
    }

    /// Bytes of a band that the bottom edge does not clip.
    pub fn band_bytes(&self) -> u64 {
        self.matrix.row_bytes() * self.edge.min(self.matrix.rows)
    }

    /// Rows of a band.
    pub fn band_rows(&self, band: u64) -> Range<u64> {
        band * self.edge..((band + 1) * self.edge).min(self.matrix.rows)
    }

    /// Columns of a tile column.
    pub fn tile_cols(&self, tile_column: u64) -> Range<u64> {
        tile_column * self.edge..((tile_column + 1) * self.edge).min(self.matrix.cols)
    }
}

/// Applies one cut per tile to weights of one band, the first of which has row-major position
/// `first` in the projection. `cuts` are those of the band's tiles, left to right.
pub(crate) fn apply_band(data: &mut [u8], grid: &Grid, first: u64, cuts: &[Cut]) -> Counts {
    let Matrix { format, cols, .. } = grid.matrix;
    let size = format.size_bytes();
    let mut counts = Counts::default();
    let mut position = first;
    let mut rest = data;
    while !rest.is_empty() {
        let (row, col) = (position / cols, position % cols);
        let tile_column = col / grid.edge;
        let tile = grid.tile_cols(tile_column);
        let length = (tile.end - col).min((rest.len() / size) as u64);
        let (segment, tail) = rest.split_at_mut(length as usize * size);
        let in_tile = (row % grid.edge) * (tile.end - tile.start) + (col - tile.start);
        counts += apply_cut(segment, format, cuts[tile_column as usize], in_tile);
        position += length;
        rest = tail;
    }
    counts
}
