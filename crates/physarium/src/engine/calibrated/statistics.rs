//! Sums and means over the inputs of a stage's maps.

use physarium_flow::activation::Inputs;
use physarium_model::{Compute, Gram, Shown, add_cross};

/// Sums over the inputs of a stage's maps.
#[derive(Default)]
pub(super) struct StageSums {
    tokens: usize,
    /// XᵀX `[inputs, inputs]` of the pruned stream; absent before the first window.
    gram: Option<Gram>,
    dense: DenseMeans,
}

/// What the dense model says about the outputs that the maps are to have: sums over tokens, then means.
#[derive(Default)]
pub(super) enum DenseMeans {
    /// Nothing: the method does not use the dense stream.
    #[default]
    Unused,
    /// X_denseᵀX `[inputs, inputs]`.
    Inputs(Vec<f32>),
    /// Y_denseᵀX `[outputs, inputs]`, of a stage with one map: fewer operations where there are fewer outputs than
    /// inputs.
    Outputs(Vec<f32>),
}

/// Means over the tokens at a stage.
pub(super) struct Statistics {
    /// Number of inputs.
    width: usize,
    /// XᵀX ÷ tokens `[inputs, inputs]`; empty if there are no sums.
    pub gram: Vec<f32>,
    pub dense: DenseMeans,
}

impl StageSums {
    /// Adds the inputs of some windows to maps of `width` inputs.
    pub fn add(&mut self, compute: &Compute, width: usize, shown: Shown<'_>) {
        let Shown { pruned, dense, .. } = shown;
        let tokens = pruned.len() / width;
        self.tokens += tokens;
        self.gram.get_or_insert_with(|| Gram::new(width)).add(compute, pruned);
        let Some(dense) = dense else { return };
        if let DenseMeans::Unused = self.dense {
            let rows = dense.outputs.unwrap_or(dense.inputs).len() / tokens.max(1);
            let sums = vec![0.0; rows * width];
            self.dense = match dense.outputs {
                Some(_) => DenseMeans::Outputs(sums),
                None => DenseMeans::Inputs(sums),
            };
        }
        let (rows, sums) = match (&mut self.dense, dense.outputs) {
            (DenseMeans::Outputs(sums), Some(outputs)) => (outputs, sums),
            (DenseMeans::Inputs(sums), _) => (dense.inputs, sums),
            _ => unreachable!("a stage has outputs for all windows or for none"),
        };
        add_cross(compute, [rows, pruned], tokens, sums);
    }

    /// The means over all tokens.
    pub fn mean(mut self, compute: &Compute) -> Statistics {
        let part = 1.0 / self.tokens.max(1) as f32;
        if let DenseMeans::Inputs(sums) | DenseMeans::Outputs(sums) = &mut self.dense {
            sums.iter_mut().for_each(|sum| *sum *= part);
        }
        let gram = self.gram.map_or_else(Vec::new, |gram| gram.finish(compute, part));
        Statistics { width: gram.len().isqrt(), gram, dense: self.dense }
    }
}

impl Statistics {
    /// The inputs of the stage's maps.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs { cols: self.width, gram: &self.gram }
    }

    /// Whether all means are finite.
    pub fn are_finite(&self) -> bool {
        let dense = match &self.dense {
            DenseMeans::Unused => &[][..],
            DenseMeans::Inputs(means) | DenseMeans::Outputs(means) => means,
        };
        self.gram.iter().chain(dense).all(|mean| mean.is_finite())
    }
}
