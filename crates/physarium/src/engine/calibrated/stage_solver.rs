//! Solves the targets of one stage, which have the same inputs.

use physarium_checkpoint::{Criterion, PlannedTensor};
use physarium_flow::activation::{
    FlowNetwork, Keep, Problem, Solution, Unsolved, sparsegpt, wanda,
};
use physarium_model::{Compute, Dense};

use super::narrow::narrow;
use super::statistics::Statistics;
use crate::engine::solved::{SolutionStats, SolvedMap};
use crate::error::{Error, Result};
use crate::recipe::effort::parameters;

/// The statistics of a stage, prepared for a method. The only place that distinguishes the activation-aware methods.
pub(super) struct StageSolver<'a> {
    compute: &'a Compute,
    statistics: &'a Statistics,
    prepared: Prepared,
}

/// What a method prepares for all targets of a stage.
enum Prepared {
    Wanda,
    SparseGpt,
    ActivationFlow(Box<FlowNetwork>),
}

/// One target of the stage.
pub(super) struct Wanted<'a, 'b> {
    pub target: &'a PlannedTensor,
    pub weights: &'b Dense,
    pub keep: Keep,
    /// How much predictions depend on each output, for methods that use it.
    pub output_costs: Option<Vec<f32>>,
}

impl<'a> StageSolver<'a> {
    /// Prepares the statistics of a stage. `first`: a target of the stage, which errors name.
    ///
    /// # Errors
    /// `Unsolvable` for activations that the method cannot use; `Checkpoint` if the work was stopped.
    pub fn new(
        compute: &'a Compute,
        criterion: Criterion,
        statistics: &'a Statistics,
        first: &PlannedTensor,
    ) -> Result<StageSolver<'a>> {
        if !statistics.are_finite() {
            return Err(unsolvable(
                first,
                "expected finite activations, found NaN or infinite ones on this text",
            ));
        }
        let prepared = match criterion {
            Criterion::Wanda(_) => Prepared::Wanda,
            Criterion::SparseGpt(_) => Prepared::SparseGpt,
            Criterion::ActivationFlow { flow, .. } => {
                let flow = parameters(flow);
                let network = FlowNetwork::new(compute, &statistics.inputs(), flow);
                Prepared::ActivationFlow(Box::new(network.map_err(|why| unsolved(first, why))?))
            }
            other => unreachable!("{} does not use activations", other.name()),
        };
        Ok(StageSolver { compute, statistics, prepared })
    }

    /// Solves one target.
    ///
    /// # Errors
    /// `Unsolvable` for weights that the method cannot use; `Checkpoint` if the work was stopped.
    pub fn solve<'t>(&self, wanted: Wanted<'t, '_>) -> Result<SolvedMap<'t>> {
        let Wanted { target, weights, keep, output_costs } = wanted;
        let mut wide = vec![0.0; weights.len()];
        weights.widen(0, &mut wide);
        if wide.iter().any(|weight| !weight.is_finite()) {
            return Err(unsolvable(target, "expected finite weights, found NaN or infinite ones"));
        }
        let problem = Problem {
            weights: &wide,
            inputs: self.statistics.inputs(),
            target: self.statistics.target(),
            output_costs: output_costs.as_deref(),
        };
        let solution = self.solution(&problem, keep).map_err(|why| unsolved(target, why))?;
        let weights =
            narrow(&solution.weights, weights).map_err(|found| unsolvable(target, &found))?;
        // The error of the rounded weights, which the model computes with.
        let mut pruned = solution.weights;
        weights.widen(0, &mut pruned);
        let output_error = match &self.prepared {
            Prepared::ActivationFlow(network) => {
                network.output_error(self.compute, &problem, &pruned)
            }
            Prepared::Wanda | Prepared::SparseGpt => problem.output_error(self.compute, &pruned),
        };
        if self.compute.is_stopped() {
            return Err(unsolved(target, Unsolved::Stopped));
        }
        if !output_error.is_finite() {
            return Err(unsolvable(
                target,
                "expected outputs within the range of float32, found larger ones",
            ));
        }
        let stats = SolutionStats { dead_inputs: solution.dead_inputs as u64, output_error };
        Ok(SolvedMap { target, weights, stats })
    }

    fn solution(&self, problem: &Problem<'_>, keep: Keep) -> Result<Solution, Unsolved> {
        match &self.prepared {
            Prepared::Wanda => wanda(self.compute, problem, keep),
            Prepared::SparseGpt => sparsegpt(self.compute, problem, keep),
            Prepared::ActivationFlow(network) => network.prune(self.compute, problem, keep),
        }
    }
}

fn unsolved(target: &PlannedTensor, why: Unsolved) -> Error {
    match why {
        Unsolved::Stopped => physarium_checkpoint::Error::Interrupted.into(),
        Unsolved::NotPositiveDefinite => {
            unsolvable(target, "expected a positive definite Gram matrix, found none after damping")
        }
    }
}

fn unsolvable(target: &PlannedTensor, what: &str) -> Error {
    Error::Unsolvable { tensor: target.input.name.clone(), what: what.to_owned() }
}
