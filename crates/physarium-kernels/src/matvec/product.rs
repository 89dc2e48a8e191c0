//! Rows of a matrix times one vector, on instructions that are chosen when the program runs.

use std::ops::Range;

use super::lanes::{
    Bf16, Element, F16, F32, LANES, Lanes, Tree, dense_rows, expand_row, sparse_rows,
};
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::{VectorKind, portable::Portable};
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};
use crate::buffer::Buffer;
use crate::sparse::Sparse;
use crate::weights::{Dense, Weights};

/// Rows whose sums are taken side by side: x is read once for them, and their memory is asked for
/// together.
pub(crate) const ROWS: usize = 4;

/// x in the orders that the lanes have it in, with noughts up to a whole number of lanes.
pub(crate) struct Arranged {
    inputs: usize,
    neighbours: Buffer,
    halves: Buffer,
}

impl Arranged {
    /// For products with each of `weights`.
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

/// The tree that the lanes of these weights are added in.
fn tree(weights: &Weights) -> Tree {
    match weights.values() {
        Dense::Bf16(_) => Tree::Neighbours,
        Dense::F16(_) | Dense::F32(_) => Tree::Halves,
    }
}

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

/// Some rows of a matrix times x.
pub(crate) struct Product<'a> {
    /// `[outputs, inputs]`.
    pub weights: &'a Weights,
    pub inputs: usize,
    pub x: &'a Arranged,
}

impl Product<'_> {
    /// Writes the products of `rows` with x to `y`.
    ///
    /// # Panics
    /// If x, rows and weights do not fit each other.
    pub(crate) fn rows(&self, kind: VectorKind, rows: Range<usize>, y: &mut [f32]) {
        assert_eq!(rows.len(), y.len());
        assert!(self.x.in_order(tree(self.weights)).len() >= self.inputs);
        match self.weights {
            Weights::Dense(weights) => assert!(rows.end * self.inputs <= weights.len()),
            Weights::Sparse(weights) => {
                assert!(rows.end <= weights.outputs() && weights.inputs() == self.inputs);
            }
        }
        // SAFETY: a kind is only made where its instructions are; the rows are there, as asserted.
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
        // SAFETY: as the caller says.
        unsafe { self.on::<Avx2>(rows, y) }
    }

    /// # Safety
    /// As [`Product::on`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,avx2,fma,popcnt")]
    unsafe fn on_avx512(&self, rows: Range<usize>, y: &mut [f32]) {
        // SAFETY: as the caller says.
        unsafe { self.on::<Avx512>(rows, y) }
    }

    /// # Safety
    /// The instructions are there, and the rows are the weights'.
    #[inline(always)]
    unsafe fn on<L: Lanes>(&self, rows: Range<usize>, y: &mut [f32]) {
        // SAFETY: as the caller says; values of sparse rows have 32 more behind them.
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
        // SAFETY: rows up to `rows.end` are there, and x is as long as a row.
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
    /// As [`Product::on`]; `values` are those of `sparse` and 32 more.
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
        // SAFETY: rows up to `rows.end` are there; `Sparse` has proven where their values are.
        unsafe {
            for y in whole {
                let masks = sparse.masks_from(row).as_ptr();
                let mut begin = [values.as_ptr(); ROWS];
                for (offset, begin) in begin.iter_mut().enumerate() {
                    *begin = begin.add(sparse.start(row + offset));
                }
                row += ROWS;
                let next = values.as_ptr().add(sparse.start(row));
                *y = sparse_rows::<L, E, ROWS>(masks, words, begin, next, x);
            }
            for y in rest {
                let masks = sparse.masks_from(row).as_ptr();
                let begin = values.as_ptr().add(sparse.start(row));
                row += 1;
                let next = values.as_ptr().add(sparse.start(row));
                [*y] = sparse_rows::<L, E, 1>(masks, words, [begin], next, x);
            }
        }
    }
}

/// Writes row `row` of 16-bit weights, noughts among them, to `to`.
///
/// # Panics
/// If the weights are not of 16 bits, or `to` is not a row's words of mask times 32.
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
    // SAFETY: a kind is only made where its instructions are; the values have 32 more behind them.
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
    // SAFETY: as the caller says.
    unsafe { expand_row::<Avx2>(masks, values, to) }
}

/// # Safety
/// As [`expand_row`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,avx2,fma,popcnt")]
unsafe fn on_avx512(masks: &[u32], values: *const u16, to: *mut u16) {
    // SAFETY: as the caller says.
    unsafe { expand_row::<Avx512>(masks, values, to) }
}
