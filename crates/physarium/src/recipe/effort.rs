//! The effort of the activation flow: how many steps it takes.

use physarium_checkpoint::{Criterion, FlowSteps};
use physarium_flow::activation::ActivationFlow;

/// How far the activation flow goes from a projection's own outputs to those of the dense model. Chosen by perplexity on text
/// that was neither calibrated nor evaluated on (docs/ALGORITHM.md).
const TARGET_SHARE: f64 = 0.6;

/// How much of what the pruned residual stream lacks is added to the outputs of the dense model, chosen likewise.
const STREAM_SHARE: f64 = 1.0;

/// Damping of the activation flow, chosen likewise.
const DAMPING: f64 = 0.02;

/// How much computation the activation flow spends on the quality of the result. The recipe names what it comes to
/// ([`Effort::steps`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Effort {
    /// The fewest steps and calibration tokens that are worth taking.
    Quick,
    /// Most of the quality that more steps give.
    #[default]
    Standard,
    /// Twice the steps, for a lower error of each layer. docs/ALGORITHM.md says what that is worth.
    Best,
}

impl Effort {
    /// All of them, in ascending order.
    pub const ALL: [Effort; 3] = [Effort::Quick, Effort::Standard, Effort::Best];

    /// Its name on the command line.
    pub fn text(self) -> &'static str {
        match self {
            Effort::Quick => "quick",
            Effort::Standard => "standard",
            Effort::Best => "best",
        }
    }

    /// The parameters that a recipe names.
    pub fn steps(self) -> FlowSteps {
        let (steps, coupling, exponent) = match self {
            Effort::Quick => (4, 0.5, [2.0, 16.0]),
            Effort::Standard => (6, 0.5, [2.0, 32.0]),
            Effort::Best => (12, 0.4, [1.4, 32.0]),
        };
        FlowSteps {
            steps,
            coupling: [coupling; 2],
            levels: 1,
            exponent,
            refit_steps: steps,
            target_share: TARGET_SHARE,
            stream_share: STREAM_SHARE,
            damping: DAMPING,
        }
    }

    /// Calibration tokens to use if the user does not say how many. Fewer of them cost more quality than fewer steps do
    /// (docs/ALGORITHM.md).
    pub fn calibration_tokens(self) -> u64 {
        match self {
            Effort::Quick => 32_768,
            Effort::Standard | Effort::Best => 131_072,
        }
    }

    /// The effort that has these parameters, if one has.
    pub fn of(steps: &FlowSteps) -> Option<Effort> {
        Effort::ALL.into_iter().find(|effort| effort.steps() == *steps)
    }
}

/// The parameters of a recipe, for the solver.
///
/// # Panics
/// If there are none, as in records of earlier dynamics: [`check_recipe`](crate::check_recipe) refuses to run those.
pub(crate) fn parameters(steps: Option<FlowSteps>) -> ActivationFlow {
    let steps = steps.expect("a recipe that is run says its flow");
    ActivationFlow {
        steps: steps.steps as usize,
        coupling: steps.coupling.map(|coupling| coupling as f32),
        levels: steps.levels as usize,
        exponent: steps.exponent.map(|exponent| exponent as f32),
        refit_steps: steps.refit_steps as usize,
        target_share: steps.target_share as f32,
        damping: steps.damping,
    }
}

/// The part of the difference between the residual streams that maps which add to them are to make up for.
pub(crate) fn stream_share(criterion: Criterion) -> f32 {
    match criterion {
        Criterion::ActivationFlow { flow: Some(flow), .. } => flow.stream_share as f32,
        _ => 0.0,
    }
}
