/*!
Division of a tensor into pieces, which are read, processed and written as a whole.

Pieces have a bounded size. A piece holds whole bands of tiles. If a single band is too large, its tiles are decided
beforehand, by reading the band once more a few tile columns at a time; its pieces then hold any consecutive
weights.
*/

use std::sync::Arc;

use physarium_checkpoint::{NmPattern, Source, Tasks};
use physarium_flow::{Cut, TileView};

use super::solve::{TileRule, TileSolver};
use super::tiles::{Grid, RowMajor};
use super::treatment::Treatment;
use crate::error::Result;

/// Sizes of pieces, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PieceSizes {
    /// Size of a piece, if bands of tiles allow it.
    pub wanted: u64,
    /// Largest size of a piece. A larger band is decided beforehand.
    pub most: u64,
}

impl PieceSizes {
    /// The sizes that runs use.
    pub const DEFAULT: PieceSizes = PieceSizes { wanted: 4 << 20, most: 32 << 20 };
}

/// Consecutive bytes of a shard that are read, processed and written as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// First byte in the shard.
    pub offset: u64,
    /// Bytes.
    pub length: usize,
    /// How it is processed.
    pub treatment: Treatment,
}

/// The pieces of a tensor, each with the index of its matrix.
pub(super) type TensorPieces = Vec<(usize, Piece)>;

/// Pieces of `length` bytes from `offset` on that are copied. There is at least one piece, so that a tensor
/// without elements is recorded too.
pub(crate) fn copied(offset: u64, length: u64, sizes: PieceSizes) -> Vec<Piece> {
    Cutting { offset, length, size: sizes.wanted }.pieces(|_| Treatment::Copy)
}

/// A matrix in a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Its first byte in the shard.
    pub offset: u64,
    pub matrix: RowMajor,
    pub sizes: PieceSizes,
}

/// How the tiles of a matrix are decided, one by one.
#[derive(Clone, Copy)]
pub(crate) struct Tiling<'a> {
    /// The shard.
    pub source: &'a Source,
    /// Side length of a tile.
    pub edge: u64,
    pub rule: TileRule,
    /// Threads that decide bands too large for a piece.
    pub workers: usize,
}

impl Extent {
    /// Pieces of a matrix whose tiles are decided one by one.
    pub fn tiled(self, tiling: Tiling<'_>) -> Result<Vec<Piece>> {
        let (grid, rule) = (Grid { matrix: self.matrix, edge: tiling.edge }, tiling.rule);
        let band_bytes = grid.band_bytes();
        if band_bytes <= self.sizes.most {
            let bands = (self.sizes.wanted / band_bytes).max(1);
            let treat = |begin| Treatment::DecideBands { grid, rule, band: begin / band_bytes };
            return Ok(self.whole(bands * band_bytes).pieces(treat));
        }
        let mut pieces = Vec::new();
        for band in 0..grid.bands() {
            let wide = WideBand { extent: self, grid, band, source: tiling.source };
            let cuts: Arc<[Cut]> = wide.decide(rule, tiling.workers)?.into();
            let rows = grid.band_rows(band);
            let first = rows.start * grid.matrix.cols;
            let cutting = Cutting {
                offset: self.offset + rows.start * grid.matrix.row_bytes(),
                length: (rows.end - rows.start) * grid.matrix.row_bytes(),
                size: self.sizes.wanted,
            };
            pieces.extend(cutting.pieces(|at| Treatment::ApplyBand {
                grid,
                cuts: Arc::clone(&cuts),
                first: first + at / grid.matrix.element_bytes(),
                tiles: if at == 0 { grid.tile_columns() } else { 0 },
            }));
        }
        Ok(pieces)
    }

    /// Pieces of a matrix with a known cut.
    pub fn cut(self, cut: Cut) -> Vec<Piece> {
        let matrix = self.matrix;
        let treat = |at| Treatment::ApplyCut { matrix, cut, first: at / matrix.element_bytes() };
        self.whole(self.sizes.wanted).pieces(treat)
    }

    /// Pieces of a matrix whose solved weights begin at byte `at` of `solved`.
    pub fn solved(self, solved: &Arc<Source>, at: u64) -> Vec<Piece> {
        let matrix = self.matrix;
        let replace =
            |begin| Treatment::Replace { matrix, solved: Arc::clone(solved), at: at + begin };
        self.whole(self.sizes.wanted).pieces(replace)
    }

