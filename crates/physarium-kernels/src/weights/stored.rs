//! The weights of a map, dense or sparse.

use std::ops::Range;

use super::dense::Dense;
use super::sparse::Sparse;

/// The weights of a map, in the form that they are stored in.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// Every weight is stored.
    Dense(Dense),
    /// Only nonzero weights are stored, with a mask of their positions.
    Sparse(Sparse),
}

impl From<Dense> for Weights {
    fn from(weights: Dense) -> Weights {
        Weights::Dense(weights)
    }
}

impl From<Sparse> for Weights {
    fn from(weights: Sparse) -> Weights {
        Weights::Sparse(weights)
    }
}

impl Weights {
    /// The stored values: all weights, or those that the mask has a bit for and padding after them.
    pub(crate) fn values(&self) -> &Dense {
        match self {
            Weights::Dense(weights) => weights,
            Weights::Sparse(weights) => weights.values(),
        }
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Weights::Dense(weights) => weights.len() * weights.element_bytes(),
            Weights::Sparse(weights) => weights.size_bytes(),
        }
    }

    /// Number of zeros among the weights of some outputs, of `inputs` weights each.
    pub(crate) fn zeros(&self, inputs: usize, outputs: Range<usize>) -> usize {
        match self {
            Weights::Dense(weights) => weights.zeros(outputs.start * inputs..outputs.end * inputs),
            Weights::Sparse(weights) => {
                outputs.len() * inputs - (weights.start(outputs.end) - weights.start(outputs.start))
            }
        }
    }

    /// Copies a part of a row of `inputs` weights, from `column` on, to `to`, converted to float32. `column` is a multiple of 32.
    pub(crate) fn widen(&self, inputs: usize, [row, column]: [usize; 2], to: &mut [f32]) {
        match self {
            Weights::Dense(weights) => weights.widen(row * inputs + column, to),
            Weights::Sparse(weights) => weights.widen([row, column], to),
        }
    }
}
