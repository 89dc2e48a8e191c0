//! What the user asks of a run beside its recipe, and what the run did.

use std::path::Path;

use physarium_checkpoint::journal::Totals;
use physarium_checkpoint::{LinkPolicy, Overwrite, Resume};

use crate::memory_limit::MemoryLimit;

/// What to do with projections that cannot be pruned, and with inputs that are always zero on the calibration
/// text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// Copy such projections, count such inputs, and report both.
    #[default]
    Skip,
    /// Refuse the checkpoint.
    Refuse,
}

/// Options of a run that never change the weights it writes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Worker threads; two more threads read, write and hash.
    pub threads: usize,
    /// What to do with projections that cannot be pruned.
    pub strictness: Strictness,
    /// What to do with links out of the checkpoint.
    pub links: LinkPolicy,
    /// Most resident memory.
    pub memory: MemoryLimit,
}

impl Default for Options {
    /// One worker thread per processor; projections that cannot be pruned are copied, links left out; free memory is
    /// used.
    fn default() -> Self {
        Options {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            strictness: Strictness::Skip,
            links: LinkPolicy::LeaveOut,
            memory: MemoryLimit::Free,
        }
    }
}

/// Where a run writes, and what it does with what exists there.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The output directory.
    pub dir: &'a Path,
    /// What to do with a finished output.
    pub overwrite: Overwrite,
    /// What to do with an interrupted run.
    pub resume: Resume,
}

impl<'a> Output<'a> {
    /// A new directory. A finished output there is refused, an interrupted run is resumed.
    pub fn new(dir: &'a Path) -> Output<'a> {
        Output { dir, overwrite: Overwrite::Refuse, resume: Resume::Continue }
    }
}

/// What a run did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// Sums over all tensors, as the journal has them.
    pub totals: Totals,
    /// Mean over the targets of the relative square error of their outputs; `None` unless the method is
    /// activation-aware.
    pub output_error: Option<f64>,
    /// Shards that an earlier, interrupted run had finished.
    pub resumed_shards: usize,
    /// All shards.
    pub shards: usize,
    /// Bytes of the output's shards.
    pub output_bytes: u64,
}
