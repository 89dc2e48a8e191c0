/*!
The norm of a map's outputs, before they are added to the residual stream (Gemma 3, arXiv 2503.19786).

In: outputs y of o or down. Out: N(y) = w y / rms(y) in the stream, and the way back: the gradient of y from that of the
stream, and the y that would add something else to the stream.
*/

use physarium_kernels::vector::{self, Gradients};

/// The norm of the outputs of o or down.
#[derive(Debug, Clone)]
pub(crate) struct OutputNorm {
    /// `[hidden]`.
    weight: Vec<f32>,
    epsilon: f32,
    /// For each feature, w / (w² + κ · mean w²): what an output has to change by for a change of the stream, less where the
    /// norm lets little through.
    back: Vec<f32>,
}

/// κ of [`OutputNorm`]'s way back.
const DAMPING: f32 = 0.01;

impl OutputNorm {
    pub(crate) fn new(weight: Vec<f32>, epsilon: f32) -> OutputNorm {
        let squares = vector::dot(&weight, &weight);
        let damping = DAMPING * (squares / weight.len().max(1) as f64) as f32;
        // A norm of zeros lets nothing through.
        let back_of = |w: &f32| if *w == 0.0 { 0.0 } else { w / (w * w + damping) };
        let back = weight.iter().map(back_of).collect();
        OutputNorm { weight, epsilon, back }
    }

    /// Adds N(`outputs`) to `hidden`; both are `[tokens, hidden]`.
    pub(crate) fn add(&self, outputs: &[f32], hidden: &mut [f32]) {
        vector::add(hidden, &self.normed(outputs));
    }

    /// The gradient of `outputs` from that of the stream, `[tokens, hidden]` all.
    pub(crate) fn gradient(&self, outputs: &[f32], of_stream: &[f32]) -> Vec<f32> {
        let mut through = vec![0.0; outputs.len()];
        let gradients = Gradients { outputs: of_stream, inputs: &mut through };
        vector::rms_norm_gradient(outputs, &self.weight, self.epsilon, gradients);
        through
    }

    /// Changes `outputs` so that they add about `stream_share · (wanted − N(outputs))` more to the stream, if their root mean
    /// square stays. All are `[tokens, hidden]`.
    pub(crate) fn aim(&self, wanted: &[f32], stream_share: f32, outputs: &mut [f32]) {
        let width = self.weight.len();
        let normed = self.normed(outputs);
        let rows = wanted.chunks_exact(width).zip(normed.chunks_exact(width));
        for (outputs, (wanted, normed)) in outputs.chunks_exact_mut(width).zip(rows) {
            let mean = vector::dot(outputs, outputs) / width as f64;
            let share = stream_share * (mean as f32 + self.epsilon).sqrt();
            let lacking = wanted.iter().zip(normed).map(|(wanted, normed)| wanted - normed);
            for ((output, lacking), back) in outputs.iter_mut().zip(lacking).zip(&self.back) {
                *output += share * lacking * back;
            }
        }
    }

    fn normed(&self, outputs: &[f32]) -> Vec<f32> {
        let mut normed = vec![0.0; outputs.len()];
        vector::rms_norm(outputs, &self.weight, self.epsilon, &mut normed);
        normed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_of_zeros_aims_at_the_outputs_as_they_are() {
        let norm = OutputNorm::new(vec![0.0; 4], 1e-6);
        let mut outputs = [1.0, -2.0, 3.0, 0.5];
        norm.aim(&[9.0; 4], 1.0, &mut outputs);
        assert_eq!(outputs, [1.0, -2.0, 3.0, 0.5]);
    }

    #[test]
    fn outputs_reach_a_stream_that_differs_a_little() {
        let number = |index: usize| ((index * 7919) % 1009) as f32 / 500.0 - 1.0;
        let width = 64;
        let weight: Vec<f32> = (0..width).map(|index| 2.0 + number(index)).collect();
        let norm = OutputNorm::new(weight.clone(), 1e-6);
        let outputs: Vec<f32> = (0..2 * width).map(|index| 30.0 * number(index + 9)).collect();
        let mut wanted = vec![0.0; outputs.len()];
        norm.add(&outputs, &mut wanted);
        let before = wanted.clone();
        // A change that leaves the root mean square as it is: outputs in pairs, along (−b, a).
        for ((wanted, outputs), weight) in wanted
            .chunks_exact_mut(2)
            .zip(outputs.chunks_exact(2))
            .zip(weight.chunks_exact(2).cycle())
        {
            wanted[0] -= 1e-4 * outputs[1] * weight[0];
            wanted[1] += 1e-4 * outputs[0] * weight[1];
        }
        let apart = |one: &[f32], other: &[f32]| -> f32 {
            one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum::<f32>().sqrt()
        };
        for (share, left) in [(1.0, 0.0), (0.25, 0.75)] {
            let mut aimed = outputs.clone();
            norm.aim(&wanted, share, &mut aimed);
            let mut found = vec![0.0; outputs.len()];
            norm.add(&aimed, &mut found);
            let (lacked, lacking) = (apart(&wanted, &before), apart(&wanted, &found));
            assert!((lacking / lacked - left).abs() < 0.05, "{share}: {lacking} of {lacked}");
        }
    }
}
