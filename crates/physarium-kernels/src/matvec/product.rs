/*!
Rows of a matrix times one vector, on vector instructions that are selected at run time.

In: weights, the rows wanted, x in the order of the lanes ([`Arranged`]). Out: the sum of each row.
*/

use std::ops::Range;

use super::kind::VectorKind;
use super::lanes::{
    Bf16, Element, F16, F32, LANES, Lanes, SparseRows, Tree, dense_rows, expand_row, sparse_rows,
};
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};
use crate::memory::Buffer;
use crate::weights::{Dense, Sparse, Weights};

/// Number of rows that are summed together: x is read once for them, and their memory is prefetched
/// together.
pub(crate) const ROWS: usize = 4;

/// x in the orders of the lanes, zero-padded to a multiple of 32 elements.
pub(crate) struct Arranged {
    inputs: usize,
    /// For [`Tree::Neighbours`]; empty if no weights need it.
    neighbours: Buffer,
    /// For [`Tree::Halves`]; empty if no weights need it.
    halves: Buffer,
}

impl Arranged {
    /// Arranges x for products with each of `weights`.
    pub(crate) fn new<'a>(
        kind: VectorKind,
        x: &[f32],
        weights: impl Iterator<Item = &'a Weights>,
    ) -> Arranged {
        let mut arranged =
            Arranged { inputs: x.len(), neighbours: Buffer::default(), halves: Buffer::default() };
        for weights in weights {
            let tree = tree(weights);
            let to = match tree {
                Tree::Neighbours => &mut arranged.neighbours,
                Tree::Halves => &mut arranged.halves,
            };
            if to.is_empty() {
                to.resize(x.len().next_multiple_of(LANES));
                arrange(kind, tree, x, to);
            }
        }
        arranged
    }

    /// Number of elements of x, without padding.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    fn in_order(&self, tree: Tree) -> &[f32] {
        match tree {
            Tree::Neighbours => &self.neighbours,
            Tree::Halves => &self.halves,
        }
    }
}

/// The tree that adds the lanes of these weights.
fn tree(weights: &Weights) -> Tree {
    match weights.values() {
        Dense::Bf16(_) => Tree::Neighbours,
        Dense::F16(_) | Dense::F32(_) => Tree::Halves,
    }
}

/// Writes x to `to` in the order of the lanes.
fn arrange(kind: VectorKind, tree: Tree, x: &[f32], to: &mut [f32]) {
    let arrange = match kind {
        VectorKind::Portable => Portable::arrange,
        #[cfg(target_arch = "x86_64")]
        VectorKind::Avx2 => Avx2::arrange,
        #[cfg(target_arch = "x86_64")]
        VectorKind::Avx512 => Avx512::arrange,
        #[cfg(target_arch = "aarch64")]
        VectorKind::Neon => Neon::arrange,
    };
    for (to, from) in to.chunks_exact_mut(LANES).zip(x.chunks(LANES)) {
        let mut whole = [0.0; LANES];
        whole[..from.len()].copy_from_slice(from);
        to.copy_from_slice(&arrange(&whole, tree));
    }
}

/// A matrix, of which some rows are multiplied by x.
pub(crate) struct Product<'a> {
    /// `[outputs, inputs]`.
    pub(crate) weights: &'a Weights,
    pub(crate) inputs: usize,
    pub(crate) x: &'a Arranged,
}

