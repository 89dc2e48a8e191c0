/*!
Activation flow: each row of a projection is a network of tubes that has to reproduce the row's output.

In: a [`Projection`] of a [`FlowNetwork`]. Out: a [`Solution`] whose remaining weights are updated to compensate.

The demand b of a row is its target outputs, seen from its inputs; G is the Gram matrix of the inputs with a unit
diagonal. Tube i is offered the flow yᵢ, carries a part of it, and refuses the rest:

```text
conductance  Dᵢ = (|yᵢ| / τ)^β
response     zᵢ = yᵢ Dᵢ / (1 + Dᵢ)                the flow that it carries
pressure     y ← (G + ρ)⁻¹ (b + ρ (z − u)) + u     u = y − z: the flow that it refuses
```

τ is the flow at the threshold of the requested sparsity. The response is that of the magnitude flow
(`conductance.rs`; Tero et al. 2007), here with an exponent β that grows until tubes are open or closed. A row carries more
flow by the square root of its output's cost, so that τ cuts where the model loses least. Finally the flow of the
remaining tubes is solved for again (the refit).

The pressure step is the same linear system for all rows, so that one inverse serves all projections with the same
inputs, and each step is one product. As an optimisation method this is Douglas–Rachford splitting (Boyd et al. 2011, Distributed
Optimization and Statistical Learning via the Alternating Direction Method of Multipliers, §3), with a soft threshold
in place of the hard one of ALPS (Meng et al. 2024, arXiv 2406.07831).
*/

use physarium_kernels::vector::dot;
use physarium_kernels::{Compute, Left, Output, Precision, Right};

use super::adaptation::{Response, Threshold, Tubes};
use super::conjugate_gradients::{Iterate, Refit};
use super::parameters::{RECOMPUTE, between};
use super::projection::{Projection, Target};
use super::{FlowNetwork, ROWS};
use crate::activation::keep::Keep;
use crate::activation::order::Order;
use crate::activation::problem::{
    OutputErrors, Solution, Unsolved, not_zero, output_errors, unless_stopped,
};

impl FlowNetwork {
    /// Prunes a projection by the activation flow.
    ///
    /// # Errors
    /// `Stopped` if `compute` is; it is asked in each step.
    ///
    /// # Panics
    /// If the lengths of the slices do not match.
    pub fn prune(
        &self,
        compute: &Compute,
        projection: &Projection<'_>,
        keep: Keep,
    ) -> Result<Solution, Unsolved> {
        projection.check(self.cols);
        let weights = projection.weights;
        let dead_inputs = self.dead_inputs();
        if keep.zeros(weights.len() / self.cols, self.cols) == 0 {
            return Ok(Solution { weights: weights.to_vec(), dead_inputs });
        }
        let order = Order::new(weights, self.dead.clone());
        let root_costs = projection.root_costs(self.cols);
        let mut flow = self.flow_of(weights, &root_costs);
        let demand = self.demand(compute, projection, &root_costs, &flow)?;
        self.adapt(compute, &mut flow, &demand, keep)?;
        let open = open(&flow, keep, &order, self.cols);
        flow.iter_mut().zip(&open).filter(|(_, open)| !**open).for_each(|(q, _)| *q = 0.0);
        self.refit(compute, &mut flow, &demand, &open)?;
        let refitted = self.weights_of(flow, &root_costs);
        let weights = open_tubes(refitted, &open, weights, &order);
        unless_stopped(compute)?;
        Ok(Solution { weights, dead_inputs })
    }

    /// The errors of the outputs of `pruned` weights `[rows, cols]` for these inputs, as
    /// [`Problem::output_errors`](crate::activation::Problem::output_errors) gives them.
    ///
    /// # Panics
    /// If the lengths of the slices do not match.
    pub fn output_errors(
        &self,
        compute: &Compute,
        weights: &[f32],
        pruned: &[f32],
    ) -> OutputErrors {
        assert!(weights.len().is_multiple_of(self.cols), "weights: not rows of {}", self.cols);
        let unit = vec![1.0; weights.len() / self.cols];
        output_errors([weights, pruned], |weights| {
            let flow = self.flow_of(weights, &unit);
            // The rounding of single flows has no share in the sum over all of them.
            let damped = self.gram.quadratic_form(compute, &flow, Precision::Coarse);
            damped - self.damping * dot(weights, weights)
        })
    }

    /// b `[rows, cols]`.
    fn demand(
        &self,
        compute: &Compute,
        projection: &Projection<'_>,
        root_costs: &[f32],
        flow: &[f32],
    ) -> Result<Vec<f32>, Unsolved> {
        let cols = self.cols;
        let mut demand = vec![0.0; flow.len()];
        let weights = projection.weights;
        match projection.target {
            Target::Own => {}
            Target::CrossGram(cross) => {
                let compute = &compute.coarse();
                compute.each_chunk(&mut demand, ROWS * cols, |block, demand| {
                    let weights = &weights[block * ROWS * cols..][..demand.len()];
                    let shape = [demand.len() / cols, cols, cols];
                    let cross = Right::AsIs { data: cross, stride: cols };
                    let product = Output { data: demand, stride: cols };
                    compute.multiply(shape, Left { data: weights, stride: cols }, cross, product);
                });
                self.scale_demand(weights, root_costs, &mut demand);
            }
            Target::Outputs(outputs) => {
                demand.copy_from_slice(outputs);
                self.scale_demand(weights, root_costs, &mut demand);
            }
        }
        let share = match projection.target {
            Target::Own => 0.0,
            Target::CrossGram(_) | Target::Outputs(_) => self.parameters.target_share,
        };
        if share < 1.0 {
            compute.each_chunk(&mut demand, ROWS * cols, |block, demand| {
                let flow = &flow[block * ROWS * cols..][..demand.len()];
                let mut own = vec![0.0; demand.len()];
                self.gram.multiply(compute, flow, Precision::Full, &mut own);
                demand.iter_mut().zip(own).for_each(|(b, own)| *b = share.mul_add(*b - own, own));
            });
        }
        unless_stopped(compute)?;
        Ok(demand)
    }

