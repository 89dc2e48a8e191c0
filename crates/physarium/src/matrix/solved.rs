//! A matrix by activations: the solvers of a run, with the Gram matrix that the caller has.

use physarium_checkpoint::{Amount, Criterion, Recipe};
use physarium_flow::FloatFormat;
use physarium_flow::activation::{
    FlowNetwork, Inputs, Keep, Problem, Projection, Solution, Target, Unsolved, rounded, sparsegpt,
    wanda,
};
use physarium_model::Compute;

use super::request::{MatrixRequest, fault};
use crate::error::{Error, Result};
use crate::recipe::effort::parameters;

/// Prunes the matrix with the Gram matrix `gram`.
pub(super) fn prune(
    request: &MatrixRequest<'_>,
    recipe: &Recipe,
    gram: &[f32],
    compute: &Compute,
) -> Result<Vec<f32>> {
    let keep = match recipe.method.amount() {
        Amount::Sparsity { sparsity, .. } => {
            Keep::AllBut(sparsity.count(request.elements()) as usize)
        }
        Amount::Pattern(pattern) => Keep::Pattern { keep: pattern.keep(), group: pattern.group() },
        amount => unreachable!("{amount} was refused"),
    };
    let problem =
        Problem { weights: request.weights, inputs: Inputs { cols: request.shape[1], gram } };
    let solution = match recipe.method.criterion() {
        Criterion::Wanda(_) => {
            let squares: Vec<f32> = problem.inputs.diagonal().collect();
            wanda(compute, problem.weights, &squares, keep)
        }
        Criterion::SparseGpt(_) => sparsegpt(compute, &problem, keep),
        Criterion::ActivationFlow { flow, .. } => {
            FlowNetwork::new(compute, gram.to_vec(), parameters(flow)).and_then(|network| {
                let weights = request.weights;
                let projection = Projection { weights, target: Target::Own, output_costs: None };
                network.prune(compute, &projection, keep)
            })
        }
        other => unreachable!("{} does not use activations", other.name()),
    };
    match solution {
        Ok(solution) => in_place_of(request.weights, &solution),
        Err(Unsolved::Stopped) => Err(Error::Stopped),
        Err(Unsolved::NotPositiveDefinite) => {
            Err(fault("gram", "a positive definite matrix", "none after damping"))
        }
    }
}

/// The solved weights as a run would write them.
fn in_place_of(before: &[f32], solution: &Solution) -> Result<Vec<f32>> {
    let bits = |(solved, before): (&f32, &f32)| {
        f32::from_bits(rounded(FloatFormat::F32, before.to_bits(), *solved))
    };
    let weights: Vec<f32> = solution.weights.iter().zip(before).map(bits).collect();
    let beyond = weights.iter().filter(|weight| !weight.is_finite()).count();
    if beyond > 0 {
        let expected = "updated weights within the range of float32";
        return Err(fault("weights", expected, format!("{beyond} beyond it")));
    }
    Ok(weights)
}
