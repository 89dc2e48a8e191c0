//! Threads, and the instructions that products run on.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::matvec::VectorKind;
use crate::terms::Tile;

/// The operating system has no threads to give.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {threads} threads: {reason}\nhint: --threads 1 takes the fewest")]
pub struct ThreadsUnavailable {
    threads: usize,
    reason: rayon::ThreadPoolBuildError,
}

/// Ways to compute the product of BF16 weights and float32 activations.
///
/// Both add up in float32. They differ in the order of sums, and by what activations are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Instructions {
    /// The `gemm` crate on float32, with the vectors that the processor has.
    Portable,
    /// Intel AMX tiles: activations as the sum of two BF16 terms, which has 16 bits.
    Amx,
}

impl Instructions {
    /// Its name for a report.
    pub fn name(self) -> &'static str {
        match self {
            Instructions::Portable => "vector",
            Instructions::Amx => "amx",
        }
    }

    /// What is computed with, for a report.
    pub fn arithmetic(self) -> &'static str {
        match self {
            Instructions::Portable => "float32",
            Instructions::Amx => "float32, activations of products with BF16 weights to 16 bits",
        }
    }

    /// The best that this processor and its operating system allow.
    fn detect() -> Instructions {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if crate::amx::is_available() {
            return Instructions::Amx;
        }
        Instructions::Portable
    }
}

/// Whether the form of weights that instructions want is kept beside the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    /// From the first product on: many products with the same weights follow.
    Kept,
    /// Made again for each product: memory for one model only.
    MadeAgain,
}

/// Threads that compute, and what they compute with.
pub struct Compute {
    pool: rayon::ThreadPool,
    instructions: Instructions,
    vectors: VectorKind,
    copies: Copies,
    /// Buffers of products, kept because fresh pages cost more than small products.
    buffers: Mutex<Vec<Vec<Tile>>>,
}

impl Compute {
    /// Starts `threads` threads (at least one) that use the best instructions at hand.
    ///
    /// # Errors
    /// If the operating system has no threads to give.
    pub fn new(threads: usize) -> Result<Compute, ThreadsUnavailable> {
        Compute::with(threads, Instructions::detect())
    }

    /// The same with nothing but what the `gemm` crate does for products of many rows, to compare with.
    ///
    /// # Errors
    /// If the operating system has no threads to give.
    pub fn portable(threads: usize) -> Result<Compute, ThreadsUnavailable> {
        Compute::with(threads, Instructions::Portable)
    }

    /// The same on other vectors for products of one row, to compare with.
    ///
    /// # Panics
    /// If this processor does not have them.
    #[must_use]
    pub fn with_vectors(self, vectors: VectorKind) -> Compute {
        assert!(VectorKind::available().contains(&vectors), "no {} here", vectors.name());
        Compute { vectors, ..self }
    }

    /// The same, but products keep no second copy of weights: for a model that fills the memory.
    #[must_use]
    pub fn sparing_memory(self) -> Compute {
        Compute { copies: Copies::MadeAgain, ..self }
    }

    fn with(threads: usize, instructions: Instructions) -> Result<Compute, ThreadsUnavailable> {
        let threads = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(|reason| ThreadsUnavailable { threads, reason })?;
        let (vectors, copies) = (VectorKind::detect(), Copies::Kept);
        Ok(Compute { pool, instructions, vectors, copies, buffers: Mutex::default() })
    }

    /// What products run on.
    pub fn instructions(&self) -> Instructions {
        self.instructions
    }

    /// What products with one row run on.
    pub fn vectors(&self) -> VectorKind {
        self.vectors
    }

    /// Whether products keep weights in the form that they want.
    pub(crate) fn keeps_copies(&self) -> bool {
        self.copies == Copies::Kept
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Calls `work` on one of the threads: products that it asks for then start sooner.
    pub fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Calls `task` for each of `0..tasks`, in any order, on all threads.
    pub fn each(&self, tasks: usize, task: impl Fn(usize) + Sync + Send) {
        if tasks == 1 {
            return task(0);
        }
        self.pool.install(|| (0..tasks).into_par_iter().with_max_len(1).for_each(task));
    }

    /// Calls `task` with each run of `len` elements of `data` (the last may be shorter) and its index.
    ///
    /// # Panics
    /// If `len` is nought.
    pub fn each_chunk<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        task: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        if data.len() <= len {
            return task(0, data);
        }
        self.pool.install(|| {
            let chunks = data.par_chunks_mut(len).with_max_len(1);
            chunks.enumerate().for_each(|(index, chunk)| task(index, chunk));
        });
    }

    /// Lends a buffer of `len` tiles, whatever is in them, to `work`.
    pub(crate) fn with_tiles<R>(&self, len: usize, work: impl FnOnce(&mut [Tile]) -> R) -> R {
        let kept = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = kept().pop().unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, Tile::ZERO);
        }
        let result = work(&mut buffer[..len]);
        kept().push(buffer);
        result
    }
}

impl std::fmt::Debug for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compute({} threads, {})", self.threads(), self.instructions.name())
    }
}
