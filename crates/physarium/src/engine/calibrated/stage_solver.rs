//! Solves the targets of one stage, which have the same inputs.

use physarium_checkpoint::{Criterion, PlannedTensor};
use physarium_flow::activation::{
    FlowNetwork, InputRows, Inputs, Keep, Problem, Projection, Solution, Target, Unsolved,
    sparsegpt, wanda,
};
use physarium_model::{Compute, Dense};

use super::narrow::narrow;
use super::squares::Squares;
use super::statistics::{DenseMeans, InputMeans, Statistics};
use crate::engine::solved::SolutionStats;
use crate::error::{Error, Result};
use crate::recipe::effort::parameters;

/// The statistics of a stage, prepared for a method. The only place that distinguishes the activation-aware methods.
pub(crate) struct StageSolver<'a> {
    compute: &'a Compute,
    prepared: Prepared,
}

/// What a method prepares for all targets of a stage.
enum Prepared {
    Wanda(Squares),
    /// The Gram matrix.
    SparseGpt(Vec<f32>),
    ActivationFlow(Box<FlowNetwork>, DenseMeans),
}

/// One target of the stage.
pub(crate) struct Wanted<'a> {
    pub target: &'a PlannedTensor,
    pub weights: &'a Dense,
    pub keep: Keep,
    /// How much predictions depend on each output, for methods that use it.
    pub output_costs: Option<&'a [f32]>,
}

impl<'a> StageSolver<'a> {
    /// Prepares the statistics of a stage. `first`: a target of the stage, which errors name.
    ///
    /// # Errors
    /// `Unsolvable` for activations that the method cannot use; `Checkpoint` if the work was stopped.
    pub fn new(
        compute: &'a Compute,
        criterion: Criterion,
        statistics: Statistics,
        first: &PlannedTensor,
    ) -> Result<StageSolver<'a>> {
        if !statistics.are_finite() {
            return Err(unsolvable(
                first,
                "expected finite activations, found NaN or infinite ones on this text",
            ));
        }
        let prepared = match (criterion, statistics.inputs) {
            (Criterion::Wanda(_), InputMeans::Squares(squares)) => Prepared::Wanda(squares),
            (Criterion::SparseGpt(_), InputMeans::Gram(gram)) => Prepared::SparseGpt(gram),
            (Criterion::ActivationFlow { flow, .. }, InputMeans::Gram(gram)) => {
                let flow = parameters(flow);
                let network = FlowNetwork::new(compute, gram, flow);
                let network = network.map_err(|why| unsolved(first, why))?;
                Prepared::ActivationFlow(Box::new(network), statistics.dense)
            }
            (other, _) => unreachable!("{} needs other statistics", other.name()),
        };
        Ok(StageSolver { compute, prepared })
    }

    /// Solves one target: its weights, and what there is to say of them.
    ///
    /// # Errors
    /// `Unsolvable` for weights that the method cannot use; `Checkpoint` if the work was stopped.
    pub fn solve(&self, wanted: Wanted<'_>) -> Result<(Dense, SolutionStats)> {
        let Wanted { target, weights, keep, output_costs } = wanted;
        let mut wide = vec![0.0; weights.len()];
        weights.widen(0, &mut wide);
        if wide.iter().any(|weight| !weight.is_finite()) {
            return Err(unsolvable(target, "expected finite weights, found NaN or infinite ones"));
        }
        let solution = self.solution(&wide, keep, output_costs);
        let solution = solution.map_err(|why| unsolved(target, why))?;
        let weights =
            narrow(&solution.weights, weights).map_err(|found| unsolvable(target, &found))?;
        // The error of the rounded weights, which the model computes with.
        let mut pruned = solution.weights;
        weights.widen(0, &mut pruned);
        let errors = match &self.prepared {
            Prepared::ActivationFlow(network, _) => {
                network.output_errors(self.compute, &wide, &pruned)
            }
            Prepared::Wanda(squares) => {
                let rows = InputRows { cols: squares.sums.len(), rows: &squares.sample };
                rows.output_errors(self.compute, [&wide, &pruned])
            }
            Prepared::SparseGpt(gram) => problem(&wide, gram).output_errors(self.compute, &pruned),
        };
        if self.compute.is_stopped() {
            return Err(unsolved(target, Unsolved::Stopped));
        }
        if !(errors.after.is_finite() && errors.before_update.is_finite()) {
            return Err(unsolvable(
                target,
                "expected outputs within the range of float32, found larger ones",
            ));
        }
        let stats = SolutionStats {
            dead_inputs: solution.dead_inputs as u64,
            output_error: errors.after,
            error_before_update: errors.before_update,
        };
        Ok((weights, stats))
    }

    fn solution(
        &self,
        weights: &[f32],
        keep: Keep,
        output_costs: Option<&[f32]>,
    ) -> Result<Solution, Unsolved> {
        match &self.prepared {
            Prepared::Wanda(squares) => wanda(self.compute, weights, &squares.sums, keep),
            Prepared::SparseGpt(gram) => sparsegpt(self.compute, &problem(weights, gram), keep),
            Prepared::ActivationFlow(network, dense) => {
                let target = match dense {
                    DenseMeans::Unused => Target::Own,
                    DenseMeans::Inputs(means) => Target::CrossGram(means),
                    DenseMeans::Outputs(means) => Target::Outputs(means),
                };
                let projection = Projection { weights, target, output_costs };
                network.prune(self.compute, &projection, keep)
            }
        }
    }
}

fn problem<'a>(weights: &'a [f32], gram: &'a [f32]) -> Problem<'a> {
    Problem { weights, inputs: Inputs { cols: gram.len().isqrt(), gram } }
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
