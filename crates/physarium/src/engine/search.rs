/*!
Search for cuts over a whole matrix, or over all targets of the model, in passes over the weights.

Two passes find the magnitude of the cut (`MagnitudeSearch`). If only some of the weights of that magnitude are pruned,
a third pass finds the position of the last one. Ties are pruned in the order of the targets, then in row-major
order.
*/

use physarium_checkpoint::{Shard, Source, Tasks};
use physarium_flow::{Census, Cut, FoundCut, MagnitudeSearch, count_ties, locate_tie};

use super::tiles::RowMajor;
use crate::cancel::Cancel;
use crate::error::Result;

/// Bytes to read at once; a multiple of every element size.
const READ_BYTES: u64 = 4 << 20;

/// A matrix that takes part in a search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SearchTarget<'a> {
    pub shard: &'a Shard,
    /// Its first byte in the shard.
    pub begin: u64,
    pub matrix: RowMajor,
}

/// Consecutive weights of a target.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    target: usize,
    /// Its first byte in the target.
    begin: u64,
    length: usize,
}

/// The cuts of `targets` after which `zeros` of all their weights are zero.
///
/// # Errors
/// `Checkpoint` for weights that cannot be read, and for cancellation.
pub(crate) fn find_cuts(
    targets: &[SearchTarget<'_>],
    zeros: u64,
    threads: usize,
    cancel: &Cancel,
) -> Result<Vec<Cut>> {
    let chunks = chunks(targets);
    let scan = Scan { targets, chunks: &chunks, threads, cancel };
    let Some((pass, below)) = scan.count(&MagnitudeSearch::coarse())?.refine(zeros) else {
        let all = |t: &SearchTarget<'_>| Cut { below: t.matrix.format.infinity_key(), ties_end: 0 };
        return Ok(targets.iter().map(all).collect());
    };
    let found = scan.count(&pass)?.found(zeros, below);
    let mut ends = vec![0; targets.len()];
    if found.ties > 0 {
        scan.end_ties(found, &mut ends)?;
    }
    let cut =
        |(target, end): (&SearchTarget<'_>, &u64)| found.for_format(target.matrix.format, *end);
    Ok(targets.iter().zip(&ends).map(cut).collect())
}

fn chunks(targets: &[SearchTarget<'_>]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (target, SearchTarget { matrix, .. }) in targets.iter().enumerate() {
        let size = matrix.size_bytes();
        for begin in (0..size).step_by(READ_BYTES as usize) {
            let length = (size - begin).min(READ_BYTES) as usize;
            chunks.push(Chunk { target, begin, length });
        }
    }
    chunks
}

struct Scan<'a> {
    targets: &'a [SearchTarget<'a>],
    chunks: &'a [Chunk],
    threads: usize,
    cancel: &'a Cancel,
}

impl Scan<'_> {
    /// One pass: the magnitudes of all weights, counted.
    fn count(&self, pass: &MagnitudeSearch) -> Result<MagnitudeSearch> {
        let mut total = pass.fork();
        let new = || (pass.fork(), Census::default());
        let parts = self.over_chunks(new, |(search, census), index, bytes| {
            let format = self.targets[self.chunks[index].target].matrix.format;
            search.count(bytes, format, census);
        })?;
        parts.iter().for_each(|(part, _)| total.merge(part));
        Ok(total)
    }

    /// Sets `ends` of each target to the position after its last tie that is pruned.
    fn end_ties(&self, found: FoundCut, ends: &mut [u64]) -> Result<()> {
        let ties = self.ties_of_chunks(found)?;
        let mut left = found.ties;
        for (chunk, ties) in self.chunks.iter().zip(ties) {
            let matrix = self.targets[chunk.target].matrix;
            let first = chunk.begin / matrix.element_bytes();
            if left == 0 || ties == 0 {
                continue;
            }
            if ties <= left {
                ends[chunk.target] = first + chunk.length as u64 / matrix.element_bytes();
                left -= ties;
                continue;
            }
            let key = found.tie_key(matrix.format).expect("a chunk with ties holds their key");
            let mut bytes = vec![0; chunk.length];
            self.read(chunk, &mut bytes)?;
            let end = locate_tie(&bytes, matrix.format, key, &mut left)
                .expect("the chunk has more ties than are left");
            ends[chunk.target] = first + end;
        }
        assert_eq!(left, 0, "ties that no chunk holds");
        Ok(())
    }

    /// Number of ties in each chunk.
    fn ties_of_chunks(&self, found: FoundCut) -> Result<Vec<u64>> {
        let parts =
            self.over_chunks(Vec::new, |counted: &mut Vec<(usize, u64)>, index, bytes| {
                let format = self.targets[self.chunks[index].target].matrix.format;
                let ties = found.tie_key(format).map_or(0, |key| count_ties(bytes, format, key));
                counted.push((index, ties));
            })?;
        let mut ties = vec![0; self.chunks.len()];
        for (index, count) in parts.into_iter().flatten() {
            ties[index] = count;
        }
        Ok(ties)
    }

    fn read(&self, chunk: &Chunk, into: &mut [u8]) -> Result<()> {
        let SearchTarget { shard, begin, .. } = self.targets[chunk.target];
        shard.reopen()?.read_exact_at(into, begin + chunk.begin)?;
        Ok(())
    }

    /// Reads every chunk once, in any order, on all threads, and returns the state of each thread. `visit`
    /// receives the thread's state, the chunk's index and its bytes.
    fn over_chunks<S: Send>(
        &self,
        new: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, &[u8]) + Sync,
    ) -> Result<Vec<S>> {
        let tasks = Tasks { count: self.chunks.len(), threads: self.threads };
        let reader = || Reader { open: None, buffer: vec![0; READ_BYTES as usize], state: new() };
        let readers = tasks.run(
            reader,
            |reader, index| -> Result<()> {
                self.cancel.check()?;
                let chunk = &self.chunks[index];
                let SearchTarget { shard, begin, .. } = self.targets[chunk.target];
                if reader.open.as_ref().is_none_or(|(name, _)| *name != shard.name) {
                    reader.open = Some((&shard.name, shard.reopen()?));
                }
                let (_, source) = reader.open.as_ref().expect("opened above");
                let bytes = &mut reader.buffer[..chunk.length];
                source.read_exact_at(bytes, begin + chunk.begin)?;
                visit(&mut reader.state, index, bytes);
                Ok(())
            },
            &mut |()| Ok(()),
        )?;
        Ok(readers.into_iter().map(|reader| reader.state).collect())
    }
}

/// A thread's open shard, its buffer and its state.
struct Reader<'a, S> {
    open: Option<(&'a str, Source)>,
    buffer: Vec<u8>,
    state: S,
}
