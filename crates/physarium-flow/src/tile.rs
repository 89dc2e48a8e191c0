//! A tile: a window of a larger row-major matrix, as bytes.

use crate::format::FloatFormat;
use crate::positions::locate_tie;

/// The bytes of a tile inside a larger row-major matrix.
///
/// Shape: `rows` × `cols` elements; row `r` begins at byte `r * stride_bytes`.
#[derive(Debug, Clone, Copy)]
pub struct TileView<'a> {
    bytes: &'a [u8],
    format: FloatFormat,
    rows: usize,
    cols: usize,
    stride_bytes: usize,
}

impl<'a> TileView<'a> {
    /// A view of `[rows, cols]` elements in `bytes`, which begin with the first element of the tile.
    ///
    /// `stride_bytes`: distance between the first bytes of two consecutive rows.
    ///
    /// # Panics
    /// If `bytes` end before the last row does, or rows overlap.
    #[track_caller]
    pub fn new(
        bytes: &'a [u8],
        format: FloatFormat,
        [rows, cols]: [usize; 2],
        stride_bytes: usize,
    ) -> Self {
        let row_bytes = cols * format.size_bytes();
        let needed = if rows == 0 { 0 } else { (rows - 1) * stride_bytes + row_bytes };
        assert!(bytes.len() >= needed, "{rows} x {cols} tile in {} bytes", bytes.len());
        assert!(rows < 2 || stride_bytes >= row_bytes, "stride {stride_bytes} < row {row_bytes}");
        TileView { bytes, format, rows, cols, stride_bytes }
    }

    /// Element format.
    #[inline]
    pub fn format(&self) -> FloatFormat {
        self.format
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }

    /// Whether the tile has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of each row, first to last.
    #[inline]
    pub fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let TileView { bytes, stride_bytes, rows, .. } = *self;
        let row_bytes = self.cols * self.format.size_bytes();
        (0..rows).map(move |row| &bytes[row * stride_bytes..][..row_bytes])
    }

    /// Position (row-major in the tile) just after the `ties`-th element with this key.
    ///
    /// # Panics
    /// If the tile has fewer.
    pub(crate) fn end_of_ties(&self, key: u32, ties: u64) -> u64 {
        let mut left = ties;
        let mut position = 0;
        for row in self.rows() {
            if let Some(at) = locate_tie(row, self.format, key, &mut left) {
                return position + at;
            }
            position += self.cols as u64;
        }
        panic!("{left} of {ties} ties at key {key:#x} not found in the tile");
    }
}
