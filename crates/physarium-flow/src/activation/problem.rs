/*!
What an activation-aware method is given, and what it returns.

A [`Problem`] is one projection with statistics of its inputs and outputs on the calibration text; a
[`Solution`] is the pruned projection.
*/

use physarium_kernels::{Compute, Precision, Symmetric};

/// Fraction of the mean diagonal of the Gram matrix that is added to its diagonal (as in the code of
/// Frantar and Alistarh 2023).
const DAMPING: f64 = 0.01;

/// One projection with statistics of its inputs and outputs.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// Weights `[rows, cols]`: outputs by inputs.
    pub weights: &'a [f32],
    /// Number of inputs.
    pub cols: usize,
    /// XᵀX ÷ tokens `[cols, cols]`; X `[tokens, cols]` are the inputs that the pruned projection will see.
    pub gram: &'a [f32],
    /// X_denseᵀX ÷ tokens `[cols, cols]`; X_dense `[tokens, cols]` are the inputs in the dense model. The
    /// target outputs are then X_dense Wᵀ, those of the dense model. With `None` they are X Wᵀ. Only the
    /// activation flow uses it.
    pub cross_gram: Option<&'a [f32]>,
    /// Fisher information of each output `[rows]`: the mean square of the loss gradient at the output, which
    /// is what a squared error of that output costs the model. Only ratios between outputs matter. With
    /// `None` all outputs cost the same. Only the activation flow uses it.
    pub output_costs: Option<&'a [f32]>,
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

impl Problem<'_> {
    /// # Panics
    /// If the lengths of the slices do not match.
    pub(crate) fn check(&self) {
        let cols = self.cols;
        assert!(cols > 0 && self.weights.len().is_multiple_of(cols), "weights: not rows of {cols}");
        let is_square = |matrix: &[f32]| matrix.len() == cols * cols;
        assert!(is_square(self.gram), "Gram matrix: not {cols} x {cols}");
        assert!(self.cross_gram.is_none_or(is_square), "cross Gram matrix: not {cols} x {cols}");
        let is_column = |costs: &[f32]| costs.len() == self.rows();
        assert!(self.output_costs.is_none_or(is_column), "output costs: not {}", self.rows());
    }

    /// ‖X (Ŵ − W)ᵀ‖² ÷ ‖X Wᵀ‖² for pruned weights Ŵ `[rows, cols]`: the relative squared error of the
    /// outputs for the same inputs. Zero if all outputs are zero; NaN if float32 cannot hold the products. Meaningless
    /// once `compute` is stopped.
    ///
    /// # Panics
    /// If the lengths of the slices do not match.
    pub fn output_error(&self, compute: &Compute, pruned: &[f32]) -> f64 {
        self.check();
        assert_eq!(pruned.len(), self.weights.len(), "pruned weights");
        let gram = Symmetric::new(compute, self.gram.to_vec(), self.cols);
        let power = |rows: &[f32]| -> f64 {
            let mut product = vec![0.0; rows.len()];
            gram.multiply(compute, rows, Precision::Full, &mut product);
            rows.iter().zip(&product).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum()
        };
        let change: Vec<f32> =
            pruned.iter().zip(self.weights).map(|(new, old)| new - old).collect();
        let (total, change) = (power(self.weights), power(&change));
        match total.is_finite() && change.is_finite() {
            // Not `max`: of zeros of two signs it may give either.
            true if total > 0.0 && change > 0.0 => change / total,
            true => 0.0,
            false => f64::NAN,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.weights.len() / self.cols
    }

    /// The diagonal of the Gram matrix: the mean square of each input.
    pub(crate) fn diagonal(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.cols).map(|i| self.gram[i * self.cols + i])
    }

    /// Number of inputs that are zero for every token.
    pub(crate) fn dead_inputs(&self) -> usize {
        self.diagonal().filter(|power| *power == 0.0).count()
    }

    /// The term added to the diagonal of the Gram matrix, which makes a singular matrix invertible.
    pub(crate) fn damping(&self) -> f64 {
        let sum: f64 = self.diagonal().map(f64::from).sum();
        (DAMPING * sum / self.cols as f64).max(1e-30)
    }
}