impl Product<'_> {
    /// Writes the products of `rows` with x to `y`.
    ///
    /// # Panics
    /// If the shapes of x, rows, weights and `y` do not match.
    pub(crate) fn rows(&self, kind: VectorKind, rows: Range<usize>, y: &mut [f32]) {
        assert_eq!(rows.len(), y.len());
        assert!(self.x.in_order(tree(self.weights)).len() >= self.inputs);
        match self.weights {
            Weights::Dense(weights) => {
                let end = rows.end.checked_mul(self.inputs);
                assert!(end.is_some_and(|end| end <= weights.len()), "rows beyond the weights");
            }
            Weights::Sparse(weights) => {
                assert!(rows.end <= weights.outputs() && weights.inputs() == self.inputs);
            }
        }
        // SAFETY: a `VectorKind` exists only where its instructions are supported; the rows exist, as asserted.
        unsafe {
            match kind {
                VectorKind::Portable => self.on::<Portable>(rows, y),
                #[cfg(target_arch = "x86_64")]
                VectorKind::Avx2 => self.on_avx2(rows, y),
                #[cfg(target_arch = "x86_64")]
                VectorKind::Avx512 => self.on_avx512(rows, y),
                #[cfg(target_arch = "aarch64")]
                VectorKind::Neon => self.on::<Neon>(rows, y),
            }
        }
    }

    /// # Safety
    /// As [`Product::on`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    unsafe fn on_avx2(&self, rows: Range<usize>, y: &mut [f32]) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.on::<Avx2>(rows, y) }
    }

    /// # Safety
    /// As [`Product::on`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,avx2,fma,popcnt")]
    unsafe fn on_avx512(&self, rows: Range<usize>, y: &mut [f32]) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.on::<Avx512>(rows, y) }
    }

    /// # Safety
    /// The processor supports the instructions, and the weights have these rows.
    #[inline(always)]
    unsafe fn on<L: Lanes>(&self, rows: Range<usize>, y: &mut [f32]) {
        // SAFETY: guaranteed by the caller; the values of a sparse matrix are followed by 32 elements of padding.
        unsafe {
            match self.weights {
                Weights::Dense(Dense::Bf16(w)) => self.dense::<L, Bf16>(w, rows, y),
                Weights::Dense(Dense::F16(w)) => self.dense::<L, F16>(w, rows, y),
                Weights::Dense(Dense::F32(w)) => self.dense::<L, F32>(w, rows, y),
                Weights::Sparse(sparse) => match sparse.values() {
                    Dense::Bf16(w) => self.sparse::<L, Bf16>(sparse, w, rows, y),
                    Dense::F16(w) => self.sparse::<L, F16>(sparse, w, rows, y),
                    Dense::F32(w) => self.sparse::<L, F32>(sparse, w, rows, y),
                },
            }
        }
    }

    /// # Safety
    /// As [`Product::on`].
    #[inline(always)]
    unsafe fn dense<L: Lanes, E: Element<L>>(
        &self,
        weights: &[E::Stored],
        rows: Range<usize>,
        y: &mut [f32],
    ) {
        let x = self.x.in_order(E::TREE).as_ptr();
        let mut row = rows.start;
        let (whole, rest) = y.as_chunks_mut::<ROWS>();
        // SAFETY: the rows up to `rows.end` exist, and x is as long as a row.
        unsafe {
            for y in whole {
                let weights = weights.as_ptr().add(row * self.inputs);
                *y = dense_rows::<L, E, ROWS>(weights, self.inputs, x);
                row += ROWS;
            }
            for y in rest {
                let weights = weights.as_ptr().add(row * self.inputs);
                [*y] = dense_rows::<L, E, 1>(weights, self.inputs, x);
                row += 1;
            }
        }
    }

    /// # Safety
    /// As [`Product::on`]; `values` are those of `sparse`, followed by 32 elements of padding.
    #[inline(always)]
    unsafe fn sparse<L: Lanes, E: Element<L>>(
        &self,
        sparse: &Sparse,
        values: &[E::Stored],
        rows: Range<usize>,
        y: &mut [f32],
    ) {
        let x = self.x.in_order(E::TREE).as_ptr();
        let words = Sparse::words(self.inputs);
        let mut row = rows.start;
        let (whole, rest) = y.as_chunks_mut::<ROWS>();
        // SAFETY: the rows up to `rows.end` exist; `Sparse::new` has checked where their values are.
        unsafe {
            for y in whole {
                let masks = sparse.masks_from(row).as_ptr();
                let mut begin = [values.as_ptr(); ROWS];
                for (offset, begin) in begin.iter_mut().enumerate() {
                    *begin = begin.add(sparse.start(row + offset));
                }
                row += ROWS;
                let next = values.as_ptr().add(sparse.start(row));
                let rows = SparseRows { masks, words, values: begin, next };
                *y = sparse_rows::<L, E, ROWS>(rows, x);
            }
            for y in rest {
                let masks = sparse.masks_from(row).as_ptr();
                let begin = values.as_ptr().add(sparse.start(row));
                row += 1;
                let next = values.as_ptr().add(sparse.start(row));
                let rows = SparseRows { masks, words, values: [begin], next };
                [*y] = sparse_rows::<L, E, 1>(rows, x);
            }
        }
    }
}

/// Writes row `row` of 16-bit weights, including zeros, to `to`.
///
/// # Panics
/// If the weights do not have 16 bits, there is no such row, or `to` does not hold 32 elements per mask word.
pub(crate) fn expand_words(kind: VectorKind, sparse: &Sparse, row: usize, to: &mut [u16]) {
    let words = Sparse::words(sparse.inputs());
    assert!(row < sparse.outputs() && to.len() == words * LANES);
    let masks = &sparse.masks_from(row)[..words];
    let values: *const u16 = match sparse.values() {
        Dense::Bf16(values) => values[sparse.start(row)..].as_ptr(),
        Dense::F16(values) => values[sparse.start(row)..].as_ptr().cast(),
        Dense::F32(_) => panic!("weights of 32 bits"),
    };
    let to = to.as_mut_ptr();
    // SAFETY: a `VectorKind` exists only where its instructions are supported; the values are followed by 32
    // elements of padding.
    unsafe {
        match kind {
            VectorKind::Portable => expand_row::<Portable>(masks, values, to),
            #[cfg(target_arch = "x86_64")]
            VectorKind::Avx2 => on_avx2(masks, values, to),
            #[cfg(target_arch = "x86_64")]
            VectorKind::Avx512 => on_avx512(masks, values, to),
            #[cfg(target_arch = "aarch64")]
            VectorKind::Neon => expand_row::<Neon>(masks, values, to),
        }
    }
}

/// # Safety
/// As [`expand_row`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
unsafe fn on_avx2(masks: &[u32], values: *const u16, to: *mut u16) {
    // SAFETY: guaranteed by the caller.
    unsafe { expand_row::<Avx2>(masks, values, to) }
}

/// # Safety
/// As [`expand_row`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,avx2,fma,popcnt")]
unsafe fn on_avx512(masks: &[u32], values: *const u16, to: *mut u16) {
    // SAFETY: guaranteed by the caller.
    unsafe { expand_row::<Avx512>(masks, values, to) }
}
