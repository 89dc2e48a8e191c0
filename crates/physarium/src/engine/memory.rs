//! How much memory a run takes, decided before it begins.

use physarium_checkpoint::{Checkpoint, Recipe, TargetPlan};

use super::pieces::PieceSizes;
use super::solve::TileSolver;
use super::tiles::{Grid, Matrix};

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
    /// Resident bytes at most, for everything.
    pub resident_bytes: u64,
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
        for (tensor, _) in plan.targets() {
            let matrix = Matrix::of(tensor).expect("a target is a matrix");
            if let Some(edge) = recipe.tile_edge() {
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
}
