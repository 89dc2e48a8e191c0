//! What to write where, and what to do with an earlier output or run there.

use std::path::Path;

use super::inputs::Inputs;
use crate::open::checkpoint::Checkpoint;
use crate::records::journal::{RunRecord, ShardRecord, TensorRecord};

/// What to do with a finished output at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Keep it, and fail.
    Refuse,
    /// Replace it once the new one is complete.
    Replace,
}

/// What to do with an unfinished run of the same output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Resume it if the recipe, the program's version and all inputs are the same, by digest; fail otherwise.
    Continue,
    /// Discard it.
    Restart,
}

/// What to write where.
#[derive(Debug)]
pub struct StagingRequest<'a> {
    /// The output directory.
    pub out: &'a Path,
    /// The input.
    pub checkpoint: &'a Checkpoint,
    /// The journal's first record.
    pub run: RunRecord,
    /// What the output depends on besides.
    pub inputs: Inputs<'a>,
    /// Bytes of the output: shards and other files.
    pub output_bytes: u64,
    /// Bytes of solved weights in the unfinished output, see [`SOLVED_DIR`](crate::SOLVED_DIR).
    pub solved_bytes: u64,
    /// What to do with a finished output.
    pub overwrite: Overwrite,
    /// What to do with an unfinished run.
    pub resume: Resume,
}

/// A shard that an interrupted run wrote and this run has verified by its digests.
#[derive(Debug, Clone)]
pub struct FinishedShard {
    /// Its journal record.
    pub shard: ShardRecord,
    /// The records of its tensors.
    pub tensors: Vec<TensorRecord>,
}
