//! One of the projections of a [`FlowNetwork`](super::FlowNetwork), and what it is to do.

/// The outputs that a pruned projection is to reproduce; X `[tokens, cols]` are the inputs that it will see.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Those of its own weights for the same inputs: X Wᵀ.
    Own,
    /// X_dense Wᵀ, those of the dense model, given as X_denseᵀX ÷ tokens `[cols, cols]`; X_dense `[tokens, cols]` are the
    /// inputs in the dense model.
    CrossGram(&'a [f32]),
    /// Any outputs Y `[tokens, rows]`, given as YᵀX ÷ tokens `[rows, cols]`.
    Outputs(&'a [f32]),
}

/// A projection, and what it is to do.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// Weights `[rows, cols]`: outputs by inputs.
    pub weights: &'a [f32],
    /// What it is to reproduce.
    pub target: Target<'a>,
    /// Fisher information of each output `[rows]`: the mean square of the loss gradient at the output, which
    /// is what a squared error of that output costs the model. Only ratios between outputs matter. With
    /// `None` all outputs cost the same.
    pub output_costs: Option<&'a [f32]>,
}

impl Projection<'_> {
    /// # Panics
    /// If the lengths of the slices do not match.
    pub(super) fn check(&self, cols: usize) {
        assert!(self.weights.len().is_multiple_of(cols), "weights: not rows of {cols}");
        let rows = self.weights.len() / cols;
        match self.target {
            Target::Own => {}
            Target::CrossGram(cross) => assert_eq!(cross.len(), cols * cols, "cross Gram matrix"),
            Target::Outputs(demand) => assert_eq!(demand.len(), self.weights.len(), "demand"),
        }
        let is_column = |costs: &[f32]| costs.len() == rows;
        assert!(self.output_costs.is_none_or(is_column), "output costs: not {rows}");
    }

    /// Square roots of the output costs relative to their mean `[rows]`, with a lower bound: no output is free.
    pub(super) fn root_costs(&self, cols: usize) -> Vec<f32> {
        /// Lowest cost, as a fraction of the mean.
        const LEAST: f64 = 1e-4;
        let Some(costs) = self.output_costs else { return vec![1.0; self.weights.len() / cols] };
        let mean = costs.iter().map(|cost| f64::from(*cost)).sum::<f64>() / costs.len() as f64;
        if mean <= 0.0 {
            return vec![1.0; costs.len()];
        }
        costs.iter().map(|cost| (f64::from(*cost) / mean).max(LEAST).sqrt() as f32).collect()
    }
}
