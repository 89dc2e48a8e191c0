//! Factors and results of products, as they are in memory.

/// A factor in memory; strides in elements.
#[derive(Clone, Copy)]
pub(crate) struct Factor<N = f32> {
    pub(super) begin: *const N,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<N> Factor<N> {
    /// A factor stored as it is, its rows `stride` apart.
    pub(crate) fn rows(begin: *const N, stride: usize) -> Factor<N> {
        Factor { begin, row_stride: stride, col_stride: 1 }
    }

    /// A factor stored transposed, its columns `stride` apart.
    pub(crate) fn transposed(begin: *const N, stride: usize) -> Factor<N> {
        Factor { begin, row_stride: 1, col_stride: stride }
    }
}

/// How a product changes the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// The product replaces it.
    Replace,
    /// The product is added to it.
    Add,
    /// The product is subtracted from it.
    Subtract,
}

/// The result in memory: rows `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Target<N = f32> {
    pub(crate) begin: *mut N,
    pub(crate) stride: usize,
    pub(crate) update: Update,
}

/// A result whose parts are accessed by tasks on different threads, each its own.
pub(crate) struct PerTask<N = f32>(pub(crate) Target<N>);

// SAFETY: only `unsafe` code accesses the elements; it says which ones are a task's own.
unsafe impl<N> Sync for PerTask<N> {}

impl<N: Copy> PerTask<N> {
    pub(crate) fn get(&self) -> Target<N> {
        self.0
    }
}
