/*!
The inputs of a projection as a network of tubes, in the units of the activation flow.

In: the Gram matrix of the inputs. Out: the [`FlowNetwork`] that all projections with these inputs share: the matrix with
a unit diagonal, and the inverse that solves for the flow of all rows at once.
*/

mod adaptation;
mod conjugate_gradients;
mod flow;
pub(super) mod parameters;
pub(super) mod projection;

use physarium_kernels::{Compute, Symmetric, invert};

use self::parameters::ActivationFlow;
use crate::activation::problem::{Inputs, Unsolved, unless_stopped};

/// Number of rows of a projection that one task processes.
const ROWS: usize = 192;

/// The inputs of one or several projections, prepared for the activation flow.
#[derive(Debug)]
pub struct FlowNetwork {
    parameters: ActivationFlow,
    /// Number of inputs.
    cols: usize,
    /// Whether an input is zero for every token `[cols]`.
    dead: Vec<bool>,
    /// What was added to the power of each input.
    damping: f64,
    /// Root of the damped power of each input `[cols]`: a flow is a weight times it.
    scale: Vec<f32>,
    /// G: the damped Gram matrix, divided by the scales of both inputs: unit diagonal `[cols, cols]`.
    gram: Symmetric,
    /// (G + ρ)⁻¹ for each coupling ρ `[cols, cols]`.
    solvers: Vec<Symmetric>,
}

impl FlowNetwork {
    /// Prepares the inputs X `[tokens, cols]` of projections, given as their Gram matrix XᵀX ÷ tokens `[cols, cols]`; X are
    /// the inputs that the pruned projections will see.
    ///
    /// # Errors
    /// `Stopped` if `compute` is, which is asked for each block of the inverse; `NotPositiveDefinite` if the damped
    /// Gram matrix is not.
    ///
    /// # Panics
    /// If the Gram matrix is not square.
    pub fn new(
        compute: &Compute,
        mut gram: Vec<f32>,
        parameters: ActivationFlow,
    ) -> Result<FlowNetwork, Unsolved> {
        let cols = gram.len().isqrt();
        let inputs = Inputs { cols, gram: &gram };
        inputs.check();
        let (dead, damping) = (inputs.are_dead(), inputs.damping(parameters.damping));
        let root = |power: f32| (f64::from(power) + damping).sqrt() as f32;
        let scale: Vec<f32> = inputs.diagonal().map(root).collect();
        compute.each_chunk(&mut gram, cols, |i, row| {
            row[i] += damping as f32;
            for (g, other) in row.iter_mut().zip(&scale) {
                *g /= scale[i] * other;
            }
        });
        let prepared = Symmetric::new(compute, &gram[..], cols);
        let couplings = parameters.couplings();
        let mut solvers = Vec::new();
        for (level, coupling) in couplings.iter().enumerate() {
            // The last inverse takes the memory of the matrix.
            let is_last = level + 1 == couplings.len();
            let mut inverse = if is_last { std::mem::take(&mut gram) } else { gram.clone() };
            inverse.iter_mut().step_by(cols + 1).for_each(|power| *power += coupling);
            let inverted = invert(compute, &mut inverse, cols);
            unless_stopped(compute)?;
            inverted.ok_or(Unsolved::NotPositiveDefinite)?;
            solvers.push(Symmetric::new(compute, inverse, cols));
        }
        Ok(FlowNetwork { parameters, cols, dead, damping, scale, gram: prepared, solvers })
    }

    /// Number of inputs that are zero for every token.
    fn dead_inputs(&self) -> usize {
        self.dead.iter().filter(|dead| **dead).count()
    }

    /// Turns demands of weights, `[rows, cols]`, into those of flows: (b + damping · w) ÷ scale.
    fn scale_demand(&self, weights: &[f32], root_costs: &[f32], demand: &mut [f32]) {
        let rows = demand.chunks_exact_mut(self.cols).zip(weights.chunks_exact(self.cols));
        for ((demand, weights), root_cost) in rows.zip(root_costs) {
            for ((b, w), scale) in demand.iter_mut().zip(weights).zip(&self.scale) {
                *b = (*b + self.damping as f32 * w) / scale * root_cost;
            }
        }
    }

    /// The flow of weights `[rows, cols]`.
    fn flow_of(&self, weights: &[f32], root_costs: &[f32]) -> Vec<f32> {
        let mut flow = weights.to_vec();
        for (row, root_cost) in flow.chunks_exact_mut(self.cols).zip(root_costs) {
            row.iter_mut().zip(&self.scale).for_each(|(q, scale)| *q *= scale * root_cost);
        }
        flow
    }

    /// The weights of a flow `[rows, cols]`.
    fn weights_of(&self, mut flow: Vec<f32>, root_costs: &[f32]) -> Vec<f32> {
        for (row, root_cost) in flow.chunks_exact_mut(self.cols).zip(root_costs) {
            row.iter_mut().zip(&self.scale).for_each(|(q, scale)| *q /= scale * root_cost);
        }
        flow
    }
}
