//! What is done to the bytes of one tensor, and the pieces in which it is done.

use std::sync::Arc;

use physarium_checkpoint::{NmPattern, Source};
use physarium_flow::{Counts, Cut, apply_cut, apply_pattern};

use super::solve::{TileRule, TileSolver};
use super::tiles::{Grid, RowMajor, apply_band};
use crate::error::Result;

/// What is done to a piece of a shard. `first` is the row-major position of its first weight.
#[derive(Debug, Clone)]
pub(crate) enum Treatment {
    /// Nothing: the bytes are copied.
    Copy,
    /// Whole bands are decided and pruned where they are; the first is `band`.
    DecideBands { grid: Grid, rule: TileRule, band: u64 },
    /// Part of a band too wide for memory: its tiles were decided before. `tiles` are counted with
    /// this piece (all of the band's with its first).
    ApplyBand { grid: Grid, cuts: Arc<[Cut]>, first: u64, tiles: u64 },
    /// The tensor's cut was found before.
    ApplyCut { matrix: RowMajor, cut: Cut, first: u64 },
    /// N:M within rows; the piece begins at a group.
    Pattern { matrix: RowMajor, pattern: NmPattern, first: u64 },
    /// The weights were solved before: these are replaced by those from byte `at` of `solved` on.
    Replace { matrix: RowMajor, solved: Arc<Source>, at: u64 },
}

/// What was found and done in a piece.
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
    /// Does it.
    ///
    /// # Errors
    /// What reading weights that were solved before gives.
    pub fn run(&self, data: &mut [u8], solver: &mut TileSolver) -> Result<Done> {
        let mut refitted = 0;
        let (format, counts, tiles) = match self {
            Treatment::Copy => return Ok(Done::default()),
            Treatment::Replace { matrix, solved, at } => {
                let mut now = vec![0; data.len()];
                solved.read_exact_at(&mut now, *at)?;
                let counts;
                (counts, refitted) = count_changes(data, &now, matrix.format.size_bytes());
                data.copy_from_slice(&now);
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

/// What became of finite weights, and how many are neither zero nor what they were.
fn count_changes(before: &[u8], now: &[u8], size: usize) -> (Counts, u64) {
    let is_zero = |weight: &[u8]| {
        let (last, rest) = weight.split_last().expect("an element has bytes");
        last & 0x7f == 0 && rest.iter().all(|byte| *byte == 0)
    };
    let (mut counts, mut refitted) = (Counts::default(), 0);
    for (before, now) in before.chunks_exact(size).zip(now.chunks_exact(size)) {
        match (is_zero(before), is_zero(now)) {
            (true, true) => counts.already_zero += 1,
            (false, true) => counts.pruned += 1,
            (_, false) => refitted += u64::from(before != now),
        }
    }
    (counts, refitted)
}

/// Applies a pattern to the rows, or parts of rows, that `data` holds from position `first` on.
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
