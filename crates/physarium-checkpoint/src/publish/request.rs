//! What is to be written where, and what to do with what is in the way.

use std::path::Path;

use crate::open::checkpoint::Checkpoint;
use crate::records::journal::{RunRecord, ShardRecord, TensorRecord};

/// What to do with a finished output that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Refuse.
    Refuse,
    /// Move it aside once the new one is complete, then remove it.
    Replace,
}

/// What to do with an unfinished run that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Continue it if it is the same run; refuse if it is another.
    Continue,
    /// Throw it away.
    Restart,
}

/// What is to be written where.
#[derive(Debug)]
pub struct StagingRequest<'a> {
    /// The output directory.
    pub out: &'a Path,
    /// What is pruned.
    pub checkpoint: &'a Checkpoint,
    /// The journal's first record.
    pub run: RunRecord,
    /// Bytes of the output, shards and other files.
    pub output_bytes: u64,
    /// What to do with a finished output.
    pub overwrite: Overwrite,
    /// What to do with an unfinished run.
    pub resume: Resume,
}

/// A shard that an earlier run wrote and this run has hashed again.
#[derive(Debug, Clone)]
pub struct FinishedShard {
    /// Its journal record.
    pub shard: ShardRecord,
    /// The records of its tensors.
    pub tensors: Vec<TensorRecord>,
}
