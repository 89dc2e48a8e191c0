//! The head of a model: from the last residual stream to logits.

use std::sync::Arc;

use physarium_kernels::{Buffer, Linear, vector};

use super::workspace::Workspace;

/// The final norm and the map to the vocabulary.
#[derive(Debug)]
pub struct Head {
    pub(crate) norm: Vec<f32>,
    pub(crate) epsilon: f32,
    /// In a packed model with tied weights, the embedding itself.
    pub(crate) map: Arc<Linear>,
}

impl Head {
    /// Number of logits per position.
    pub fn vocabulary(&self) -> usize {
        self.map.outputs()
    }

    /// Computes `logits` `[tokens, vocabulary]` from `hidden` `[tokens, hidden]`.
    pub fn logits(&self, workspace: &Workspace<'_>, hidden: &[f32], logits: &mut Buffer) {
        let mut normed = vec![0.0; hidden.len()];
        vector::rms_norm(hidden, &self.norm, self.epsilon, &mut normed);
        logits.resize(hidden.len() / self.norm.len() * self.vocabulary());
        self.map.forward(workspace.compute(), &normed, logits);
    }
}
