/*!
A problem in the units of the activation flow.

In: a [`Problem`]. Out: a Gram matrix with a unit diagonal, the demand of each row, and the way from weights to
flows and back ([`Scaled`]).
*/

use physarium_kernels::{Compute, Left, Output, Precision, Right, Symmetric};

use super::conjugate_gradients::{ConjugateGradients, ROWS};
use super::problem::Problem;

/// A problem in units in which every input has the same power, and every output the same cost.
pub(super) struct Scaled {
    cols: usize,
    /// The damped Gram matrix, divided by the scales of both inputs: unit diagonal `[cols, cols]`.
    gram: Symmetric,
    /// Root of the damped power of each input `[cols]`: a flow is a weight times it.
    scale: Vec<f32>,
    /// Root of the relative cost of each output `[rows]`: flows of a row are multiplied by it, so that an
    /// error of one output costs as much as of any other.
    root_costs: Vec<f32>,
    /// b: the demand of each row, from the target outputs `[rows, cols]`.
    demand: Vec<f32>,
}

impl Scaled {
    pub(super) fn new(compute: &Compute, problem: &Problem<'_>) -> Scaled {
        let cols = problem.cols;
        let damping = problem.damping();
        let scale: Vec<f32> =
            problem.diagonal().map(|power| (f64::from(power) + damping).sqrt() as f32).collect();
        let mut gram = problem.gram.to_vec();
        compute.each_chunk(&mut gram, cols, |i, row| {
            row[i] += damping as f32;
            for (g, other) in row.iter_mut().zip(&scale) {
                *g /= scale[i] * other;
            }
        });
        // b = w (X_denseᵀX + damping), in units of the scale.
        let target = problem.cross_gram.unwrap_or(problem.gram);
        let mut demand = vec![0.0; problem.weights.len()];
        compute.each_chunk(&mut demand, ROWS * cols, |block, demand| {
            let weights = &problem.weights[block * ROWS * cols..][..demand.len()];
            let shape = [demand.len() / cols, cols, cols];
            let target = Right::AsIs { data: target, stride: cols };
            let product = Output { data: demand, stride: cols };
            compute.multiply(shape, Left { data: weights, stride: cols }, target, product);
            for (b, w) in demand.chunks_exact_mut(cols).zip(weights.chunks_exact(cols)) {
                for ((b, w), scale) in b.iter_mut().zip(w).zip(&scale) {
                    *b = (*b + damping as f32 * w) / scale;
                }
            }
        });
        let root_costs = root_costs(problem);
        for (row, root_cost) in demand.chunks_exact_mut(cols).zip(&root_costs) {
            row.iter_mut().for_each(|b| *b *= root_cost);
        }
        Scaled { cols, gram: Symmetric::new(compute, gram, cols), scale, root_costs, demand }
    }

    /// The flow of weights `[rows, cols]`.
    pub(super) fn flow_of(&self, weights: &[f32]) -> Vec<f32> {
        let mut flow = weights.to_vec();
        for (row, root_cost) in flow.chunks_exact_mut(self.cols).zip(&self.root_costs) {
            row.iter_mut().zip(&self.scale).for_each(|(q, scale)| *q *= scale * root_cost);
        }
        flow
    }

    /// The weights of a flow `[rows, cols]`.
    pub(super) fn weights_of(&self, mut flow: Vec<f32>) -> Vec<f32> {
        for (row, root_cost) in flow.chunks_exact_mut(self.cols).zip(&self.root_costs) {
            row.iter_mut().zip(&self.scale).for_each(|(q, scale)| *q /= scale * root_cost);
        }
        flow
    }

    /// Writes the demand that a flow does not meet, b − G q, to `unmet`; both `[rows, cols]`.
    pub(super) fn unmet_demand(&self, compute: &Compute, flow: &[f32], unmet: &mut [f32]) {
        compute.each_chunk(unmet, ROWS * self.cols, |block, unmet| {
            let here = block * ROWS * self.cols..block * ROWS * self.cols + unmet.len();
            self.gram.multiply(compute, &flow[here.clone()], Precision::Full, unmet);
            unmet.iter_mut().zip(&self.demand[here]).for_each(|(unmet, b)| *unmet = b - *unmet);
        });
    }

    /// A solver for the Gram matrix that takes this many steps.
    pub(super) fn solver<'a>(
        &'a self,
        compute: &'a Compute,
        steps: usize,
    ) -> ConjugateGradients<'a> {
        ConjugateGradients { compute, gram: &self.gram, cols: self.cols, steps }
    }
}

/// Square roots of the output costs relative to their mean, with a lower bound: no output is free.
fn root_costs(problem: &Problem<'_>) -> Vec<f32> {
    /// Lowest cost, as a fraction of the mean.
    const LEAST: f64 = 1e-4;
    let Some(costs) = problem.output_costs else { return vec![1.0; problem.rows()] };
    let mean = costs.iter().map(|cost| f64::from(*cost)).sum::<f64>() / costs.len() as f64;
    if mean <= 0.0 {
        return vec![1.0; costs.len()];
    }
    costs.iter().map(|cost| (f64::from(*cost) / mean).max(LEAST).sqrt() as f32).collect()
}