    /// Takes the steps of the dynamics: `flow`, of the weights at first, becomes what each tube is offered at last.
    fn adapt(
        &self,
        compute: &Compute,
        flow: &mut [f32],
        demand: &[f32],
        keep: Keep,
    ) -> Result<(), Unsolved> {
        let (parameters, couplings) = (&self.parameters, self.parameters.couplings());
        let block = ROWS * self.cols;
        for step in 0..parameters.steps {
            unless_stopped(compute)?;
            let level = parameters.level(step);
            let response = (step > 0).then(|| Response {
                threshold: Threshold::of(flow, keep, self.cols),
                exponent: between(parameters.exponent, step - 1, parameters.steps - 1),
                coupling: couplings[level],
                // Pressure is flow times coupling: the same pressure refuses less flow at a higher one.
                refused: couplings[parameters.level(step - 1)] / couplings[level],
            });
            compute.each_chunk(flow, block, |index, flow| {
                let demand = &demand[index * block..][..flow.len()];
                let mut wanted = vec![0.0; flow.len()];
                match &response {
                    // At first, nothing is refused.
                    None => {
                        for ((wanted, b), q) in wanted.iter_mut().zip(demand).zip(&mut *flow) {
                            *wanted = couplings[level].mul_add(*q, *b);
                            *q = 0.0;
                        }
                    }
                    Some(response) => {
                        let wanted = &mut wanted[..];
                        response.split(Tubes { flow, demand, wanted });
                    }
                }
                let mut offered = vec![0.0; flow.len()];
                let solver = &self.solvers[level];
                solver.multiply(compute, &wanted, parameters.precision(step), &mut offered);
                flow.iter_mut().zip(&offered).for_each(|(refused, offered)| *refused += offered);
            });
        }
        unless_stopped(compute)
    }

    /// Refits the flow of the open tubes by steps of conjugate gradients.
    fn refit(
        &self,
        compute: &Compute,
        flow: &mut [f32],
        demand: &[f32],
        open: &[bool],
    ) -> Result<(), Unsolved> {
        let block = ROWS * self.cols;
        let mut unmet = vec![0.0; flow.len()];
        let all = self.parameters.refit_steps;
        for begin in (0..all).step_by(RECOMPUTE) {
            unless_stopped(compute)?;
            compute.each_chunk(&mut unmet, block, |index, unmet| {
                let here = index * block..index * block + unmet.len();
                self.gram.multiply(compute, &flow[here.clone()], Precision::Full, unmet);
                unmet.iter_mut().zip(&demand[here]).for_each(|(unmet, b)| *unmet = b - *unmet);
            });
            let steps = RECOMPUTE.min(all - begin);
            let refit = Refit { compute, gram: &self.gram, cols: self.cols, steps };
            refit.run(Iterate { flow, unmet: &mut unmet }, open);
        }
        Ok(())
    }
}

/// Marks the tubes that stay open. Where the weights have as many zeros as asked for, in all or in a group of a pattern, those
/// are the tubes that close.
fn open(flow: &[f32], keep: Keep, order: &Order<'_>, cols: usize) -> Vec<bool> {
    let ranks = flow.iter().enumerate().map(|(at, q)| order.rank(at, *q, *q));
    let mut open = keep.mask(&ranks.collect::<Vec<_>>(), cols);
    // Without a pattern, all weights are one group.
    let (row, group, kept) = match keep {
        Keep::AllBut(zeros) => {
            let all = flow.len().max(1);
            (all, all, flow.len().saturating_sub(zeros))
        }
        Keep::Pattern { keep, group } => (cols, group, keep),
    };
    let mut begin = 0;
    for open in open.chunks_mut(row).flat_map(|row| row.chunks_mut(group)) {
        let was_open = || (begin..begin + open.len()).map(|at| !order.is_zero(at));
        if was_open().filter(|was_open| *was_open).count() <= kept {
            open.copy_from_slice(&was_open().collect::<Vec<_>>());
        }
        begin += open.len();
    }
    open
}

/// The refitted weights. No open tube's weight becomes zero, and those of dead inputs, about which the text says
/// nothing, are what they were.
fn open_tubes(mut weights: Vec<f32>, open: &[bool], before: &[f32], order: &Order<'_>) -> Vec<f32> {
    for ((at, weight), _) in weights.iter_mut().enumerate().zip(open).filter(|(_, open)| **open) {
        if order.is_dead(at) {
            *weight = before[at];
        } else if !order.is_zero(at) {
            *weight = not_zero(*weight);
        }
    }
    weights
}
