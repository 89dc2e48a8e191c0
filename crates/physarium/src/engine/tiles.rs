/*!
Division of a matrix into tiles.

Tiles do not overlap: weight (row, col) is in the tile of band `row / edge` and tile column `col / edge`, and in no
other. A *band* is a row of tiles that spans the width of the matrix.
*/

use std::ops::Range;

use physarium_checkpoint::{Dtype, MatrixView};
use physarium_flow::{Counts, Cut, FloatFormat, apply_cut};

/// The layout of a matrix's bytes: row after row, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowMajor {
    pub format: FloatFormat,
    pub rows: u64,
    pub cols: u64,
}

impl RowMajor {
    /// The layout of a matrix of a target with this dtype.
    ///
    /// # Panics
    /// For a dtype that no target has.
    pub fn of(view: &MatrixView, dtype: Dtype) -> RowMajor {
        let format = match dtype {
            Dtype::BF16 => FloatFormat::Bf16,
            Dtype::F16 => FloatFormat::F16,
            Dtype::F32 => FloatFormat::F32,
            other => unreachable!("the plan targets no {other}"),
        };
        RowMajor { format, rows: view.rows, cols: view.cols }
    }

    /// Bytes of one element.
    pub fn element_bytes(&self) -> u64 {
        self.format.size_bytes() as u64
    }

    pub fn row_bytes(&self) -> u64 {
        self.cols * self.element_bytes()
    }

    pub fn size_bytes(&self) -> u64 {
        self.rows * self.row_bytes()
    }
}

/// A matrix divided into tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub matrix: RowMajor,
    /// Side length of a tile; the last tiles of rows and columns may be smaller.
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

    /// Bytes of a band; the last one may be smaller.
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

/// Applies the cuts of a band's tiles, left to right, to some consecutive weights of the band. The first weight has
/// row-major position `first` in the matrix.
pub(crate) fn apply_band(data: &mut [u8], grid: &Grid, first: u64, cuts: &[Cut]) -> Counts {
    let RowMajor { format, cols, .. } = grid.matrix;
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
