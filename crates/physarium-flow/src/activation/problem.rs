//! What is to be pruned, and what comes of it.

use physarium_kernels::{Compute, Precision, Symmetric};

use super::keep::Keep;

/// Share of the mean of the Gram matrix's diagonal that is added to it.
const DAMPING: f64 = 0.01;

/// One projection with what passes through it.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// Weights `[rows, cols]`: outputs by inputs.
    pub weights: &'a [f32],
    /// Number of inputs.
    pub cols: usize,
    /// XᵀX ÷ tokens `[cols, cols]`, X the inputs that the pruned projection will see.
    pub gram: &'a [f32],
    /// X_denseᵀX ÷ tokens `[cols, cols]`, X_dense the inputs in the dense model, whose outputs are the
    /// aim. `None` aims at what the weights make of X.
    pub dense: Option<&'a [f32]>,
    /// What an error of each output costs the model, relative to the others `[rows]`: all are above 0. Only
    /// the activation flow weighs outputs; `None` takes them as equal.
    pub felt: Option<&'a [f32]>,
}

/// A pruned projection.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// Weights `[rows, cols]`.
    pub weights: Vec<f32>,
    /// Inputs that are nought on all of the calibration text.
    pub dead_inputs: usize,
}

impl Problem<'_> {
    /// # Panics
    /// If slices do not fit together.
    pub(crate) fn check(&self) {
        assert!(self.cols > 0 && self.weights.len().is_multiple_of(self.cols));
        assert_eq!(self.gram.len(), self.cols * self.cols, "Gram matrix");
        assert!(self.dense.is_none_or(|dense| dense.len() == self.gram.len()), "dense Gram matrix");
        assert!(self.felt.is_none_or(|felt| felt.len() == self.rows()), "weights of outputs");
    }

    /// ‖X (Ŵ − W)ᵀ‖² ÷ ‖X Wᵀ‖² for weights Ŵ `[rows, cols]`: the relative square error of the outputs
    /// that the same inputs give. Nought where nothing comes out.
    ///
    /// # Panics
    /// If slices do not fit together.
    pub fn output_error(&self, compute: &Compute, pruned: &[f32]) -> f64 {
        self.check();
        assert_eq!(pruned.len(), self.weights.len(), "pruned weights");
        let gram = Symmetric::new(compute, self.gram.to_vec(), self.cols);
        let power = |rows: &[f32]| -> f64 {
            let mut through = vec![0.0; rows.len()];
            gram.multiply(compute, rows, Precision::Full, &mut through);
            rows.iter().zip(&through).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum()
        };
        let off: Vec<f32> = pruned.iter().zip(self.weights).map(|(new, old)| new - old).collect();
        let all = power(self.weights);
        if all > 0.0 { (power(&off) / all).max(0.0) } else { 0.0 }
    }

    pub(crate) fn rows(&self) -> usize {
        self.weights.len() / self.cols
    }

    /// The diagonal of the Gram matrix.
    pub(crate) fn diagonal(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.cols).map(|i| self.gram[i * self.cols + i])
    }

    pub(crate) fn dead_inputs(&self) -> usize {
        self.diagonal().filter(|power| *power == 0.0).count()
    }

    /// What is added to the diagonal, so that a singular matrix can be solved with.
    pub(crate) fn damping(&self) -> f64 {
        let sum: f64 = self.diagonal().map(f64::from).sum();
        (DAMPING * sum / self.cols as f64).max(1e-30)
    }
}

/// Zeroes the weights with the smallest |w| ‖x‖ of each row (Sun et al. 2023); a pattern, of each group.
///
/// # Panics
/// If slices do not fit together.
pub fn wanda(problem: &Problem<'_>, keep: Keep) -> Solution {
    problem.check();
    let norms: Vec<f32> = problem.diagonal().map(f32::sqrt).collect();
    let rows = problem.rows();
    let mut weights = problem.weights.to_vec();
    let mut spent = 0;
    for (row, weights) in weights.chunks_exact_mut(problem.cols).enumerate() {
        let scores: Vec<f32> = weights.iter().zip(&norms).map(|(w, x)| w.abs() * x).collect();
        let keep = match keep {
            Keep::AllBut(zeros) => {
                // The same number in each row, but for the remainder.
                let until = (zeros as u128 * (row as u128 + 1) / rows as u128) as usize;
                let here = until - spent;
                spent = until;
                Keep::AllBut(here)
            }
            pattern => pattern,
        };
        for (weight, kept) in weights.iter_mut().zip(keep.mask(&scores, problem.cols)) {
            if !kept {
                *weight = 0.0;
            }
        }
    }
    Solution { weights, dead_inputs: problem.dead_inputs() }
}