    /// Pieces of a matrix pruned to a pattern: whole rows, or whole groups of one row.
    pub fn patterned(self, pattern: NmPattern) -> Vec<Piece> {
        let matrix = self.matrix;
        let row_bytes = matrix.row_bytes();
        let treat = |at| Treatment::Pattern { matrix, pattern, first: at / matrix.element_bytes() };
        if row_bytes <= self.sizes.most {
            let rows = (self.sizes.wanted / row_bytes).max(1);
            return self.whole(rows * row_bytes).pieces(treat);
        }
        let group_bytes = pattern.group() as u64 * matrix.element_bytes();
        let size = self.sizes.wanted / group_bytes * group_bytes;
        let one_row = |row: u64| {
            let begin = row * row_bytes;
            let cutting = Cutting { offset: self.offset + begin, length: row_bytes, size };
            cutting.pieces(move |at| treat(begin + at))
        };
        (0..matrix.rows).flat_map(one_row).collect()
    }

    fn whole(self, size: u64) -> Cutting {
        Cutting { offset: self.offset, length: self.matrix.size_bytes(), size }
    }
}

/// Bytes of a shard, to be divided into pieces of at most `size`.
struct Cutting {
    offset: u64,
    length: u64,
    size: u64,
}

impl Cutting {
    /// The pieces; `treat` gives the treatment of each by its offset from the first byte.
    fn pieces(self, treat: impl Fn(u64) -> Treatment) -> Vec<Piece> {
        let count = self.length.div_ceil(self.size).max(1);
        let piece = |i: u64| {
            let begin = i * self.size;
            Piece {
                offset: self.offset + begin,
                length: (self.length - begin).min(self.size) as usize,
                treatment: treat(begin),
            }
        };
        (0..count).map(piece).collect()
    }
}

/// A band that is too large for a piece.
struct WideBand<'a> {
    extent: Extent,
    grid: Grid,
    band: u64,
    source: &'a Source,
}

impl WideBand<'_> {
    /// Decides the band's tiles, a few tile columns at a time. Returns the cuts from left to right.
    fn decide(&self, rule: TileRule, workers: usize) -> Result<Vec<Cut>> {
        let rows = self.grid.band_rows(self.band);
        let element_bytes = self.grid.matrix.element_bytes();
        let column_bytes = (rows.end - rows.start) * self.grid.edge * element_bytes;
        let per_window = (self.extent.sizes.wanted / column_bytes).max(1);
        let columns = self.grid.tile_columns();
        let tasks = Tasks { count: columns.div_ceil(per_window) as usize, threads: workers };
        let mut decided = Vec::new();
        tasks.run(
            || (TileSolver::default(), Vec::new()),
            |(solver, buffer), window| -> Result<(usize, Vec<Cut>)> {
                let first = window as u64 * per_window;
                let tiles = first..(first + per_window).min(columns);
                Ok((window, self.decide_window(tiles, rule, solver, buffer)?))
            },
            &mut |window| {
                decided.push(window);
                Ok(())
            },
        )?;
        decided.sort_by_key(|(window, _)| *window);
        Ok(decided.into_iter().flat_map(|(_, cuts)| cuts).collect())
    }

    /// Reads neighbouring tiles into `buffer` and decides them.
    fn decide_window(
        &self,
        tiles: std::ops::Range<u64>,
        rule: TileRule,
        solver: &mut TileSolver,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<Cut>> {
        let (grid, matrix) = (&self.grid, self.grid.matrix);
        let size = matrix.element_bytes();
        let rows = grid.band_rows(self.band);
        let first_col = grid.tile_cols(tiles.start).start;
        let end_col = grid.tile_cols(tiles.end - 1).end;
        let stride = ((end_col - first_col) * size) as usize;
        let n_rows = (rows.end - rows.start) as usize;
        buffer.resize(n_rows * stride, 0);
        for (row, into) in rows.zip(buffer.chunks_exact_mut(stride)) {
            let at = self.extent.offset + (row * matrix.cols + first_col) * size;
            self.source.read_exact_at(into, at)?;
        }
        let view = |tile_column| {
            let cols = grid.tile_cols(tile_column);
            let begin = ((cols.start - first_col) * size) as usize;
            let n_cols = (cols.end - cols.start) as usize;
            TileView::new(&buffer[begin..], matrix.format, [n_rows, n_cols], stride)
        };
        let views: Vec<TileView<'_>> = tiles.map(view).collect();
        let mut cuts = Vec::with_capacity(views.len());
        solver.decide(&views, rule, &mut cuts);
        Ok(cuts)
    }
}
