/*!
The threads that compute, with the arithmetic, the instruction set and the buffers that products use.

In: a number of threads and an arithmetic. Out: [`Compute`], which runs independent tasks on them, so that results do
not depend on the number of threads.
*/

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::arithmetic::{Arithmetic, ArithmeticUnavailable, Precision};
use crate::instructions::{Instructions, NoSuchInstructions};
use crate::matvec::VectorKind;
use crate::tiles::Tile;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::tiles::{Terms, TileKind};

/// What keeps this process from computing as it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComputeError {
    /// The operating system cannot start the threads.
    #[error("cannot start {threads} threads: {reason}\nhint: try --threads 1")]
    Threads {
        /// Number of threads.
        threads: usize,
        /// Why.
        reason: rayon::ThreadPoolBuildError,
    },
    /// The processor does not have the arithmetic.
    #[error(transparent)]
    Arithmetic(#[from] ArithmeticUnavailable),
    /// The environment asks for instructions that the processor does not have.
    #[error(transparent)]
    Instructions(#[from] NoSuchInstructions),
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

/// Threads that compute, and the arithmetic and the instruction set that they use. A clone has the same threads.
#[derive(Clone)]
pub struct Compute {
    pool: Arc<rayon::ThreadPool>,
    arithmetic: Arithmetic,
    /// The precision of activations in products with stored weights.
    activations: Precision,
    vectors: VectorKind,
    packed_weights: PackedWeights,
    /// Asked before each task.
    stop: Option<Stop>,
    /// Buffers of products, reused because new pages cost more time than a small product.
    buffers: Arc<Mutex<Vec<Vec<Tile>>>>,
}

impl Compute {
    /// Starts `threads` threads (at least one) with the fastest arithmetic available.
    ///
    /// # Errors
    /// As [`Compute::with_arithmetic`].
    pub fn new(threads: usize) -> Result<Compute, ComputeError> {
        Compute::with_arithmetic(threads, Arithmetic::of_machine())
    }

    /// Starts `threads` threads (at least one) that compute in this arithmetic.
    ///
    /// # Errors
    /// `Threads`, if the operating system cannot start them; `Arithmetic`, if the processor does not have the
    /// arithmetic; `Instructions`, if the environment asks for an instruction set that the processor does not have.
    pub fn with_arithmetic(
        threads: usize,
        arithmetic: Arithmetic,
    ) -> Result<Compute, ComputeError> {
        let vectors = Instructions::of_process()?.vectors;
        arithmetic.check()?;
        let threads = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(|reason| ComputeError::Threads { threads, reason })?;
        Ok(Compute {
            pool: Arc::new(pool),
            arithmetic,
            activations: Precision::Full,
            vectors,
            packed_weights: PackedWeights::Kept,
            stop: None,
            buffers: Arc::default(),
        })
    }

    /// The same with other vector instructions for float32 products, for comparison.
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

    /// The same threads, for means over many tokens: where that is faster, products with stored weights take activations
    /// with 8 bits, and products of activations with activations take both with 16.
    #[must_use]
    pub fn coarse(&self) -> Compute {
        Compute { activations: Precision::Coarse, ..self.clone() }
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

    /// The arithmetic of products with many rows.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// The precision of activations in products with stored weights.
    pub(crate) fn activations(&self) -> Precision {
        self.activations
    }

    /// Name of the instruction set of products with many rows, for reports.
    pub fn instructions(&self) -> &'static str {
        match self.arithmetic {
            Arithmetic::Bf16x2 => "amx",
            Arithmetic::Bf16 => "avx512bf16",
            Arithmetic::F32 => self.vectors.name(),
        }
    }

    /// What multiplies tiles of activations with this many terms; `None` if such products are float32.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn tiles_of(&self, terms: Terms) -> Option<TileKind> {
        match (self.arithmetic, terms) {
            (Arithmetic::Bf16x2, _) => Some(TileKind::Amx),
            (Arithmetic::Bf16, Terms::One) => Some(TileKind::Avx512Bf16),
            (Arithmetic::Bf16, Terms::Two) | (Arithmetic::F32, _) => None,
        }
    }

    /// The vector instructions of float32 products.
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
    /// If `len` is zero and there is data.
    pub fn each_chunk<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        task: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        if data.is_empty() {
            return;
        }
        assert!(len > 0, "runs of no elements");
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
        write!(
            f,
            "Compute({} threads, {}, {})",
            self.threads(),
            self.arithmetic,
            self.instructions()
        )
    }
}
