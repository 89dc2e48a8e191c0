/*!
The threads that compute, with the instruction set and the buffers that products use.

In: a number of threads. Out: [`Compute`], which runs independent tasks on them, so that results do not depend
on the number of threads.
*/

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::instructions::Instructions;
use crate::matvec::VectorKind;
use crate::tiles::Tile;

/// The operating system cannot start the threads.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {threads} threads: {reason}\nhint: try --threads 1")]
pub struct ThreadsUnavailable {
    threads: usize,
    reason: rayon::ThreadPoolBuildError,
}

/// Whether weights that were repacked for the instruction set stay in memory beside the original ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackedWeights {
    /// They are kept from the first product on, for the many products with the same weights that follow.
    Kept,
    /// They are repacked for each product, so that memory holds the model once.
    Repacked,
}

/// Says whether work is to stop; once true, it stays true.
type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// Threads that compute, and the instruction set that they use.
pub struct Compute {
    pool: rayon::ThreadPool,
    instructions: Instructions,
    vectors: VectorKind,
    packed_weights: PackedWeights,
    /// Asked before each task.
    stop: Option<Stop>,
    /// Buffers of products, reused because new pages cost more time than a small product.
    buffers: Mutex<Vec<Vec<Tile>>>,
}

impl Compute {
    /// Starts `threads` threads (at least one) with the fastest instruction set available.
    ///
    /// # Errors
    /// [`ThreadsUnavailable`], if the operating system cannot start them.
    pub fn new(threads: usize) -> Result<Compute, ThreadsUnavailable> {
        Compute::with(threads, Instructions::detect())
    }

    /// Like [`Compute::new`], but with the `gemm` crate for all products of many rows, for comparison.
    ///
    /// # Errors
    /// [`ThreadsUnavailable`], if the operating system cannot start them.
    pub fn portable(threads: usize) -> Result<Compute, ThreadsUnavailable> {
        Compute::with(threads, Instructions::Portable)
    }

    /// The same with other vector instructions for products of one row, for comparison.
    ///
    /// # Panics
    /// If this processor does not support them.
    #[must_use]
    pub fn with_vectors(self, vectors: VectorKind) -> Compute {
        assert!(
            VectorKind::available().contains(&vectors),
            "this processor does not support {}",
            vectors.name()
        );
        Compute { vectors, ..self }
    }

    /// The same, but without keeping a second, repacked copy of weights: for a model that fills the memory.
    #[must_use]
    pub fn sparing_memory(self) -> Compute {
        Compute { packed_weights: PackedWeights::Repacked, ..self }
    }

    /// The same, but once `stop` is true no further task is begun. `stop` is asked before each task, on any thread, and
    /// must stay true.
    ///
    /// What is computed after that is meaningless: a caller asks [`Compute::is_stopped`] before it uses results.
    #[must_use]
    pub fn stopping_when(self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Compute {
        Compute { stop: Some(Arc::new(stop)), ..self }
    }

    /// Whether tasks may have been left out, so that results are meaningless.
    pub fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop())
    }

    fn with(threads: usize, instructions: Instructions) -> Result<Compute, ThreadsUnavailable> {
        let threads = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(|reason| ThreadsUnavailable { threads, reason })?;
        Ok(Compute {
            pool,
            instructions,
            vectors: VectorKind::detect(),
            packed_weights: PackedWeights::Kept,
            stop: None,
            buffers: Mutex::default(),
        })
    }

    /// The instruction set of products with many rows.
    pub fn instructions(&self) -> Instructions {
        self.instructions
    }

    /// The vector instructions of products with one row.
    pub fn vectors(&self) -> VectorKind {
        self.vectors
    }

    /// Whether repacked weights are kept beside the original ones.
    pub(crate) fn keeps_packed_weights(&self) -> bool {
        self.packed_weights == PackedWeights::Kept
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Calls `work` on one of the threads, so that products inside it start with less delay.
    pub fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Calls `task` for each of `0..tasks`, in any order, on all threads, until [stopped](Compute::stopping_when).
    pub fn each(&self, tasks: usize, task: impl Fn(usize) + Sync + Send) {
        let task = |index| {
            if !self.is_stopped() {
                task(index);
            }
        };
        if tasks == 1 {
            return task(0);
        }
        self.pool.install(|| (0..tasks).into_par_iter().with_max_len(1).for_each(task));
    }

    /// Calls `task` with the index of each run of `len` elements of `data`, and the run; the last may be
    /// shorter. Runs are processed in any order, on all threads, until [stopped](Compute::stopping_when).
    ///
    /// # Panics
    /// If `len` is zero.
    pub fn each_chunk<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        task: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        let task = |index, chunk: &mut [T]| {
            if !self.is_stopped() {
                task(index, chunk);
            }
        };
        if data.len() <= len {
            return task(0, data);
        }
        self.pool.install(|| {
            let chunks = data.par_chunks_mut(len).with_max_len(1);
            chunks.enumerate().for_each(|(index, chunk)| task(index, chunk));
        });
    }

    /// Lends `work` a buffer of `len` tiles with arbitrary contents.
    pub(crate) fn with_tiles<R>(&self, len: usize, work: impl FnOnce(&mut [Tile]) -> R) -> R {
        let buffers = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = buffers().pop().unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, Tile::ZERO);
        }
        let result = work(&mut buffer[..len]);
        buffers().push(buffer);
        result
    }
}

impl std::fmt::Debug for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compute({} threads, {})", self.threads(), self.instructions.name())
    }
}
