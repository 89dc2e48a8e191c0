//! How a piece is processed: copied, pruned or replaced by solved weights.

use std::sync::Arc;

use physarium_checkpoint::{NmPattern, Source};
use physarium_flow::{Counts, Cut, apply_cut, apply_pattern};

use super::solve::{TileRule, TileSolver};
use super::tiles::{Grid, RowMajor, apply_band};
use crate::error::Result;

/// How a piece is processed. `first` is the row-major position of its first weight in the matrix.
#[derive(Debug, Clone)]
pub(crate) enum Treatment {
    /// The bytes are copied.
    Copy,
    /// Whole bands, the first of which is `band`, are decided and pruned.
    DecideBands { grid: Grid, rule: TileRule, band: u64 },
    /// Part of a band that is too large for a piece is pruned by the cuts of its tiles. The band's first piece
    /// counts all of its `tiles`, other pieces none.
    ApplyBand { grid: Grid, cuts: Arc<[Cut]>, first: u64, tiles: u64 },
    /// The matrix is pruned by one cut.
    ApplyCut { matrix: RowMajor, cut: Cut, first: u64 },
    /// Rows are pruned to an N:M pattern. The piece begins at a group.
    Pattern { matrix: RowMajor, pattern: NmPattern, first: u64 },
    /// The weights are replaced by solved ones, from byte `at` of `solved` on.
    Replace { matrix: RowMajor, solved: Arc<Source>, at: u64 },
}

/// Counts over a piece, a matrix or a tensor.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    pub elements: u64,
    pub counts: Counts,
    pub tiles: u64,
    pub refitted: u64,
}

impl Done {
    pub fn add(&mut self, other: Done) {
        self.elements += other.elements;
        self.counts += other.counts;
        self.tiles += other.tiles;
        self.refitted += other.refitted;
    }
}

impl Treatment {
    /// Processes a piece in place.
    ///
    /// # Errors
    /// `Checkpoint` for solved weights that cannot be read.
    pub fn run(&self, data: &mut [u8], solver: &mut TileSolver) -> Result<Done> {
        let mut refitted = 0;
        let (format, counts, tiles) = match self {
            Treatment::Copy => return Ok(Done::default()),
            Treatment::Replace { matrix, solved, at } => {
                let mut after = vec![0; data.len()];
                solved.read_exact_at(&mut after, *at)?;
                let counts;
                (counts, refitted) = count_changes(data, &after, matrix.format.size_bytes());
                data.copy_from_slice(&after);
                (matrix.format, counts, 0)
            }
            Treatment::DecideBands { grid, rule, band } => {
                let (counts, visited) = solver.prune_bands(data, grid, *band, *rule);
                (grid.matrix.format, counts, visited)
            }
            Treatment::ApplyBand { grid, cuts, first, tiles } => {
                (grid.matrix.format, apply_band(data, grid, *first, cuts), *tiles)
            }
            Treatment::ApplyCut { matrix, cut, first } => {
                (matrix.format, apply_cut(data, matrix.format, *cut, *first), 0)
            }
            Treatment::Pattern { matrix, pattern, first } => {
                (matrix.format, prune_rows(data, matrix, *first, *pattern), 0)
            }
        };
        let elements = (data.len() / format.size_bytes()) as u64;
        Ok(Done { elements, counts, tiles, refitted })
    }
}

/// Counts of finite weights that were replaced, and the number of those that are neither zero nor unchanged.
fn count_changes(before: &[u8], after: &[u8], size: usize) -> (Counts, u64) {
    let is_zero = |weight: &[u8]| {
        let (last, rest) = weight.split_last().expect("an element has bytes");
        last & 0x7f == 0 && rest.iter().all(|byte| *byte == 0)
    };
    let (mut counts, mut refitted) = (Counts::default(), 0);
    for (before, after) in before.chunks_exact(size).zip(after.chunks_exact(size)) {
        match (is_zero(before), is_zero(after)) {
            (true, true) => counts.already_zero += 1,
            (false, true) => counts.pruned += 1,
            (_, false) => refitted += u64::from(before != after),
        }
    }
    (counts, refitted)
}

/// Applies a pattern to consecutive weights, the first of which has position `first` in the matrix.
fn prune_rows(data: &mut [u8], matrix: &RowMajor, first: u64, pattern: NmPattern) -> Counts {
    let size = matrix.format.size_bytes();
    let mut counts = Counts::default();
    let mut position = first;
    let mut rest = data;
    while !rest.is_empty() {
        let left_in_row = matrix.cols - position % matrix.cols;
        let length = left_in_row.min((rest.len() / size) as u64);
        let (row, tail) = rest.split_at_mut(length as usize * size);
        counts += apply_pattern(row, matrix.format, pattern.keep(), pattern.group());
        position += length;
        rest = tail;
    }
    counts
}
