//! The memory plan: worker threads and resident memory of a run, decided before it begins.

use physarium_checkpoint::{Checkpoint, MatrixView, Recipe, TargetPlan};
use physarium_model::Config;

use super::calibrated::GRADIENT_TOKENS;
use super::pieces::PieceSizes;
use super::solve::TileSolver;
use super::tiles::{Grid, RowMajor};

/// Bytes for all pieces in flight together.
const PIECES_BUDGET: u64 = 192 << 20;
/// Bytes for the scratch of all workers together.
const SCRATCH_BUDGET: u64 = 128 << 20;
/// Bytes of everything else: the program, its stacks, small buffers.
const BASE: u64 = 32 << 20;
/// Bytes of a tensor's header entry, plan and record, beside its name and shape.
const PER_TENSOR: u64 = 1024;
/// Pieces in flight beside those of workers: read, waiting, hashed, written.
const SPARE_PIECES: u64 = 4;

/// Threads and memory of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Worker threads: as many as requested, or fewer to bound memory.
    pub workers: usize,
    /// Pieces of shards in flight at once.
    pub(crate) pieces: usize,
    /// Resident bytes of the whole run: an upper bound, or with an activation-aware method an estimate.
    pub resident_bytes: u64,
}

/// The activations that an activation-aware method works on.
pub(crate) struct Activations<'a> {
    pub config: &'a Config,
    pub windows: &'a [Vec<u32>],
    /// Whether a pass over gradients comes first.
    pub gradients: bool,
}

impl MemoryPlan {
    /// The plan for pruning `checkpoint` on at most `threads` workers.
    pub(crate) fn new(
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

    /// The plan of the same run with an activation-aware method, which first solves the targets of `plan`.
    pub(crate) fn with(self, activations: &Activations<'_>, plan: &TargetPlan) -> MemoryPlan {
        let Activations { config, windows, gradients } = activations;
        let most = |size: fn(&MatrixView) -> u64| plan.matrices().map(|(_, view)| size(view)).max();
        let largest = most(MatrixView::elements).unwrap_or(0);
        let inputs = most(|view| view.cols).unwrap_or(0);
        let widest = most(|view| view.rows.max(view.cols)).unwrap_or(0);
        let tokens: u64 = windows.iter().map(|window| window.len() as u64).sum();
        let window = windows.iter().map(|window| window.len() as u64).max().unwrap_or(0);
        let (width, depth) = (config.hidden as u64, config.layers() as u64);
        // Two residual streams. A pass over gradients, which ends before them, keeps the streams of fewer tokens
        // at all layers.
        let gradients = match gradients {
            true => (GRADIENT_TOKENS as u64).min(tokens) * depth * width * 4,
            false => 0,
        };
        let streams = (2 * tokens * width * 4).max(gradients);
        // Two Gram matrices, the solver's matrices of the same size, and its rows.
        let statistics = 6 * inputs * inputs * 4 + 8 * largest * 4;
        // Weights of two layers, each in two streams; activations of a window.
        let layers = 2 * 2 * 3 * largest * 2;
        let activations = 8 * window * widest * 4;
        let resident_bytes = self.resident_bytes + streams + statistics + layers + activations;
        MemoryPlan { resident_bytes, ..self }
    }
}
