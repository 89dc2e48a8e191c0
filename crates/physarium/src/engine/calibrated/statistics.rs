//! Sums and means over the inputs of a stage's maps.

use physarium_flow::activation::{Inputs, Target};
use physarium_model::{Compute, DenseWindow, Gram, add_cross};

/// Sums over the inputs of a stage's maps.
#[derive(Default)]
pub(super) struct StageSums {
    tokens: usize,
    /// XᵀX `[inputs, inputs]` of the pruned stream; absent before the first window.
    gram: Option<Gram>,
    dense: DenseSums,
}

/// What the dense model says about the outputs that the maps are to have.
#[derive(Default)]
enum DenseSums {
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
    /// `[inputs, inputs]`; empty if there are no sums.
    gram: Vec<f32>,
    dense: DenseSums,
}

impl StageSums {
    /// Adds the inputs of a window to maps of `width` inputs.
    pub fn add(
        &mut self,
        compute: &Compute,
        width: usize,
        dense: Option<DenseWindow<'_>>,
        pruned: &[f32],
    ) {
        let tokens = pruned.len() / width;
        self.tokens += tokens;
        self.gram.get_or_insert_with(|| Gram::new(compute, width)).add(compute, pruned);
        let Some(dense) = dense else { return };
        if let DenseSums::Unused = self.dense {
            let rows = dense.outputs.unwrap_or(dense.inputs).len() / tokens.max(1);
            let sums = vec![0.0; rows * width];
            self.dense = match dense.outputs {
                Some(_) => DenseSums::Outputs(sums),
                None => DenseSums::Inputs(sums),
            };
        }
        let (rows, sums) = match (&mut self.dense, dense.outputs) {
            (DenseSums::Outputs(sums), Some(outputs)) => (outputs, sums),
            (DenseSums::Inputs(sums), _) => (dense.inputs, sums),
            _ => unreachable!("a stage has outputs for all windows or for none"),
        };
        add_cross(compute, [rows, pruned], tokens, sums);
    }

    /// The means over all tokens.
    pub fn mean(mut self) -> Statistics {
        let part = 1.0 / self.tokens.max(1) as f32;
        if let DenseSums::Inputs(sums) | DenseSums::Outputs(sums) = &mut self.dense {
            sums.iter_mut().for_each(|sum| *sum *= part);
        }
        let gram = self.gram.map_or_else(Vec::new, |gram| gram.finish(part));
        Statistics { width: gram.len().isqrt(), gram, dense: self.dense }
    }
}

impl Statistics {
    /// The inputs of the stage's maps.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs { cols: self.width, gram: &self.gram }
    }

    /// What the maps are to reproduce.
    pub fn target(&self) -> Target<'_> {
        match &self.dense {
            DenseSums::Unused => Target::Own,
            DenseSums::Inputs(means) => Target::CrossGram(means),
            DenseSums::Outputs(means) => Target::Outputs(means),
        }
    }

    /// Whether all means are finite.
    pub fn are_finite(&self) -> bool {
        let dense = match &self.dense {
            DenseSums::Unused => &[][..],
            DenseSums::Inputs(means) | DenseSums::Outputs(means) => means,
        };
        self.gram.iter().chain(dense).all(|mean| mean.is_finite())
    }
}
