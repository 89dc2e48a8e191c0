//! The arithmetic of a run: from what a recipe or a user names to what computes.

use physarium_checkpoint::{Arithmetic, Recipe};
use physarium_model as model;

use crate::error::Result;

/// A recipe that says its arithmetic: that of this machine, if its method is activation-aware and it does not say.
pub(crate) fn with_arithmetic(mut recipe: Recipe) -> Recipe {
    if recipe.needs().calibration.is_some() {
        recipe.arithmetic.get_or_insert_with(of_machine);
    }
    recipe
}

/// The fastest arithmetic of this machine.
fn of_machine() -> Arithmetic {
    match model::Arithmetic::of_machine() {
        model::Arithmetic::F32 => Arithmetic::F32,
        model::Arithmetic::Bf16 => Arithmetic::Bf16,
        model::Arithmetic::Bf16x2 => Arithmetic::Bf16x2,
    }
}

fn in_kernels(arithmetic: Arithmetic) -> model::Arithmetic {
    match arithmetic {
        Arithmetic::F32 => model::Arithmetic::F32,
        Arithmetic::Bf16 => model::Arithmetic::Bf16,
        Arithmetic::Bf16x2 => model::Arithmetic::Bf16x2,
    }
}

/// Fails if this machine does not have the arithmetic.
///
/// # Errors
/// `Compute`, if it does not.
pub(crate) fn check(arithmetic: Option<Arithmetic>) -> Result<()> {
    let check = |arithmetic| in_kernels(arithmetic).check().map_err(model::ComputeError::from);
    Ok(arithmetic.map_or(Ok(()), check)?)
}

/// Threads that evaluate in an arithmetic, or in the fastest one of this machine. `bf16` rounds in calibrations only: its
/// evaluations are float32.
///
/// # Errors
/// As [`compute`].
pub(crate) fn evaluating(threads: usize, arithmetic: Option<Arithmetic>) -> Result<model::Compute> {
    let arithmetic = match arithmetic.unwrap_or_else(of_machine) {
        Arithmetic::F32 | Arithmetic::Bf16 => Arithmetic::F32,
        Arithmetic::Bf16x2 => Arithmetic::Bf16x2,
    };
    compute(threads, Some(arithmetic))
}

/// Threads that compute in an arithmetic, or in the fastest one of this machine.
///
/// # Errors
/// `Compute`, if the machine does not have it, or cannot start the threads.
pub(crate) fn compute(threads: usize, arithmetic: Option<Arithmetic>) -> Result<model::Compute> {
    let arithmetic = in_kernels(arithmetic.unwrap_or_else(of_machine));
    Ok(model::Compute::with_arithmetic(threads, arithmetic)?)
}
