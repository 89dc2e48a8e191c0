/*!
The recount: every weight of the targets, and every byte of the rest, read again.

In: a checkpoint, and the original if there is one. Out: one [`Tally`] per matrix of a target, and of every other
tensor whether its bytes are the original's. Tensors are matched by name, so that a checkpoint which
another tool wrote in other shards can be compared too.
*/

use std::collections::HashMap;
use std::fmt;

use physarium_checkpoint::{
    Checkpoint, MatrixView, PlannedTensor, Shard, Source, TargetPlan, Tasks, TensorInfo,
};

use crate::compare::{Tally, tally};
use crate::error::Result;

/// Bytes read at once from each side; a multiple of every element size. Small enough to stay in
/// a core's cache between reading and counting.
const READ_BYTES: u64 = 256 << 10;

/// What was found in one tensor.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Counts of each matrix, of targets.
    pub matrices: Vec<Tally>,
    /// Whether any byte differs from the original; false without one.
    pub differs: bool,
}

impl Found {
    /// Nothing yet.
    fn none(pair: &Pair<'_>) -> Found {
        let matrices = if pair.planned.is_target() { pair.planned.views.len() } else { 0 };
        Found { matrices: vec![Tally::default(); matrices], differs: false }
    }

    fn add(&mut self, other: Found) {
        self.differs |= other.differs;
        self.matrices.iter_mut().zip(other.matrices).for_each(|(total, part)| *total += part);
    }

    /// Counts of the whole tensor.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.matrices.iter().for_each(|matrix| tally += *matrix);
        tally
    }
}

/// What stands in the way of comparing a tensor with the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The original has no such tensor.
    NotInOriginal,
    /// The original has it with another type or shape.
    Different(String),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::NotInOriginal => f.write_str("not in the original"),
            Mismatch::Different(what) => f.write_str(what),
        }
    }
}

/// A tensor of the checkpoint beside its counterpart.
pub(crate) struct Pair<'a> {
    pub planned: &'a PlannedTensor,
    shard: &'a Shard,
    original: Option<(&'a Shard, &'a TensorInfo)>,
    pub mismatch: Option<Mismatch>,
}

/// Finds each tensor's counterpart in the original.
pub(crate) fn pair_up<'a>(
    checkpoint: &'a Checkpoint,
    plan: &'a TargetPlan,
    original: Option<&'a Checkpoint>,
) -> Vec<Pair<'a>> {
    let by_name: HashMap<&str, (&Shard, &TensorInfo)> = original
        .into_iter()
        .flat_map(Checkpoint::tensors)
        .map(|(shard, tensor)| (tensor.name.as_str(), (shard, tensor)))
        .collect();
    let pair = |planned: &'a PlannedTensor| {
        let shard = &checkpoint.shards()[planned.shard];
        let found = by_name.get(planned.input.name.as_str()).copied();
        let (original, mismatch) = match (original, found) {
            (None, _) => (None, None),
            (Some(_), None) => (None, Some(Mismatch::NotInOriginal)),
            (Some(_), Some((_, there))) if !same_kind(&planned.input, there) => {
                let what = format!("{} {:?} in the original", there.dtype, there.shape);
                (None, Some(Mismatch::Different(what)))
            }
            (Some(_), found) => (found, None),
        };
        Pair { planned, shard, original, mismatch }
    };
    plan.tensors.iter().map(pair).collect()
}

fn same_kind(a: &TensorInfo, b: &TensorInfo) -> bool {
    a.dtype == b.dtype && a.shape == b.shape
}

/// Consecutive bytes of one matrix of a target, or of another tensor, that are read at once.
struct Chunk {
    pair: usize,
    /// Index of the matrix among the target's; 0 of another tensor.
    matrix: usize,
    begin: u64,
    length: usize,
}

/// Chunks that a thread takes at once: neighbours, so that each thread reads ahead in one file.
const CHUNKS_AT_ONCE: usize = 16;

