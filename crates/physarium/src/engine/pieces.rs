/*!
A tensor as the pieces in which it is read, treated and written.

A piece is as long as memory allows and no longer: whole bands of tiles, or, where one band is too
wide, whole rows or parts of rows whose tiles were decided beforehand (by reading the band once
more, a few tile columns at a time).
*/

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use physarium_checkpoint::{NmPattern, Source, start_thread};
use physarium_flow::{Cut, TileView};

use super::solve::{TileRule, TileSolver};
use super::tiles::{Grid, Matrix};
use super::treatment::Treatment;
use crate::error::Result;

/// How large pieces are, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PieceSizes {
    /// What a piece is made of bands to reach.
    pub wanted: u64,
    /// What no piece exceeds; a band above it is decided beforehand.
    pub most: u64,
}

impl PieceSizes {
    /// The sizes that runs use.
    pub const DEFAULT: PieceSizes = PieceSizes { wanted: 4 << 20, most: 32 << 20 };
}

/// A run of consecutive bytes of a shard that is read, treated and written as one.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// First byte in the shard.
    pub offset: u64,
    /// Bytes.
    pub length: usize,
    /// What is done to it.
    pub treatment: Treatment,
}

/// Bytes from `offset` on that are carried as they are. At least one piece, so that a tensor
/// without elements has its turn too.
pub(crate) fn carried(offset: u64, length: u64, sizes: PieceSizes) -> Vec<Piece> {
    cut_up(offset, length, sizes.wanted, |_| Treatment::Carry)
}

/// A projection whose tiles are decided one by one.
pub(crate) fn tiled(
    source: &Source,
    offset: u64,
    grid: Grid,
    rule: TileRule,
    sizes: PieceSizes,
    threads: usize,
) -> Result<Vec<Piece>> {
    let band_bytes = grid.band_bytes();
    let total = grid.matrix.rows * grid.matrix.row_bytes();
    if band_bytes <= sizes.most {
        let bands = (sizes.wanted / band_bytes).max(1);
        let treat = |begin| Treatment::DecideBands { grid, rule, band: begin / band_bytes };
        return Ok(cut_up(offset, total, bands * band_bytes, treat));
    }
    let mut pieces = Vec::new();
    for band in 0..grid.bands() {
        let cuts: Arc<[Cut]> =
            decide_wide_band(source, offset, &grid, band, rule, sizes, threads)?.into();
        let rows = grid.band_rows(band);
        let begin = rows.start * grid.matrix.row_bytes();
        let length = (rows.end - rows.start) * grid.matrix.row_bytes();
        let first = rows.start * grid.matrix.cols;
        pieces.extend(cut_up(offset + begin, length, sizes.wanted, |at| Treatment::ApplyBand {
            grid,
            cuts: Arc::clone(&cuts),
            first: first + at / grid.matrix.element_bytes(),
            tiles: if at == 0 { grid.tile_columns() } else { 0 },
        }));
    }
    Ok(pieces)
}

/// A projection whose cut is known.
pub(crate) fn cut(offset: u64, matrix: Matrix, cut: Cut, sizes: PieceSizes) -> Vec<Piece> {
    let treat = |at| Treatment::ApplyCut { matrix, cut, first: at / matrix.element_bytes() };
    cut_up(offset, matrix.rows * matrix.row_bytes(), sizes.wanted, treat)
}

/// A projection whose weights were solved before: they begin at byte `at` of `solved`.
pub(crate) fn solved(
    offset: u64,
    matrix: Matrix,
    solved: &Arc<Source>,
    at: u64,
    sizes: PieceSizes,
) -> Vec<Piece> {
    let treat = |begin| Treatment::Replace { matrix, solved: Arc::clone(solved), at: at + begin };
    cut_up(offset, matrix.rows * matrix.row_bytes(), sizes.wanted, treat)
}

