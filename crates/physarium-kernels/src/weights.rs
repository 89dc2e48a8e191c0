//! Weights in the form and the dtype that they are stored in.

use half::f16;

use crate::sparse::Sparse;
use crate::widen;

/// Weights `[outputs, inputs]`, row by row, in the dtype that they are stored in.
#[derive(Debug, Clone, PartialEq)]
pub enum Dense {
    /// Bits of bfloat16.
    Bf16(Vec<u16>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// IEEE single precision.
    F32(Vec<f32>),
}

impl Dense {
    /// Number of weights.
    pub fn len(&self) -> usize {
        match self {
            Dense::Bf16(weights) => weights.len(),
            Dense::F16(weights) => weights.len(),
            Dense::F32(weights) => weights.len(),
        }
    }

    /// Bytes of one.
    pub(crate) fn element_bytes(&self) -> usize {
        match self {
            Dense::Bf16(_) | Dense::F16(_) => 2,
            Dense::F32(_) => 4,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the weights from `begin` on, as float32.
    ///
    /// # Panics
    /// If there are fewer than `to` holds.
    pub fn widen(&self, begin: usize, to: &mut [f32]) {
        let here = begin..begin + to.len();
        match self {
            Dense::Bf16(weights) => widen::bf16(&weights[here], to),
            Dense::F16(weights) => widen::float16(&weights[here], to),
            Dense::F32(weights) => to.copy_from_slice(&weights[here]),
        }
    }
}

/// The weights of a map, in the form that they are stored in.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// All of them.
    Dense(Dense),
    /// Those that are not nought.
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
    /// Those that are stored: all, or those that are not nought and some more.
    pub(crate) fn values(&self) -> &Dense {
        match self {
            Weights::Dense(weights) => weights,
            Weights::Sparse(weights) => weights.values(),
        }
    }

    /// Bytes that they take.
    pub fn size_bytes(&self) -> usize {
        match self {
            Weights::Dense(weights) => weights.len() * weights.element_bytes(),
            Weights::Sparse(weights) => weights.size_bytes(),
        }
    }

    /// Copies the rows of `inputs` weights from `row` on, as float32.
    pub(crate) fn widen(&self, inputs: usize, row: usize, to: &mut [f32]) {
        match self {
            Weights::Dense(weights) => weights.widen(row * inputs, to),
            Weights::Sparse(weights) => weights.widen(row, to),
        }
    }
}
