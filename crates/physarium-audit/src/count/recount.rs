/*!
The recount: reads all weights of the targets and, if there is an original, all bytes of the other tensors.

In: tensors with their counterparts in the original. Out: one [`Tally`] per matrix of a target, and for each
tensor whether its bytes equal the original's.
*/

use physarium_checkpoint::{MatrixView, Shard, Source, Tasks};

use super::compare::{Tally, tally};
use super::pairs::Pair;
use crate::error::Result;
use crate::step::Step;

/// Bytes of one side that are read together; a multiple of every element size. Small enough to stay in a
/// core's cache between reading and counting.
const READ_BYTES: u64 = 256 << 10;

/// Counts of one tensor.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// One tally per matrix of a target; empty for other tensors.
    pub matrices: Vec<Tally>,
    /// Whether any byte differs from the original; false without an original.
    pub differs: bool,
}

impl Found {
    /// Counts of zero.
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

/// Consecutive bytes that are read together: of one matrix of a target, or of another tensor.
struct Chunk {
    pair: usize,
    /// Index of the matrix in the target; 0 for another tensor.
    matrix: usize,
    /// First byte, counted from the tensor's first.
    begin: u64,
    length: usize,
}

/// Consecutive chunks that a thread takes together, so that each thread reads one file sequentially.
const CHUNKS_AT_ONCE: usize = 16;

/// Reads and counts everything on `threads` threads. An error from `on_step` stops the work.
///
/// # Errors
/// `Checkpoint` if a shard cannot be read or has changed, or threads cannot be started.
pub(crate) fn recount(
    pairs: &[Pair<'_>],
    threads: usize,
    on_step: &mut dyn FnMut(Step) -> Result<(), physarium_checkpoint::Error>,
) -> Result<Vec<Found>> {
    let chunks = chunks(pairs);
    on_step(Step::Total(chunks.iter().map(|chunk| chunk.bytes_read(pairs)).sum()))?;
    let groups: Vec<&[Chunk]> = chunks.chunks(CHUNKS_AT_ONCE).collect();
    let tasks = Tasks { count: groups.len(), threads };
    let parts = tasks.run(
        || Counter::new(pairs),
        |counter, group| counter.count(groups[group]),
        &mut |bytes| Ok(on_step(Step::Read(bytes))?),
    )?;
    let mut found: Vec<Found> = pairs.iter().map(Found::none).collect();
    for counter in parts {
        found.iter_mut().zip(counter.found).for_each(|(total, part)| total.add(part));
    }
    Ok(found)
}

impl Chunk {
    /// Bytes read for it on all sides.
    fn bytes_read(&self, pairs: &[Pair<'_>]) -> u64 {
        let sides = if pairs[self.pair].original.is_some() { 2 } else { 1 };
        sides * self.length as u64
    }
}

fn chunks(pairs: &[Pair<'_>]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (pair, Pair { planned, original, .. }) in pairs.iter().enumerate() {
        let size = planned.input.size_bytes();
        let element = planned.input.dtype.bits() / 8;
        let bounds = |view: &MatrixView| (view.begin * element, view.elements() * element);
        let spans: Vec<(u64, u64)> = match (planned.is_target(), original) {
            (true, _) => planned.views.iter().map(bounds).collect(),
            // Nothing is counted in other tensors, so without an original they are not read.
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

/// Counts of one thread, and the files that it has open.
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

    /// Counts in some chunks; returns the bytes read.
    fn count(&mut self, chunks: &[Chunk]) -> Result<u64> {
        for chunk in chunks {
            let Pair { planned, shard, original, .. } = &self.pairs[chunk.pair];
            let now = self.now.read(shard, planned.input.begin + chunk.begin, chunk.length)?;
            let before = match original {
                None => None,
                Some((shard, info)) => {
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
        Ok(chunks.iter().map(|chunk| chunk.bytes_read(self.pairs)).sum())
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
