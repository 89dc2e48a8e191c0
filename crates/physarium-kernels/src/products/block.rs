/*!
A block of outputs of a map: the unit of work of a product with many rows.

In: rows of activations. Out: the columns of the result that belong to the block, in float32.
*/

use std::ops::Range;

use super::linear::Linear;
use crate::blocked::{
    DEPTH, Factor, Layout, Placed, SPARSE_COLUMNS, Target, Update, is_sparse, product,
    sparse_product,
};
use crate::matvec::VectorKind;
use crate::weights::{Dense, Weights};

/// Number of weights that are widened at once, so that they stay in a cache.
const WIDENED: usize = 1 << 17;
/// Elements between two rows of widened weights.
const PADDING: usize = 16;

/// Rows of activations `[rows, width]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) width: usize,
}

impl Rows<'_> {
    pub(super) fn count(self) -> usize {
        self.values.len() / self.width
    }
}

/// Some outputs of a map, and where their results go.
pub(super) struct Block<'a> {
    pub(super) map: &'a Linear,
    /// The result of the whole map; different blocks write to different columns.
    pub(super) y: Target,
    /// The outputs of this block, which are columns of `y`.
    pub(super) outputs: Range<usize>,
}

// SAFETY: each block accesses only its own columns of `y`, which `forward_all` borrows mutably until all
// blocks are done.
unsafe impl Sync for Block<'_> {}

impl<'a> Block<'a> {
    /// The blocks of a map whose result is `y`. Their bounds depend on the map only.
    pub(super) fn of(map: &'a Linear, y: Target) -> impl Iterator<Item = Block<'a>> {
        let size = block_outputs(map.outputs);
        (0..map.outputs).step_by(size).map(move |begin| Block {
            map,
            y,
            outputs: begin..(begin + size).min(map.outputs),
        })
    }

    /// Computes the block in float32.
    pub(super) fn run(&self, vectors: VectorKind, x: Rows<'_>) {
        let (inputs, outputs) = (self.map.inputs, self.outputs.len());
        let zeros = || self.map.weights.zeros(inputs, self.outputs.clone());
        if is_sparse(x.count(), outputs * inputs, zeros) {
            self.leave_out_zeros(vectors, x);
        } else if let Weights::Dense(Dense::F32(weights)) = &*self.map.weights {
            let weights = &weights[self.outputs.start * inputs..self.outputs.end * inputs];
            self.add_terms(vectors, x, (weights, inputs, 0..inputs));
        } else {
            let at_once = (WIDENED / outputs / DEPTH).max(1) * DEPTH;
            // Rows that are a power of two apart would share a few lines of the cache.
            let stride = at_once.min(inputs) + PADDING;
            let mut widened = vec![0.0; outputs * stride];
            for begin in (0..inputs).step_by(at_once) {
                let terms = begin..(begin + at_once).min(inputs);
                for (output, to) in self.outputs.clone().zip(widened.chunks_exact_mut(stride)) {
                    self.map.weights.widen(inputs, [output, begin], &mut to[..terms.len()]);
                }
                self.add_terms(vectors, x, (&widened, stride, terms));
            }
        }
        self.add_bias(0..x.count());
    }

    /// Writes the products, without terms of zero weights.
    fn leave_out_zeros(&self, vectors: VectorKind, x: Rows<'_>) {
        let Block { map, y, outputs } = self;
        let left = |[row, term]: [usize; 2], to: &mut [f32]| {
            map.weights.widen(map.inputs, [outputs.start + row, term], to);
        };
        for first in (0..x.count()).step_by(SPARSE_COLUMNS) {
            let shape = [outputs.len(), map.inputs, SPARSE_COLUMNS.min(x.count() - first)];
            // SAFETY: `x` holds whole rows of inputs, read transposed; the columns of `y` that are `outputs` are this block's.
            unsafe {
                let right = Factor::transposed(x.values.as_ptr().add(first * x.width), x.width);
                let begin = y.begin.add(first * y.stride + outputs.start);
                let out = Placed { begin, stride: y.stride, layout: Layout::Columns };
                sparse_product(vectors, shape, (&left, right), out);
            }
        }
    }

    /// Adds the products over `terms`, inputs that begin where a run of [`DEPTH`] terms does. Those from 0 on replace what `y`
    /// holds. `weights`: the terms of each output, `stride` apart.
    fn add_terms(
        &self,
        vectors: VectorKind,
        x: Rows<'_>,
        (weights, stride, terms): (&[f32], usize, Range<usize>),
    ) {
        assert!(weights.len() == self.outputs.len() * stride && terms.len() <= stride);
        assert!(x.width == self.map.inputs && terms.end <= x.width);
        let update = if terms.start == 0 { Update::Replace } else { Update::Add };
        // SAFETY: `x` holds its rows of `width` elements, among them `terms`; `weights` holds a row of as many terms for each output,
        // read transposed; the columns of `y` that are `outputs` are this block's.
        unsafe {
            product(
                vectors,
                [x.count(), terms.len(), self.outputs.len()],
                [
                    Factor::rows(x.values.as_ptr().add(terms.start), x.width),
                    Factor::transposed(weights.as_ptr(), stride),
                ],
                Target { begin: self.y.begin.add(self.outputs.start), update, ..self.y },
            );
        }
    }

    /// Adds the bias to the columns of the block in `rows`.
    pub(super) fn add_bias(&self, rows: Range<usize>) {
        let Some(bias) = &self.map.bias else { return };
        let bias = &bias[self.outputs.clone()];
        for row in rows {
            // SAFETY: only this block accesses these columns, and `y` holds all rows.
            let row = unsafe {
                let begin = self.y.begin.add(row * self.y.stride + self.outputs.start);
                std::slice::from_raw_parts_mut(begin, bias.len())
            };
            row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    }
}

/// Number of outputs of a block: enough blocks for a few threads, none too large for a cache.
pub(super) fn block_outputs(outputs: usize) -> usize {
    const BAND: usize = 32;
    (outputs / 8).next_multiple_of(BAND).clamp(BAND, 8 * BAND)
}
