/*!
The recount: reads all weights and, if there is an original, all other bytes.

In: tensors with their counterparts in the original. Out: one [`Tally`] per matrix of a target and per other tensor, and
whether each tensor equals the original's: by its bytes, or by its values if the original has another element
type. Of each matrix of a target also the zeros of its tiles.
*/

use physarium_checkpoint::{Dtype, MatrixView, Shard, Source, Tasks};

use super::cast::{element_bytes, tally_cast};
use super::compare::{Tally, tally};
use super::pairs::Pair;
use crate::error::Result;
use crate::step::Step;
use crate::tiles::grid::TileCounts;

/// Bytes of one side that are read together; a multiple of every element size. Small enough to stay in a
/// core's cache between reading and counting.
const READ_BYTES: u64 = 256 << 10;

/// Counts of one tensor.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// One tally per matrix of a target; one of another tensor, of zero if its elements are no weights.
    pub matrices: Vec<Tally>,
    /// Zeros of the tiles of each matrix of a target, row by row.
    pub tiles: Vec<Vec<u32>>,
    /// Whether it differs from the original; false without an original.
    pub differs: bool,
}

impl Found {
    /// Counts of zero.
    fn none(pair: &Pair<'_>) -> Found {
        let matrices = vec![Tally::default(); target_views(pair).len().max(1)];
        Found { matrices, tiles: Vec::new(), differs: false }
    }

    fn add(&mut self, other: Found) {
        self.differs |= other.differs;
        self.matrices.iter_mut().zip(other.matrices).for_each(|(total, part)| *total += part);
    }

    /// Adds consecutive elements, and the original's; `cast` are the element types of both if they differ.
    fn count(
        &mut self,
        matrix: usize,
        [now, before]: [&[u8]; 2],
        cast: Option<[Dtype; 2]>,
        dtype: Dtype,
    ) {
        let tally = match cast {
            Some(dtypes) => tally_cast(now, before, dtypes),
            None if dtype.is_prunable() => tally(now, before, dtype),
            None => Tally::default(),
        };
        self.matrices[matrix] += tally;
        self.differs |= match cast {
            Some(_) => tally.differing() > 0,
            None => now != before,
        };
    }

    /// Counts of the whole tensor.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.matrices.iter().for_each(|matrix| tally += *matrix);
        tally
    }
}

/// Consecutive elements: of one matrix of a target, or of another tensor.
#[derive(Clone, Copy)]
struct Chunk {
    pair: usize,
    /// Index of the matrix in the target; 0 for another tensor.
    matrix: usize,
    /// First byte, counted from the tensor's first.
    begin: u64,
    /// Number of bytes.
    length: usize,
}

/// Most bytes of a chunk, which one thread takes, so that each thread reads one file sequentially; a multiple of
/// [`READ_BYTES`].
const CHUNK_BYTES: u64 = 16 * READ_BYTES;

/// Reads and counts everything on `threads` threads; `edge` is that of the tiles. An error from `on_step` stops the work.
///
/// # Errors
/// `Checkpoint` if a shard cannot be read or has changed, or threads cannot be started.
pub(crate) fn recount(
    pairs: &[Pair<'_>],
    edge: u64,
    threads: usize,
    on_step: &mut dyn FnMut(Step) -> Result<(), physarium_checkpoint::Error>,
) -> Result<Vec<Found>> {
    let chunks = chunks(pairs);
    on_step(Step::Total(chunks.iter().map(|chunk| chunk.bytes_read(pairs)).sum()))?;
    let tasks = Tasks { count: chunks.len(), threads };
    let tiles: Vec<Vec<TileCounts>> = pairs
        .iter()
        .map(|pair| target_views(pair).iter().map(|view| TileCounts::new(view, edge)).collect())
        .collect();
    let parts = tasks.run(
        || Counter::new(pairs, &tiles),
        |counter, chunk| counter.count(chunks[chunk]),
        &mut |bytes| Ok(on_step(Step::Read(bytes))?),
    )?;
    let mut found: Vec<Found> = pairs.iter().map(Found::none).collect();
    for counter in parts {
        found.iter_mut().zip(counter.found).for_each(|(total, part)| total.add(part));
    }
    for (found, tiles) in found.iter_mut().zip(tiles) {
        found.tiles = tiles.into_iter().map(TileCounts::finish).collect();
    }
    Ok(found)
}

impl Chunk {
    /// The parts that are read at once.
    fn parts(self) -> impl Iterator<Item = Chunk> {
        (0..self.length).step_by(READ_BYTES as usize).map(move |offset| Chunk {
            begin: self.begin + offset as u64,
            length: (self.length - offset).min(READ_BYTES as usize),
            ..self
        })
    }

    /// Bytes read for it on all sides.
    fn bytes_read(&self, pairs: &[Pair<'_>]) -> u64 {
        let pair = &pairs[self.pair];
        let before = pair.original.map_or(0, |_| self.before(pair).1);
        (self.length + before) as u64
    }

    /// First byte and number of bytes of the same elements in the original.
    fn before(&self, pair: &Pair<'_>) -> (u64, usize) {
        let Some(sizes) = pair.cast().map(|dtypes| dtypes.map(element_bytes)) else {
            return (self.begin, self.length);
        };
        let [now, before] = sizes;
        (self.begin / now as u64 * before as u64, self.length / now * before)
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
            (false, None) if !planned.input.dtype.is_prunable() => continue,
            (false, _) => vec![(0, size)],
        };
        for (matrix, (first, length)) in spans.into_iter().enumerate() {
            for offset in (0..length).step_by(CHUNK_BYTES as usize) {
                let (begin, length) = (first + offset, (length - offset).min(CHUNK_BYTES) as usize);
                chunks.push(Chunk { pair, matrix, begin, length });
            }
        }
    }
    chunks
}

/// The matrices of a target; none of another tensor.
fn target_views<'a>(pair: &Pair<'a>) -> &'a [MatrixView] {
    if pair.planned.is_target() { &pair.planned.views } else { &[] }
}

/// Counts of one thread, and the files that it has open.
struct Counter<'a> {
    pairs: &'a [Pair<'a>],
    /// Zeros of the tiles of each matrix of each pair, which all threads add to.
    tiles: &'a [Vec<TileCounts>],
    found: Vec<Found>,
    now: Open<'a>,
    before: Open<'a>,
}

impl<'a> Counter<'a> {
    fn new(pairs: &'a [Pair<'a>], tiles: &'a [Vec<TileCounts>]) -> Counter<'a> {
        let found = pairs.iter().map(Found::none).collect();
        Counter { pairs, tiles, found, now: Open::default(), before: Open::default() }
    }

    /// Counts in a chunk; returns the bytes read.
    fn count(&mut self, chunk: Chunk) -> Result<u64> {
        for chunk in chunk.parts() {
            let pair = &self.pairs[chunk.pair];
            let info = &pair.planned.input;
            let now = self.now.read(pair.shard, info.begin + chunk.begin, chunk.length)?;
            let before = match pair.original {
                None => now,
                Some((shard, original)) => {
                    let (begin, length) = chunk.before(pair);
                    self.before.read(shard, original.begin + begin, length)?
                }
            };
            let found = &mut self.found[chunk.pair];
            found.count(chunk.matrix, [now, before], pair.cast(), info.dtype);
            if let Some(view) = target_views(pair).get(chunk.matrix) {
                let first = chunk.begin / (info.dtype.bits() / 8) - view.begin;
                self.tiles[chunk.pair][chunk.matrix].count(first, now, info.dtype);
            }
        }
        Ok(chunk.bytes_read(self.pairs))
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
