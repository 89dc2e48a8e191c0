//! The memory plan: worker threads and resident memory of a run, decided before it begins. What an activation-aware
//! method needs is in `calibrated/footprint.rs`.

use physarium_checkpoint::{Checkpoint, Recipe, TargetPlan};

use super::calibrated::Footprint;
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

    /// The plan of the same run with an activation-aware method, which first solves the targets.
    pub(crate) fn with(self, footprint: &Footprint<'_>) -> MemoryPlan {
        MemoryPlan { resident_bytes: self.resident_bytes.max(footprint.bytes()), ..self }
    }
}
