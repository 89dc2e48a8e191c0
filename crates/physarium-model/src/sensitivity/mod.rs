/*!
How much a model's predictions feel what its projections put out.

In: a decoder and windows of tokens. Out: for each projection the mean square of its inputs and of the
loss's gradient at its outputs ([`Sensitivity`]). With labels drawn from the model's own predictions the
latter is the diagonal of the Fisher information (Amari 1998; Martens 2014, arXiv 1412.1193): to second order
an error e of an output costs F e² / 2 nats of KL divergence from the model as it is.

Forward once, keeping the residual stream before each layer; then backward, layer by layer.
*/

mod attention;
mod layer;

use physarium_kernels::{Buffer, vector};

use crate::decoder::Decoder;
use crate::error::Error;
use crate::head::Head;
use crate::layer::{Layer, Run};
use layer::Backward;

/// Tokens whose logits are computed at once.
const TOKENS: usize = 256;

/// Means of squares over tokens at a projection.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// Of each input.
    pub inputs: Vec<f64>,
    /// Of the gradient of a token's loss, in nats, at each output.
    pub outputs: Vec<f64>,
}

/// What the loss is measured at.
#[derive(Debug, Clone, Copy)]
pub enum Labels {
    /// Drawn from the model's own predictions at every position; the same for the same seed.
    Drawn {
        /// Of the draw.
        seed: u64,
    },
    /// The text's next token; the last position of a window has none.
    Next,
}

/// Sums of squares.
#[derive(Default)]
struct Sums {
    inputs: Vec<f64>,
    outputs: Vec<f64>,
}

impl Sums {
    /// Adds the rows of inputs `[tokens, inputs]` and of gradients `[tokens, outputs]`.
    fn add(&mut self, inputs: &[f32], gradients: &[f32], tokens: usize) {
        self.inputs.resize(inputs.len() / tokens, 0.0);
        self.outputs.resize(gradients.len() / tokens, 0.0);
        vector::add_squares(inputs, &mut self.inputs);
        vector::add_squares(gradients, &mut self.outputs);
    }

    fn mean(self, tokens: usize) -> Sensitivity {
        let mean = |sums: Vec<f64>| sums.into_iter().map(|sum| sum / tokens as f64).collect();
        Sensitivity { inputs: mean(self.inputs), outputs: mean(self.outputs) }
    }
}

/// Measures all projections of all layers, each in the order of [`crate::Projection::ALL`].
///
/// Memory holds the residual streams of all windows before all layers, two copies of a layer, and one of the
/// head. `step` is called for each window at each layer, forward and back: 2 · layers · windows times.
///
/// # Errors
/// Those of the decoder and of `step`.
///
/// # Panics
/// Without windows, or with an empty one.
pub fn sensitivities<E: From<Error>>(
    decoder: &Decoder,
    windows: &[&[u32]],
    run: &Run<'_>,
    labels: Labels,
    mut step: impl FnMut() -> Result<(), E>,
) -> Result<Vec<[Sensitivity; 7]>, E> {
    let layers = decoder.config().layers();
    let tokens: usize = windows.iter().map(|window| window.len()).sum();
    let embed = |window: &&[u32]| decoder.embed(window);
    let mut streams = windows.iter().map(embed).collect::<Result<Vec<_>, Error>>()?;
    let mut before: Vec<Vec<Vec<f32>>> = Vec::with_capacity(layers);
    for index in 0..layers {
        let layer = decoder.layer(index)?;
        layer.prepare(run.compute());
        before.push(streams.clone());
        for hidden in &mut streams {
            layer.forward(run, hidden);
            step()?;
        }
    }
    let mut gradients = streams;
    start(&*decoder.head()?, run, windows, labels, &mut gradients);
    let mut felt = Vec::with_capacity(layers);
    for index in (0..layers).rev() {
        let layer: &Layer = &*decoder.layer(index)?;
        let backward = Backward::new(layer);
        let mut sums: [Sums; 7] = Default::default();
        // The streams are dropped as they are done with.
        for (hidden, gradient) in before.pop().into_iter().flatten().zip(&mut gradients) {
            backward.pass(run, &hidden, gradient, &mut sums);
            step()?;
        }
        felt.push(sums.map(|sums| sums.mean(tokens)));
    }
    felt.reverse();
    Ok(felt)
}

/// Turns each window's last residual stream into the gradient of the summed loss there.
fn start(head: &Head, run: &Run<'_>, windows: &[&[u32]], labels: Labels, streams: &mut [Vec<f32>]) {
    let (width, back) = (head.norm.len(), head.map.transposed());
    let mut logits = Buffer::default();
    let mut drawn = 0;
    for (window, stream) in windows.iter().zip(streams) {
        for (block, hidden) in stream.chunks_mut(TOKENS * width).enumerate() {
            head.logits(run, hidden, &mut logits);
            for (row, logits) in logits.chunks_exact_mut(head.vocabulary()).enumerate() {
                let next = window.get(block * TOKENS + row + 1).copied();
                loss_gradient(logits, labels, next, drawn);
                drawn += 1;
            }
            let mut of_normed = vec![0.0; hidden.len()];
            back.forward(run.compute(), &logits, &mut of_normed);
            let x = hidden.to_vec();
            let gradients = vector::Gradients { outputs: &of_normed, inputs: hidden };
            vector::rms_norm_gradient(&x, &head.norm, head.epsilon, gradients);
        }
    }
}

/// Turns a position's logits into the gradient of its loss: probabilities, less one at the label.
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

/// An index, drawn with probabilities `weights` ÷ `total`.
fn draw(weights: &[f32], total: f64, seed: u64, position: u64) -> usize {
    // SplitMix64 (Steele et al. 2014), jumped to a position of its stream.
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
    // Rounding may leave a little at the end.
    weights.len() - 1
}
