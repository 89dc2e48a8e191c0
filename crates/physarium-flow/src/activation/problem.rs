/*!
What an activation-aware method is given, and what it returns.

A [`Problem`] is one projection with statistics of its inputs on the calibration text; a [`Solution`] is the pruned
projection.
*/

use physarium_kernels::vector::dot;
use physarium_kernels::{Compute, Dense, Linear, Precision, Symmetric};

/// Tokens whose outputs are computed at once, for an error.
const TOKENS: usize = 256;

/// Statistics of the inputs X `[tokens, cols]` of one or several projections.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Number of inputs.
    pub cols: usize,
    /// XᵀX ÷ tokens `[cols, cols]`; X are the inputs that the pruned projection will see.
    pub gram: &'a [f32],
}

/// Rows of the inputs of one or several projections.
#[derive(Debug, Clone, Copy)]
pub struct InputRows<'a> {
    /// Number of inputs.
    pub cols: usize,
    /// `[tokens, cols]`.
    pub rows: &'a [f32],
}

/// One projection with statistics of its inputs. A pruned projection is to have the outputs of its own weights for the same
/// inputs.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// Weights `[rows, cols]`: outputs by inputs.
    pub weights: &'a [f32],
    /// Its inputs.
    pub inputs: Inputs<'a>,
}

/// A pruned projection.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// Weights `[rows, cols]`. Those that are pruned are zero; of the others, only those that were zero before can be.
    /// If the problem is beyond float32, some are NaN or infinite.
    pub weights: Vec<f32>,
    /// Number of inputs that are zero for every token of the calibration text.
    pub dead_inputs: usize,
}

/// Fails if the work was stopped, so that its results are meaningless.
pub(super) fn unless_stopped(compute: &Compute) -> Result<(), Unsolved> {
    if compute.is_stopped() { Err(Unsolved::Stopped) } else { Ok(()) }
}

/// Why a problem has no solution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolved {
    /// The work was [stopped](Compute::stopping_when).
    Stopped,
    /// The damped Gram matrix has no Cholesky factor.
    NotPositiveDefinite,
}

/// A weight that is kept: the smallest number of its sign if an update has left nothing of it.
pub(super) fn not_zero(weight: f32) -> f32 {
    if weight == 0.0 { f32::from_bits(1).copysign(weight) } else { weight }
}

/// The same numbers as BF16 if that holds all of them, with which products are faster; else as float32.
fn exact(weights: &[f32]) -> Dense {
    match weights.iter().all(|weight| weight.to_bits() & 0xffff == 0) {
        true => Dense::Bf16(weights.iter().map(|weight| (weight.to_bits() >> 16) as u16).collect()),
        false => Dense::F32(weights.to_vec()),
    }
}

impl Inputs<'_> {
    /// # Panics
    /// If the Gram matrix is not square.
    pub(super) fn check(&self) {
        let cols = self.cols;
        assert!(cols > 0 && self.gram.len() == cols * cols, "Gram matrix: not {cols} x {cols}");
    }

    /// The diagonal of the Gram matrix `[cols]`: the mean square of each input.
    pub fn diagonal(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.cols).map(|i| self.gram[i * self.cols + i])
    }

    /// Whether an input is zero for every token `[cols]`.
    pub(super) fn are_dead(&self) -> Vec<bool> {
        self.diagonal().map(|power| power == 0.0).collect()
    }

    /// Number of inputs that are zero for every token.
    pub fn dead(&self) -> usize {
        self.are_dead().into_iter().filter(|dead| *dead).count()
    }

    /// The term added to the diagonal of the Gram matrix, which makes a singular matrix invertible: a fraction of the
    /// mean diagonal.
    pub(super) fn damping(&self, fraction: f64) -> f64 {
        let sum: f64 = self.diagonal().map(f64::from).sum();
        (fraction * sum / self.cols as f64).max(1e-30)
    }
}

impl Problem<'_> {
    /// # Panics
    /// If the lengths of the slices do not match.
    pub(super) fn check(&self) {
        self.inputs.check();
        let cols = self.cols();
        assert!(self.weights.len().is_multiple_of(cols), "weights: not rows of {cols}");
    }

    /// Number of inputs.
    pub(super) fn cols(&self) -> usize {
        self.inputs.cols
    }

    /// Number of outputs.
    pub(super) fn rows(&self) -> usize {
        self.weights.len() / self.inputs.cols
    }

    /// The errors of the outputs of pruned weights Ŵ `[rows, cols]` for the same inputs. Zero if all outputs are zero; NaN
    /// if float32 cannot hold the products. Meaningless once `compute` is stopped.
    ///
    /// # Panics
    /// If the lengths of the slices do not match.
    pub fn output_errors(&self, compute: &Compute, pruned: &[f32]) -> OutputErrors {
        self.check();
        let gram = Symmetric::new(compute, self.inputs.gram.to_vec(), self.cols());
        output_errors([self.weights, pruned], |rows| {
            gram.quadratic_form(compute, rows, Precision::Full)
        })
    }
}

impl InputRows<'_> {
    /// The errors of the outputs of `pruned` weights `[rows, cols]` for these inputs, where `weights` are to give the same.
    /// Zero if all outputs are zero; NaN if float32 cannot hold them. Meaningless once `compute` is stopped.
    ///
    /// # Panics
    /// If the lengths of the slices do not match.
    pub fn output_errors(&self, compute: &Compute, [weights, pruned]: [&[f32]; 2]) -> OutputErrors {
        let cols = self.cols;
        output_errors([weights, pruned], |weights| {
            let map = Linear::new(weights.len() / cols, cols, exact(weights), None);
            let mut outputs = vec![0.0; TOKENS * map.outputs()];
            let tokens = self.rows.chunks(TOKENS * cols);
            tokens
                .map(|inputs| {
                    let outputs = &mut outputs[..inputs.len() / cols * map.outputs()];
                    map.forward(compute, inputs, outputs);
                    dot(outputs, outputs)
                })
                .sum()
        })
    }
}

/// ‖X (Ŵ − W)ᵀ‖² ÷ ‖X Wᵀ‖²: relative squared errors of a projection's outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutputErrors {
    /// If weights were only set to zero, and the others left as they were. Equal to `after` for a method that updates
    /// none.
    pub before_update: f64,
    /// Of the pruned weights as they are.
    pub after: f64,
}

/// The relative squared errors of the outputs of pruned weights; `power` is the sum of squared outputs of any weights.
pub(super) fn output_errors(
    [weights, pruned]: [&[f32]; 2],
    power: impl Fn(&[f32]) -> f64,
) -> OutputErrors {
    assert_eq!(pruned.len(), weights.len(), "pruned weights");
    let total = power(weights);
    let mut change: Vec<f32> = pruned.iter().zip(weights).map(|(new, old)| new - old).collect();
    let updated = pruned.iter().zip(weights).any(|(new, old)| *new != 0.0 && new != old);
    let of = |change: &[f32]| {
        let change = power(change);
        match total.is_finite() && change.is_finite() {
            // Not `max`: of zeros of two signs it may give either.
            true if total > 0.0 && change > 0.0 => change / total,
            true => 0.0,
            false => f64::NAN,
        }
    };
    let after = of(&change);
    if !updated {
        return OutputErrors { before_update: after, after };
    }
    for ((change, new), old) in change.iter_mut().zip(pruned).zip(weights) {
        *change = if *new == 0.0 { -old } else { 0.0 };
    }
    OutputErrors { before_update: of(&change), after }
}
