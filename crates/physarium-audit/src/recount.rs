/*!
The recount: every weight of the targets, and every byte of the rest, read again.

In: a checkpoint, and the original if there is one. Out: one [`Tally`] per target, and of every other
tensor whether its bytes are the original's. Tensors are matched by name, so that a checkpoint which
another tool wrote in other shards can be compared too.
*/

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use physarium_checkpoint::{
    Checkpoint, PlannedTensor, Shard, Source, TargetPlan, TensorInfo, start_thread,
};

use crate::compare::{Tally, tally};
use crate::error::Result;

/// Bytes read at once from each side; a multiple of every element size. Small enough to stay in
/// a core's cache between reading and counting.
const READ_BYTES: u64 = 256 << 10;

/// What was found in one tensor.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    /// Counts, of targets.
    pub tally: Tally,
    /// Whether any byte differs from the original; false without one.
    pub differs: bool,
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
        let found = by_name.get(planned.info.name.as_str()).copied();
        let (original, mismatch) = match (original, found) {
            (None, _) => (None, None),
            (Some(_), None) => (None, Some(Mismatch::NotInOriginal)),
            (Some(_), Some((_, there))) if !same_kind(&planned.info, there) => {
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

/// A run of one tensor's bytes.
struct Run {
    pair: usize,
    begin: u64,
    length: usize,
}

/// Reads and counts everything on `threads`; `on_bytes` is told of the bytes read and stops the
/// work by returning an error.
pub(crate) fn recount(
    pairs: &[Pair<'_>],
    threads: usize,
    on_bytes: &mut dyn FnMut(u64) -> Result<(), physarium_checkpoint::Error>,
) -> Result<Vec<Found>> {
    let runs = runs(pairs);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                let reads = sender.clone();
                let counter = Counter { pairs, runs: &runs, next: &next, stop: &stop };
                start_thread(scope, move || counter.run(reads))
            })
            .collect::<Result<_, _>>()
            .inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        drop(sender);
        let told = receiver.into_iter().try_for_each(on_bytes);
        stop.store(told.is_err(), Ordering::Relaxed);
        let mut found = vec![Found::default(); pairs.len()];
        for worker in workers {
            let part = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            for (total, part) in found.iter_mut().zip(part) {
                total.tally += part.tally;
                total.differs |= part.differs;
            }
        }
        told?;
        Ok(found)
    })
}

fn runs(pairs: &[Pair<'_>]) -> Vec<Run> {
    let mut runs = Vec::new();
    for (pair, Pair { planned, original, .. }) in pairs.iter().enumerate() {
        // Without an original, only zeros in targets can be counted.
        if planned.target().is_none() && original.is_none() {
            continue;
        }
        let size = planned.info.size_bytes();
        let mut begin = 0;
        while begin < size {
            let length = (size - begin).min(READ_BYTES) as usize;
            runs.push(Run { pair, begin, length });
            begin += length as u64;
        }
    }
    runs
}

struct Counter<'a> {
    pairs: &'a [Pair<'a>],
    runs: &'a [Run],
    next: &'a AtomicUsize,
    stop: &'a AtomicBool,
}

/// Runs that a worker takes at once: neighbours, so that each thread reads ahead in one file.
const RUNS_AT_ONCE: usize = 16;

impl<'a> Counter<'a> {
    fn run(&self, reads: mpsc::Sender<u64>) -> Result<Vec<Found>> {
        let mut found = vec![Found::default(); self.pairs.len()];
        let (mut now, mut before) = (Open::default(), Open::default());
        loop {
            let first = self.next.fetch_add(RUNS_AT_ONCE, Ordering::Relaxed);
            if first >= self.runs.len() || self.stop.load(Ordering::Relaxed) {
                return Ok(found);
            }
            let mut bytes = 0;
            for run in &self.runs[first..self.runs.len().min(first + RUNS_AT_ONCE)] {
                let Pair { planned, shard, original, .. } = &self.pairs[run.pair];
                let now = now.read(shard, planned.info.begin + run.begin, run.length)?;
                bytes += run.length as u64;
                let before = match original {
                    None => None,
                    Some((shard, info)) => {
                        bytes += run.length as u64;
                        Some(before.read(shard, info.begin + run.begin, run.length)?)
                    }
                };
                let found = &mut found[run.pair];
                found.differs |= before.is_some_and(|before| before != now);
                if planned.target().is_some() {
                    found.tally += tally(now, before.unwrap_or(now), planned.info.dtype);
                }
            }
            // Nobody listens any more once the work was told to stop.
            let _ = reads.send(bytes);
        }
    }
}

/// The shard that a worker has open on one side, and its buffer.
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
