/*!
A linear map, `y = x Wᵀ + b`, with weights as they are stored.

In: weights `[outputs, inputs]`, dense or sparse, and a bias. Out: [`Linear`], which gives access to them. The
products are in `forward.rs`.
*/

use std::borrow::Cow;
use std::sync::Arc;

use crate::weights::{Dense, Weights};

/// A linear map. A clone shares its weights.
#[derive(Debug, Clone)]
pub struct Linear {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) weights: Arc<Weights>,
    pub(super) bias: Option<Vec<f32>>,
    /// BF16 weights as tiles; set by the first product that needs them.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(super) packed: std::sync::OnceLock<Arc<Vec<crate::tiles::Tile>>>,
}

impl Linear {
    /// A map from `inputs` to `outputs` features; `bias`: `[outputs]`.
    ///
    /// # Panics
    /// If the shape is empty, or weights or bias do not have it.
    pub fn new(
        outputs: usize,
        inputs: usize,
        weights: impl Into<Weights>,
        bias: Option<Vec<f32>>,
    ) -> Linear {
        let weights = weights.into();
        assert!(outputs > 0 && inputs > 0, "an empty map");
        let fits = match &weights {
            Weights::Dense(weights) => Some(weights.len()) == outputs.checked_mul(inputs),
            Weights::Sparse(weights) => [weights.outputs(), weights.inputs()] == [outputs, inputs],
        };
        assert!(fits, "weights of a map [{outputs}, {inputs}]");
        assert!(
            bias.as_ref().is_none_or(|bias| bias.len() == outputs),
            "bias of {outputs} outputs"
        );
        Linear {
            outputs,
            inputs,
            weights: Arc::new(weights),
            bias,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            packed: std::sync::OnceLock::new(),
        }
    }

    /// Number of output features.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of input features.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// What is added to its outputs `[outputs]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The same map with other weights.
    ///
    /// # Panics
    /// If they do not have the shape of the map.
    pub fn with_weights(&self, weights: impl Into<Weights>) -> Linear {
        Linear::new(self.outputs, self.inputs, weights, self.bias.clone())
    }

    /// Its weights `[outputs, inputs]`, including zeros; a copy if they are sparse.
    pub fn weights(&self) -> Cow<'_, Dense> {
        match &*self.weights {
            Weights::Dense(weights) => Cow::Borrowed(weights),
            Weights::Sparse(weights) => Cow::Owned(weights.to_dense()),
        }
    }

    /// Writes the weights of one output, `[inputs]`, to `to`, converted to float32.
    ///
    /// # Panics
    /// If there is no such output, or `to` does not hold `inputs` elements.
    pub fn row(&self, output: usize, to: &mut [f32]) {
        assert!(output < self.outputs && to.len() == self.inputs);
        self.weights.widen(self.inputs, [output, 0], to);
    }

    /// Size of its weights in bytes.
    pub fn weights_bytes(&self) -> usize {
        self.weights.size_bytes()
    }

    /// The map from gradients of outputs to gradients of inputs: Wᵀ, without a bias.
    pub fn transposed(&self) -> Linear {
        let size = [self.outputs, self.inputs];
        let weights = match &*self.weights() {
            Dense::Bf16(weights) => Dense::Bf16(transpose(weights, size)),
            Dense::F16(weights) => Dense::F16(transpose(weights, size)),
            Dense::F32(weights) => Dense::F32(transpose(weights, size)),
        };
        Linear::new(self.inputs, self.outputs, weights, None)
    }
}

/// `[rows, cols]` to `[cols, rows]`, in squares that fit in a cache.
fn transpose<T: Copy + Default>(from: &[T], [rows, cols]: [usize; 2]) -> Vec<T> {
    const EDGE: usize = 32;
    let mut to = vec![T::default(); from.len()];
    for first in (0..rows).step_by(EDGE) {
        for begin in (0..cols).step_by(EDGE) {
            for row in first..(first + EDGE).min(rows) {
                for col in begin..(begin + EDGE).min(cols) {
                    to[col * rows + row] = from[row * cols + col];
                }
            }
        }
    }
    to
}
