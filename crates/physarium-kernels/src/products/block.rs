/*!
A block of outputs of a map: the unit of work of a product with many rows.

In: rows of activations. Out: the columns of the result that belong to the block, in float32.
*/

use std::ops::Range;

use super::linear::Linear;
use crate::blocked::{Factor, Target, product};
use crate::matvec::VectorKind;
use crate::weights::{Dense, Weights};

/// Fewest outputs whose weights are widened at once: with fewer, a product is slow.
const WIDENED_OUTPUTS: usize = 32;

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
        /// Number of weights that are widened at once, so that they stay in a cache.
        const WIDENED: usize = 1 << 19;
        let inputs = self.map.inputs;
        let at_once = (WIDENED / inputs).max(WIDENED_OUTPUTS).min(self.outputs.len());
        let mut widened = Vec::new();
        for begin in self.outputs.clone().step_by(at_once) {
            let cols = at_once.min(self.outputs.end - begin);
            let here = begin * inputs..(begin + cols) * inputs;
            let weights = match &*self.map.weights {
                Weights::Dense(Dense::F32(weights)) => &weights[here],
                other => {
                    widened.resize(cols * inputs, 0.0);
                    other.widen(inputs, begin, &mut widened);
                    &widened[..]
                }
            };
            // SAFETY: `x` holds its rows of `inputs` elements, `weights` holds `cols` rows of as many,
            // read transposed; the columns of `y` from `begin` on are this block's.
            unsafe {
                product(
                    vectors,
                    [x.count(), inputs, cols],
                    [
                        Factor::rows(x.values.as_ptr(), inputs),
                        Factor::transposed(weights.as_ptr(), inputs),
                    ],
                    Target { begin: self.y.begin.add(begin), ..self.y },
                );
            }
        }
        self.add_bias(0..x.count());
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
