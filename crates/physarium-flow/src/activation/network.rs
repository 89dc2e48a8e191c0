/*!
The inputs of a projection as a network of tubes, in the units of the activation flow.

In: the Gram matrix of the inputs. Out: the [`FlowNetwork`] that all projections with these inputs share: the matrix with
a unit diagonal, and the inverse that solves for the flow of all rows at once.
*/

use physarium_kernels::{Compute, Symmetric, invert};

use super::parameters::ActivationFlow;
use super::problem::{Inputs, Problem, Unsolved, unless_stopped};

/// Number of rows of a projection that one task processes.
pub(super) const ROWS: usize = 192;

/// The inputs of one or several projections, prepared for the activation flow.
#[derive(Debug)]
pub struct FlowNetwork {
    pub(super) parameters: ActivationFlow,
    /// Number of inputs.
    pub(super) cols: usize,
    /// What was added to the power of each input.
    pub(super) damping: f64,
    /// Root of the damped power of each input `[cols]`: a flow is a weight times it.
    pub(super) scale: Vec<f32>,
    /// G: the damped Gram matrix, divided by the scales of both inputs: unit diagonal `[cols, cols]`.
    pub(super) gram: Symmetric,
    /// (G + ρ)⁻¹ for each coupling ρ `[cols, cols]`.
    pub(super) solvers: Vec<Symmetric>,
}

impl FlowNetwork {
    /// Prepares the inputs of projections.
    ///
    /// # Errors
    /// `Stopped` if `compute` is, which is asked for each block of the inverse; `NotPositiveDefinite` if the damped
    /// Gram matrix is not.
    ///
    /// # Panics
    /// If the Gram matrix is not square.
    pub fn new(
        compute: &Compute,
        inputs: &Inputs<'_>,
        parameters: ActivationFlow,
    ) -> Result<FlowNetwork, Unsolved> {
        inputs.check();
        let cols = inputs.cols;
        let damping = inputs.damping();
        let scale: Vec<f32> =
            inputs.diagonal().map(|power| (f64::from(power) + damping).sqrt() as f32).collect();
        let mut gram = inputs.gram.to_vec();
        compute.each_chunk(&mut gram, cols, |i, row| {
            row[i] += damping as f32;
            for (g, other) in row.iter_mut().zip(&scale) {
                *g /= scale[i] * other;
            }
        });
        let mut solvers = Vec::new();
        for coupling in parameters.couplings() {
            let mut inverse = gram.clone();
            inverse.iter_mut().step_by(cols + 1).for_each(|power| *power += coupling);
            let inverted = invert(compute, &mut inverse, cols);
            unless_stopped(compute)?;
            inverted.ok_or(Unsolved::NotPositiveDefinite)?;
            solvers.push(Symmetric::new(compute, inverse, cols));
        }
        let gram = Symmetric::new(compute, gram, cols);
        Ok(FlowNetwork { parameters, cols, damping, scale, gram, solvers })
    }

    /// Turns demands of weights, `[rows, cols]`, into those of flows: (b + damping · w) ÷ scale.
    pub(super) fn scale_demand(
        &self,
        problem: &Problem<'_>,
        root_costs: &[f32],
        demand: &mut [f32],
    ) {
        let rows = demand.chunks_exact_mut(self.cols).zip(problem.weights.chunks_exact(self.cols));
        for ((demand, weights), root_cost) in rows.zip(root_costs) {
            for ((b, w), scale) in demand.iter_mut().zip(weights).zip(&self.scale) {
                *b = (*b + self.damping as f32 * w) / scale * root_cost;
            }
        }
    }

    /// The flow of weights `[rows, cols]`.
    pub(super) fn flow_of(&self, weights: &[f32], root_costs: &[f32]) -> Vec<f32> {
        let mut flow = weights.to_vec();
        for (row, root_cost) in flow.chunks_exact_mut(self.cols).zip(root_costs) {
            row.iter_mut().zip(&self.scale).for_each(|(q, scale)| *q *= scale * root_cost);
        }
        flow
    }

    /// The weights of a flow `[rows, cols]`.
    pub(super) fn weights_of(&self, mut flow: Vec<f32>, root_costs: &[f32]) -> Vec<f32> {
        for (row, root_cost) in flow.chunks_exact_mut(self.cols).zip(root_costs) {
            row.iter_mut().zip(&self.scale).for_each(|(q, scale)| *q /= scale * root_cost);
        }
        flow
    }
}
