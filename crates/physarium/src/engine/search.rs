/*!
Cuts over whole tensors, or over all targets of the model: found before anything is written, in
passes over the weights.

Two passes find the magnitude (`MagnitudeSearch`), a third, where the line falls among equal
magnitudes, finds the position of the last one that dies. Ties die in the order in which the targets
are given, then in row-major order.
*/

use std::sync::atomic::{AtomicUsize, Ordering};

use physarium_checkpoint::{Shard, Source, TensorInfo, start_thread};
use physarium_flow::{Census, Cut, FoundCut, MagnitudeSearch, count_ties, locate_tie};

use super::tiles::Matrix;
use crate::cancel::Cancel;
use crate::error::Result;

/// Bytes read at once; a multiple of every element size.
const READ_BYTES: u64 = 4 << 20;

/// A target whose weights take part in a search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SearchTarget<'a> {
    pub shard: &'a Shard,
    pub info: &'a TensorInfo,
    pub matrix: Matrix,
}

/// A run of a target's weights.
#[derive(Debug, Clone, Copy)]
struct Run {
    target: usize,
    /// Byte offset in the target.
    begin: u64,
    length: usize,
}

/// The cut of each target such that `zeros` of all their weights are zero.
pub(crate) fn find_cuts(
    targets: &[SearchTarget<'_>],
    zeros: u64,
    threads: usize,
    cancel: &Cancel,
) -> Result<Vec<Cut>> {
    let runs = runs(targets);
    let scan = Scan { targets, runs: &runs, threads, cancel };
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

fn runs(targets: &[SearchTarget<'_>]) -> Vec<Run> {
    let mut runs = Vec::new();
    for (target, SearchTarget { info, .. }) in targets.iter().enumerate() {
        let mut begin = 0;
        while begin < info.size_bytes() {
            let length = (info.size_bytes() - begin).min(READ_BYTES) as usize;
            runs.push(Run { target, begin, length });
            begin += length as u64;
        }
    }
    runs
}

struct Scan<'a> {
    targets: &'a [SearchTarget<'a>],
    runs: &'a [Run],
    threads: usize,
    cancel: &'a Cancel,
}

impl Scan<'_> {
    /// One pass of the search.
    fn count(&self, pass: &MagnitudeSearch) -> Result<MagnitudeSearch> {
        let mut total = pass.fork();
        let new = || (pass.fork(), Census::default());
        let parts = self.over_runs(new, |(search, census), index, bytes| {
            let format = self.targets[self.runs[index].target].matrix.format;
            search.count(bytes, format, census);
        })?;
        parts.iter().for_each(|(part, _)| total.merge(part));
        Ok(total)
    }

    /// For each target, the position after the last tie that dies.
    fn end_ties(&self, found: FoundCut, ends: &mut [u64]) -> Result<()> {
        let ties = self.ties_of_runs(found)?;
        let mut left = found.ties;
        for (run, ties) in self.runs.iter().zip(ties) {
            let matrix = self.targets[run.target].matrix;
            let first = run.begin / matrix.element_bytes();
            if left == 0 || ties == 0 {
                continue;
            }
            if ties <= left {
                ends[run.target] = first + run.length as u64 / matrix.element_bytes();
                left -= ties;
                continue;
            }
            let key = found.tie_key(matrix.format).expect("a run with ties holds their key");
            let mut bytes = vec![0; run.length];
            self.read(run, &mut bytes)?;
            let end = locate_tie(&bytes, matrix.format, key, &mut left)
                .expect("the run has more ties than are left");
            ends[run.target] = first + end;
        }
        assert_eq!(left, 0, "ties that no run holds");
        Ok(())
    }

    /// How many ties each run holds.
    fn ties_of_runs(&self, found: FoundCut) -> Result<Vec<u64>> {
        let parts = self.over_runs(Vec::new, |counted: &mut Vec<(usize, u64)>, index, bytes| {
            let format = self.targets[self.runs[index].target].matrix.format;
            let ties = found.tie_key(format).map_or(0, |key| count_ties(bytes, format, key));
            counted.push((index, ties));
        })?;
        let mut ties = vec![0; self.runs.len()];
        for (index, count) in parts.into_iter().flatten() {
            ties[index] = count;
        }
        Ok(ties)
    }

    fn read(&self, run: &Run, into: &mut [u8]) -> Result<()> {
        let SearchTarget { shard, info, .. } = self.targets[run.target];
        shard.reopen()?.read_exact_at(into, info.begin + run.begin)?;
        Ok(())
    }

    /// Reads every run once, in some order, on all threads; each thread has a state of its own. `visit` is
    /// given the run's index and its bytes.
    fn over_runs<S: Send>(
        &self,
        new: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, &[u8]) + Sync,
    ) -> Result<Vec<S>> {
        let next = AtomicUsize::new(0);
        let worker = || -> Result<S> {
            let mut state = new();
            let mut buffer = vec![0; READ_BYTES as usize];
            let mut open: Option<(&str, Source)> = None;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(run) = self.runs.get(index) else { return Ok(state) };
                self.cancel.check()?;
                let SearchTarget { shard, info, .. } = self.targets[run.target];
                if open.as_ref().is_none_or(|(name, _)| *name != shard.name) {
                    open = Some((&shard.name, shard.reopen()?));
                }
                let (_, source) = open.as_ref().expect("opened above");
                let bytes = &mut buffer[..run.length];
                source.read_exact_at(bytes, info.begin + run.begin)?;
                visit(&mut state, index, bytes);
            }
        };
        std::thread::scope(|scope| {
            let workers = (0..self.threads).map(|_| start_thread(scope, worker));
            let workers = workers.collect::<Result<Vec<_>, _>>()?;
            let join = |w: std::thread::ScopedJoinHandle<'_, Result<S>>| {
                w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        })
    }
}
