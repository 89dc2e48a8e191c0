//! How much memory a run takes, decided before it begins.

use physarium_checkpoint::{Checkpoint, MatrixView, Recipe, TargetPlan};
use physarium_model::Config;

use super::calibrated::GRADIENT_TOKENS;

use super::pieces::PieceSizes;
use super::solve::TileSolver;
use super::tiles::{Grid, RowMajor};

/// Bytes that the pieces in flight may take together.
const PIECES_BUDGET: u64 = 192 << 20;
/// Bytes that the workers' scratch may take together.
const SCRATCH_BUDGET: u64 = 128 << 20;
/// What a run takes beside pieces, scratch and headers: the program, its stacks, small buffers.
const BASE: u64 = 32 << 20;
/// Bytes that a tensor's header entries, plan and records take, beside its name and shape.
const PER_TENSOR: u64 = 1024;
/// Pieces in flight beside those that workers hold: being read, waiting, hashed, written.
const SPARE_PIECES: u64 = 4;

/// How many threads work and how much memory they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Threads that decide tiles: at most as many as asked for, fewer where memory bounds them.
    pub workers: usize,
    /// Pieces in flight at once.
    pub pieces: usize,
    /// Resident bytes for everything: at most, or with an activation-aware method, about.
    pub resident_bytes: u64,
}

/// What an activation-aware method works on.
pub(crate) struct Activations<'a> {
    pub config: &'a Config,
    pub windows: &'a [Vec<u32>],
    /// Whether gradients are taken before the streams begin.
    pub gradients: bool,
}

impl MemoryPlan {
    /// The plan for pruning `checkpoint` with `threads`.
    pub fn new(
        checkpoint: &Checkpoint,
        plan: &TargetPlan,
        recipe: &Recipe,
        threads: usize,
    ) -> MemoryPlan {
        let sizes = PieceSizes::DEFAULT;
        let (mut largest, mut scratch) = (sizes.wanted, 2 * sizes.wanted);
        let tile_edge = recipe.needs().tile_edge;
        for (tensor, view) in plan.matrices() {
            let matrix = RowMajor::of(view, tensor.input.dtype);
            if let Some(edge) = tile_edge {
                let grid = Grid { matrix, edge };
                let band = grid.band_bytes();
                let window = grid.edge * grid.edge * matrix.element_bytes();
                largest = largest.max(if band <= sizes.most { band } else { sizes.wanted });
                let window = if band <= sizes.most { 0 } else { window.max(sizes.wanted) };
                scratch = scratch.max(TileSolver::scratch_bytes(&grid) + window);
            } else if matrix.row_bytes() <= sizes.most {
                largest = largest.max(matrix.row_bytes());
            }
        }
        let workers = (threads as u64).min(SCRATCH_BUDGET / scratch).max(1);
        let pieces = (workers + SPARE_PIECES).min(PIECES_BUDGET / largest).max(3);
        let headers: u64 = checkpoint.shards().iter().map(|shard| shard.data_begin).sum();
        let records = plan.tensors.len() as u64 * PER_TENSOR + 2 * headers;
        let resident_bytes = BASE + pieces * largest + workers * scratch + records;
        MemoryPlan { workers: workers as usize, pieces: pieces as usize, resident_bytes }
    }

    /// The same run with an activation-aware method before it, which solves the targets of `plan`.
    pub(crate) fn with(self, activations: &Activations<'_>, plan: &TargetPlan) -> MemoryPlan {
        let Activations { config, windows, gradients } = activations;
        let most = |size: fn(&MatrixView) -> u64| plan.matrices().map(|(_, view)| size(view)).max();
        let largest = most(MatrixView::elements).unwrap_or(0);
        let inputs = most(|view| view.cols).unwrap_or(0);
        let widest = most(|view| view.rows.max(view.cols)).unwrap_or(0);
        let tokens: u64 = windows.iter().map(|window| window.len() as u64).sum();
        let window = windows.iter().map(|window| window.len() as u64).max().unwrap_or(0);
        let (width, depth) = (config.hidden as u64, config.layers() as u64);
        // Two residual streams; before them, where gradients decide, those of fewer tokens at all layers.
        let gradients = match gradients {
            true => (GRADIENT_TOKENS as u64).min(tokens) * depth * width * 4,
            false => 0,
        };
        let streams = (2 * tokens * width * 4).max(gradients);
        // Two Gram matrices and what a solver makes of them; the solver's rows.
        let statistics = 6 * inputs * inputs * 4 + 8 * largest * 4;
        // Two layers of weights, each twice; a window's activations.
        let layers = 2 * 2 * 3 * largest * 2;
        let activations = 8 * window * widest * 4;
        let resident_bytes = self.resident_bytes + streams + statistics + layers + activations;
        MemoryPlan { resident_bytes, ..self }
    }
}
