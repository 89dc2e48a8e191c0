//! The loss of predictions, and its gradient at the last residual stream.

use physarium_kernels::{Buffer, vector};

use crate::layers::head::Head;
use crate::layers::workspace::Workspace;

/// Tokens whose logits are computed together.
const TOKENS: usize = 256;

/// The labels that the loss is computed for.
#[derive(Debug, Clone, Copy)]
pub enum Labels {
    /// Sampled at every position from the model's own predictions; the same seed gives the same labels.
    Drawn {
        /// Random seed.
        seed: u64,
    },
    /// The text's next token; the last position of a window has none.
    Next,
}

/// Windows of tokens with the labels at their positions.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// At least one; none is empty.
    pub windows: &'a [&'a [u32]],
    /// The labels at their positions.
    pub labels: Labels,
}

/// Replaces each window's last residual stream by the gradient of the summed loss with respect to it.
pub(super) fn last_gradients(
    head: &Head,
    workspace: &Workspace<'_>,
    text: Labelled<'_>,
    streams: &mut [Vec<f32>],
) {
    let (width, back) = (head.norm.len(), head.map.transposed());
    let mut logits = Buffer::default();
    let mut drawn = 0;
    let compute = workspace.compute();
    for (window, stream) in text.windows.iter().zip(streams) {
        for (block, hidden) in stream.chunks_mut(TOKENS * width).enumerate() {
            head.logits(workspace, hidden, &mut logits);
            compute.each_chunk(&mut logits, head.vocabulary(), |row, logits| {
                let next = window.get(block * TOKENS + row + 1).copied();
                loss_gradient(logits, text.labels, next, drawn + row as u64);
            });
            drawn += (hidden.len() / width) as u64;
            let mut of_normed = vec![0.0; hidden.len()];
            back.forward(compute, &logits, &mut of_normed);
            let x = hidden.to_vec();
            let gradients = vector::Gradients { outputs: &of_normed, inputs: hidden };
            vector::rms_norm_gradient(&x, &head.norm, head.epsilon, gradients);
        }
    }
}

/// Replaces a position's logits by the gradient of its loss: the probabilities, minus 1 at the label.
fn loss_gradient(logits: &mut [f32], labels: Labels, next: Option<u32>, position: u64) {
    let total = vector::softmax_numerators(logits, 1.0);
    let label = match labels {
        Labels::Drawn { seed } => draw(logits, total, seed, position),
        Labels::Next => match next {
            Some(next) => next as usize,
            None => return logits.fill(0.0),
        },
    };
    vector::scale(logits, (1.0 / total) as f32);
    logits[label] -= 1.0;
}

/// A random index, with probabilities `weights` ÷ `total`.
fn draw(weights: &[f32], total: f64, seed: u64, position: u64) -> usize {
    // SplitMix64 (Steele et al. 2014), started at this position of its stream.
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(position + 1));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let mut left = (z >> 11) as f64 / (1u64 << 53) as f64 * total;
    for (index, weight) in weights.iter().enumerate() {
        left -= f64::from(*weight);
        if left < 0.0 {
            return index;
        }
    }
    // Rounding may leave a small remainder.
    weights.len() - 1
}
