//! Sums and means over the inputs of a stage's maps.

use physarium_model::{Compute, Gram, add_cross};

/// Sums over the inputs of a stage's maps.
#[derive(Default)]
pub(super) struct StageSums {
    tokens: usize,
    /// XᵀX `[inputs, inputs]` of the pruned stream; absent before the first window.
    gram: Option<Gram>,
    /// X_denseᵀX `[inputs, inputs]`; empty if the method does not use the dense stream.
    cross_gram: Vec<f32>,
}

/// Means over the tokens at a stage, `[inputs, inputs]` each; empty if there are no sums.
pub(super) struct Statistics {
    pub gram: Vec<f32>,
    pub cross_gram: Vec<f32>,
}

impl StageSums {
    /// Adds the inputs of a window.
    pub fn add(&mut self, compute: &Compute, width: usize, dense: Option<&[f32]>, pruned: &[f32]) {
        self.tokens += pruned.len() / width;
        self.gram.get_or_insert_with(|| Gram::new(compute, width)).add(compute, pruned);
        if let Some(dense) = dense {
            self.cross_gram.resize(width * width, 0.0);
            add_cross(compute, dense, pruned, &mut self.cross_gram);
        }
    }

    /// The means over all tokens.
    pub fn mean(mut self) -> Statistics {
        let part = 1.0 / self.tokens.max(1) as f32;
        self.cross_gram.iter_mut().for_each(|sum| *sum *= part);
        let gram = self.gram.map_or_else(Vec::new, |gram| gram.finish(part));
        Statistics { gram, cross_gram: self.cross_gram }
    }
}

impl Statistics {
    /// Number of inputs that are zero for every token.
    pub fn dead_inputs(&self) -> u64 {
        let width = self.gram.len().isqrt();
        (0..width).filter(|input| self.gram[input * width + input] == 0.0).count() as u64
    }
}
