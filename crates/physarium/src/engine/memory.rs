//! The memory plan: worker threads, resident memory and a scratch file of a run, decided before it begins. What an
//! activation-aware method needs is in `calibrated/footprint.rs`.

use physarium_checkpoint::{Checkpoint, Recipe, TargetPlan};
use physarium_model::PrunedInputs;

use super::calibrated::Footprint;
use super::pieces::PieceSizes;
use super::solve::TileSolver;
use super::tiles::{Grid, RowMajor};
use crate::error::{Error, Result};
use crate::memory_limit::{Allowed, Streams};

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

/// What an error adds to the least memory, and a multiple of which it names: a process does not begin with exactly as much
/// each time.
const LEAST_SLACK: u64 = 96_000_000;
const LEAST_STEP: u64 = 10_000_000;

/// Threads and memory of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Worker threads: as many as requested, or fewer to bound memory.
    pub workers: usize,
    /// Threads of the solver of an activation-aware method.
    pub(crate) threads: usize,
    /// Pieces of shards in flight at once.
    pub(crate) pieces: usize,
    /// Resident bytes of the whole run: an upper bound, or with an activation-aware method an estimate.
    pub resident_bytes: u64,
    /// The residual streams of an activation-aware run, once it is calibrated.
    pub streams: Option<Streams>,
    /// Whether an activation-aware run keeps inputs that it needs twice.
    pub pruned_inputs: PrunedInputs,
}

impl MemoryPlan {
    /// The plan for pruning `checkpoint` on at most `threads` workers: as many as fit the limit, or one.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        plan: &TargetPlan,
        recipe: &Recipe,
        (threads, allowed): (usize, Allowed),
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
        let headers: u64 = checkpoint.shards().iter().map(|shard| shard.data_begin).sum();
        let records = plan.tensors.len() as u64 * PER_TENSOR + 2 * headers;
        let with = |workers: u64| {
            let pieces = (workers + SPARE_PIECES).min(PIECES_BUDGET / largest).max(3);
            let resident_bytes = BASE + pieces * largest + workers * scratch + records;
            let (workers, pieces) = (workers as usize, pieces as usize);
            MemoryPlan {
                workers,
                threads,
                pieces,
                resident_bytes,
                streams: None,
                pruned_inputs: PrunedInputs::ComputedTwice,
            }
        };
        let most = (threads as u64).min(SCRATCH_BUDGET / scratch).max(1);
        first_within(allowed, (1..=most).rev().map(with))
    }

    /// The plan of the same run with an activation-aware method, which first solves the targets: with everything that
    /// it can keep in memory, if that fits the limit; else with inputs that are computed twice; else also with the
    /// residual streams in a file, on as many threads as fit, or one.
    pub(crate) fn with(self, footprint: &Footprint<'_>, allowed: Allowed) -> MemoryPlan {
        let with = |threads, streams, pruned_inputs| MemoryPlan {
            resident_bytes: self
                .resident_bytes
                .max(Footprint { threads, ..*footprint }.bytes(streams, pruned_inputs)),
            workers: self.workers.min(threads),
            threads,
            streams: Some(streams),
            pruned_inputs,
            ..self
        };
        let bytes = footprint.streams();
        let in_memory = [PrunedInputs::Kept, PrunedInputs::ComputedTwice]
            .map(|inputs| with(footprint.threads, Streams::Memory(bytes), inputs));
        let in_file = |threads| with(threads, Streams::File(bytes), PrunedInputs::ComputedTwice);
        let in_file = (1..=footprint.threads).rev().map(in_file);
        first_within(allowed, in_memory.into_iter().chain(in_file))
    }

    /// Fails if the run needs more than is allowed.
    ///
    /// # Errors
    /// `NoMemory`.
    pub(crate) fn check(&self, allowed: Allowed) -> Result<()> {
        match allowed.bytes {
            Some(bytes) if self.resident_bytes > bytes => Err(Error::NoMemory {
                least: (self.resident_bytes + LEAST_SLACK).next_multiple_of(LEAST_STEP),
                limit_bytes: bytes,
                limit: allowed.limit,
            }),
            _ => Ok(()),
        }
    }

    /// Bytes of a scratch file that the run writes.
    pub(crate) fn scratch_bytes(&self) -> u64 {
        match self.streams {
            Some(Streams::File(bytes)) => bytes,
            Some(Streams::Memory(_)) | None => 0,
        }
    }
}

/// The first of some plans that fits a limit, or the last.
fn first_within(allowed: Allowed, plans: impl Iterator<Item = MemoryPlan>) -> MemoryPlan {
    let mut last = None;
    for plan in plans {
        if allowed.fits(plan.resident_bytes) {
            return plan;
        }
        last = Some(plan);
    }
    last.expect("at least one plan")
}