/// Reads and counts everything on `threads`; `on_bytes` is told of the bytes read and stops the
/// work by returning an error.
pub(crate) fn recount(
    pairs: &[Pair<'_>],
    threads: usize,
    on_bytes: &mut dyn FnMut(u64) -> Result<(), physarium_checkpoint::Error>,
) -> Result<Vec<Found>> {
    let chunks = chunks(pairs);
    let groups: Vec<&[Chunk]> = chunks.chunks(CHUNKS_AT_ONCE).collect();
    let tasks = Tasks { count: groups.len(), threads };
    let parts = tasks.run(
        || Counter::new(pairs),
        |counter, group| counter.count(groups[group]),
        &mut |bytes| Ok(on_bytes(bytes)?),
    )?;
    let mut found: Vec<Found> = pairs.iter().map(Found::none).collect();
    for counter in parts {
        found.iter_mut().zip(counter.found).for_each(|(total, part)| total.add(part));
    }
    Ok(found)
}

fn chunks(pairs: &[Pair<'_>]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (pair, Pair { planned, original, .. }) in pairs.iter().enumerate() {
        let size = planned.input.size_bytes();
        let element = planned.input.dtype.bits() / 8;
        let bounds = |view: &MatrixView| (view.begin * element, view.elements() * element);
        let spans: Vec<(u64, u64)> = match (planned.is_target(), original) {
            (true, _) => planned.views.iter().map(bounds).collect(),
            // Without an original, only zeros in targets can be counted.
            (false, None) => continue,
            (false, Some(_)) => vec![(0, size)],
        };
        for (matrix, (first, length)) in spans.into_iter().enumerate() {
            for offset in (0..length).step_by(READ_BYTES as usize) {
                let (begin, length) = (first + offset, (length - offset).min(READ_BYTES) as usize);
                chunks.push(Chunk { pair, matrix, begin, length });
            }
        }
    }
    chunks
}

/// What one thread has counted, and what it has open.
struct Counter<'a> {
    pairs: &'a [Pair<'a>],
    found: Vec<Found>,
    now: Open<'a>,
    before: Open<'a>,
}

impl<'a> Counter<'a> {
    fn new(pairs: &'a [Pair<'a>]) -> Counter<'a> {
        let found = pairs.iter().map(Found::none).collect();
        Counter { pairs, found, now: Open::default(), before: Open::default() }
    }

    /// Counts some chunks; returns the bytes that were read.
    fn count(&mut self, chunks: &[Chunk]) -> Result<u64> {
        let mut bytes = 0;
        for chunk in chunks {
            let Pair { planned, shard, original, .. } = &self.pairs[chunk.pair];
            let now = self.now.read(shard, planned.input.begin + chunk.begin, chunk.length)?;
            bytes += chunk.length as u64;
            let before = match original {
                None => None,
                Some((shard, info)) => {
                    bytes += chunk.length as u64;
                    Some(self.before.read(shard, info.begin + chunk.begin, chunk.length)?)
                }
            };
            let found = &mut self.found[chunk.pair];
            found.differs |= before.is_some_and(|before| before != now);
            if planned.is_target() {
                let tally = tally(now, before.unwrap_or(now), planned.input.dtype);
                found.matrices[chunk.matrix] += tally;
            }
        }
        Ok(bytes)
    }
}

/// The shard that a thread has open on one side, and its buffer.
#[derive(Default)]
struct Open<'a> {
    source: Option<(&'a str, Source)>,
    buffer: Vec<u8>,
}

impl<'a> Open<'a> {
    fn read(&mut self, shard: &'a Shard, offset: u64, length: usize) -> Result<&[u8]> {
        if self.source.as_ref().is_none_or(|(name, _)| *name != shard.name) {
            self.source = Some((&shard.name, shard.reopen()?));
        }
        let (_, source) = self.source.as_ref().expect("opened above");
        self.buffer.resize(length, 0);
        source.read_exact_at(&mut self.buffer, offset)?;
        Ok(&self.buffer)
    }
}
