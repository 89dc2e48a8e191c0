/*!
Pruning of one matrix in memory, for pipelines that have their own files and their own calibration.

In: float32 weights `[out_features, in_features]`, for an activation-aware method also the Gram matrix of the inputs, and
options of a recipe. Out: new weights of the same shape. Nothing is read or written; the result is what a run would
make of a projection with these weights and this Gram matrix.
*/

mod request;
mod solved;
mod weights_only;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::recipe::arithmetic;
pub use request::MatrixRequest;

/// Prunes a matrix. Returns its new weights `[out_features, in_features]`; pruned ones are +0.0.
///
/// # Errors
/// `Recipe` and `Usage` for options that cannot be combined, are out of range or need a whole model; `Matrix` for weights and
/// Gram matrices of another shape, or with NaN or infinite numbers; `Compute` if the machine lacks the arithmetic or threads;
/// `Stopped` when `cancel` is raised.
pub fn prune_matrix(request: &MatrixRequest<'_>, cancel: &Cancel) -> Result<Vec<f32>> {
    let recipe = request.recipe()?;
    request.check(recipe.non_finite)?;
    let compute = arithmetic::compute(request.threads, recipe.arithmetic)?;
    let compute = compute.stopping_when(cancel.asked());
    let pruned = match request.gram {
        Some(gram) => solved::prune(request, &recipe, gram, &compute)?,
        None => weights_only::prune(request, &recipe, &compute)?,
    };
    if compute.is_stopped() { Err(Error::Stopped) } else { Ok(pruned) }
}