/// A projection pruned N:M; pieces are whole rows, or whole groups of one row.
pub(crate) fn patterned(
    offset: u64,
    matrix: Matrix,
    pattern: NmPattern,
    sizes: PieceSizes,
) -> Vec<Piece> {
    let row_bytes = matrix.row_bytes();
    let treat = |at| Treatment::Pattern { matrix, pattern, first: at / matrix.element_bytes() };
    if row_bytes <= sizes.most {
        let rows = (sizes.wanted / row_bytes).max(1);
        return cut_up(offset, matrix.rows * row_bytes, rows * row_bytes, treat);
    }
    let group_bytes = pattern.group() as u64 * matrix.element_bytes();
    let size = sizes.wanted / group_bytes * group_bytes;
    let one_row = |row: u64| {
        let begin = row * row_bytes;
        cut_up(offset + begin, row_bytes, size, move |at| treat(begin + at))
    };
    (0..matrix.rows).flat_map(one_row).collect()
}

/// Cuts bytes into pieces of `size` at most, and treats each by its byte offset among them.
fn cut_up(offset: u64, length: u64, size: u64, treat: impl Fn(u64) -> Treatment) -> Vec<Piece> {
    let count = length.div_ceil(size).max(1);
    let piece = |i: u64| {
        let begin = i * size;
        Piece {
            offset: offset + begin,
            length: (length - begin).min(size) as usize,
            treatment: treat(begin),
        }
    };
    (0..count).map(piece).collect()
}

/// Decides the tiles of a band that does not fit in memory, a few tile columns at a time.
fn decide_wide_band(
    source: &Source,
    offset: u64,
    grid: &Grid,
    band: u64,
    rule: TileRule,
    sizes: PieceSizes,
    threads: usize,
) -> Result<Vec<Cut>> {
    let rows = grid.band_rows(band);
    let column_bytes = (rows.end - rows.start) * grid.edge * grid.matrix.element_bytes();
    let per_group = (sizes.wanted / column_bytes).max(1);
    let groups = grid.tile_columns().div_ceil(per_group);
    let next = AtomicU64::new(0);
    let worker = || -> Result<Vec<(u64, Vec<Cut>)>> {
        let mut solver = TileSolver::default();
        let mut buffer = Vec::new();
        let mut decided = Vec::new();
        loop {
            let group = next.fetch_add(1, Ordering::Relaxed);
            if group >= groups {
                return Ok(decided);
            }
            let tiles = group * per_group..((group + 1) * per_group).min(grid.tile_columns());
            let window = Window { source, offset, grid, band, tiles };
            decided.push((group, window.decide(rule, &mut solver, &mut buffer)?));
        }
    };
    let mut decided = std::thread::scope(|scope| -> Result<Vec<(u64, Vec<Cut>)>> {
        let workers = (0..threads).map(|_| start_thread(scope, worker));
        let workers = workers.collect::<Result<Vec<_>, _>>()?;
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })?;
    decided.sort_by_key(|(group, _)| *group);
    Ok(decided.into_iter().flat_map(|(_, cuts)| cuts).collect())
}

/// Some neighbouring tiles of a band, as bytes of a shard.
struct Window<'a> {
    source: &'a Source,
    offset: u64,
    grid: &'a Grid,
    band: u64,
    tiles: std::ops::Range<u64>,
}

impl Window<'_> {
    fn decide(
        &self,
        rule: TileRule,
        solver: &mut TileSolver,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<Cut>> {
        let Grid { matrix, .. } = *self.grid;
        let size = matrix.element_bytes();
        let rows = self.grid.band_rows(self.band);
        let first_col = self.grid.tile_cols(self.tiles.start).start;
        let end_col = self.grid.tile_cols(self.tiles.end - 1).end;
        let stride = ((end_col - first_col) * size) as usize;
        let n_rows = (rows.end - rows.start) as usize;
        buffer.resize(n_rows * stride, 0);
        for (row, into) in rows.zip(buffer.chunks_exact_mut(stride)) {
            let at = self.offset + (row * matrix.cols + first_col) * size;
            self.source.read_exact_at(into, at)?;
        }
        let view = |tile_column| {
            let cols = self.grid.tile_cols(tile_column);
            let begin = ((cols.start - first_col) * size) as usize;
            let n_cols = (cols.end - cols.start) as usize;
            TileView::new(&buffer[begin..], matrix.format, [n_rows, n_cols], stride)
        };
        let tiles: Vec<TileView<'_>> = self.tiles.clone().map(view).collect();
        let mut cuts = Vec::with_capacity(tiles.len());
        solver.decide(&tiles, rule, &mut cuts);
        Ok(cuts)
    }
}
