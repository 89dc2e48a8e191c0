/*!
Options of a recipe: their defaults, and which of them can be combined.

In: options by the names that the command line and other programs use, each absent unless the user gave it. Out: a
[`Recipe`], or a [`RecipeError`] that names the option at fault. An option that would have no effect is an error; it
is never ignored: the table ([`Case`]) says what goes with what.
*/

use std::path::Path;

use physarium_checkpoint::{
    Amount, Arithmetic, Calibration, Criterion, FlowRecipe, Method, NmPattern, NonFinite, Price,
    Recipe, Scope, Sparsity,
};
use physarium_flow::FlowParams;

use crate::calibration::CalibrationText;
use crate::error::Error;
use crate::recipe::arithmetic::with_arithmetic;
use crate::recipe::effort::Effort;
use crate::recipe::error::{MethodName, RecipeError, RecipeOption, ScopeName};
use crate::recipe::table::Case;

/// Default side length of a tile, in weights.
const DEFAULT_BLOCK_SIZE: u64 = 256;
/// Default price of the activation flow, if nothing else sets the sparsity.
const DEFAULT_PRICE: f64 = 0.02;

/// How a sparsity is spread over the targets of an activation-aware method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// The same sparsity for each tensor.
    Uniform,
    /// One model-wide budget, spent where predictions suffer least.
    Flow,
}

/// Options of a recipe. `None` and empty lists stand for options that the user did not give.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecipeOptions {
    /// Pruning method.
    pub method: MethodName,
    /// Fraction of weights to zero.
    pub sparsity: Option<Sparsity>,
    /// Pattern N:M: N weights are kept of each M consecutive inputs.
    pub pattern: Option<NmPattern>,
    /// How the sparsity is spread over the targets of an activation-aware method. Default: uniform.
    pub allocation: Option<Allocation>,
    /// Importance threshold, as a multiple of the mean, of an activation-aware method. Default for the activation
    /// flow without sparsity and pattern: 0.02.
    pub price: Option<Price>,
    /// How much computation the activation flow spends. Default: standard.
    pub effort: Option<Effort>,
    /// Scope of the sparsity. Default: tile for the magnitude flow, tensor for magnitude.
    pub scope: Option<ScopeName>,
    /// Side length of the tiles, in weights. Default: 256.
    pub block_size: Option<u64>,
    /// Steps of the magnitude flow. Default: 30.
    pub iterations: Option<u32>,
    /// Exponent of the magnitude flow's response. Default: 2.
    pub beta: Option<f64>,
    /// Mean flow per tube of the magnitude flow. Default: 5.16.
    pub inflow: Option<f64>,
    /// Part of the calibration text that an activation-aware method uses.
    pub calibration: CalibrationOptions,
    /// Arithmetic of an activation-aware method. Default: the fastest one of the machine.
    pub arithmetic: Option<Arithmetic>,
    /// Globs on the names of tensors to prune. Default: the projections of attention and MLP.
    pub target: Vec<String>,
    /// Globs on the names of tensors to leave unchanged.
    pub skip: Vec<String>,
    /// What to do with NaN and infinite weights. Default: refuse the checkpoint.
    pub non_finite: Option<NonFinite>,
}

/// The part of a calibration text that an activation-aware method uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CalibrationOptions {
    /// Tokens to use, in whole windows. Default: [`RecipeOptions::default_tokens`], or all of a shorter text.
    pub tokens: Option<u64>,
    /// Tokens of a window. Default: 2048, or the model's maximum, or the length of a shorter text.
    pub window: Option<u64>,
    /// Seed of the choice of windows, if the text has more than needed. Default: 0.
    pub seed: Option<u64>,
}

impl CalibrationOptions {
    /// The options with their defaults for `text` and the checkpoint in `model`; `default_tokens` where the user did not say
    /// how many.
    ///
    /// # Errors
    /// `Model` and `Checkpoint` for faults in the model's config and tokenizer.
    pub fn resolve(
        &self,
        model: &Path,
        text: &CalibrationText,
        default_tokens: u64,
    ) -> Result<Calibration, Error> {
        let seed = self.seed.unwrap_or(0);
        if let (Some(tokens), Some(window)) = (self.tokens, self.window) {
            return Ok(text.calibration(tokens, window, seed));
        }
        let wanted = self.tokens.unwrap_or(default_tokens);
        let available = text.available(model, wanted)?;
        let window = self.window.unwrap_or_else(|| available.default_window(self.tokens));
        let tokens = self.tokens.unwrap_or_else(|| available.tokens(wanted, window));
        Ok(text.calibration(tokens, window, seed))
    }

    /// The options that the user gave.
    pub fn given(&self) -> Vec<RecipeOption> {
        given(&[
            (RecipeOption::CalibrationTokens, self.tokens.is_some()),
            (RecipeOption::Window, self.window.is_some()),
            (RecipeOption::Seed, self.seed.is_some()),
        ])
    }
}

fn given(options: &[(RecipeOption, bool)]) -> Vec<RecipeOption> {
    options.iter().filter(|(_, given)| *given).map(|(option, _)| *option).collect()
}

impl RecipeOptions {
    /// The recipe for the checkpoint in `model`.
    ///
    /// An activation-aware method needs `text`, which [`Surgery::calibrate`](crate::Surgery::calibrate) is given
    /// too. Other methods do not use it.
    ///
    /// # Errors
    /// `Recipe` for options that cannot be combined; `Model` and `Checkpoint` for faults in the model's config and
    /// tokenizer.
    pub fn recipe(&self, model: &Path, text: Option<&CalibrationText>) -> Result<Recipe, Error> {
        let calibration = match text {
            Some(text) if self.method.is_activation_aware() => {
                // Options first: reading a tokenizer takes a second.
                self.check()?;
                self.calibrated_amount()?;
                Some(self.calibration.resolve(model, text, self.default_tokens())?)
            }
            _ => None,
        };
        Ok(self.build(calibration)?)
    }

    /// Calibration tokens to use if [`CalibrationOptions::tokens`] does not say how many; those of the effort.
    pub fn default_tokens(&self) -> u64 {
        self.effort.unwrap_or_default().calibration_tokens()
    }

    /// The recipe with this calibration, which an activation-aware method needs. Other methods do not use it.
    ///
    /// # Errors
    /// `Conflict` for options that exclude each other, `NoEffect` for an option that the method does not use,
    /// `Missing` for an option that it needs.
    pub fn build(&self, calibration: Option<Calibration>) -> Result<Recipe, RecipeError> {
        self.check()?;
        if let MethodName::MagnitudeFlow | MethodName::Magnitude = self.method {
            let (criterion, amount) = self.weights_only()?;
            return Ok(self.with(criterion, amount));
        }
        let amount = self.calibrated_amount()?;
        let missing = || self.missing(vec![RecipeOption::Calibration]);
        let calibration = calibration.ok_or_else(missing)?;
        let criterion = match self.method {
            MethodName::Wanda => Criterion::Wanda(calibration),
            MethodName::SparseGpt => Criterion::SparseGpt(calibration),
            _ => {
                let flow = Some(self.effort.unwrap_or_default().steps());
                Criterion::ActivationFlow { calibration, flow }
            }
        };
        Ok(self.with(criterion, amount))
    }

    /// The options that the user gave, without the method, targets and calibration text.
    pub fn given(&self) -> Vec<RecipeOption> {
        let mut all = self.amounts_given();
        all.extend(given(&[
            (RecipeOption::Allocation, self.allocation.is_some()),
            (RecipeOption::Effort, self.effort.is_some()),
            (RecipeOption::Scope, self.scope.is_some()),
            (RecipeOption::BlockSize, self.block_size.is_some()),
            (RecipeOption::Iterations, self.iterations.is_some()),
            (RecipeOption::Beta, self.beta.is_some()),
            (RecipeOption::Inflow, self.inflow.is_some()),
            (RecipeOption::Arithmetic, self.arithmetic.is_some()),
            (RecipeOption::AllowNonfinite, self.non_finite == Some(NonFinite::Keep)),
        ]));
        all.extend(self.calibration.given());
        all
    }

    /// The options that the user gave, of those that set the amount.
    fn amounts_given(&self) -> Vec<RecipeOption> {
        given(&[
            (RecipeOption::Sparsity, self.sparsity.is_some()),
            (RecipeOption::Pattern, self.pattern.is_some()),
            (RecipeOption::Price, self.price.is_some()),
        ])
    }

    /// The case of these options in the table of what goes with what.
    fn case(&self) -> Case {
        let amount = self.amounts_given().first().copied();
        Case { method: self.method, amount, scope: self.scope }
    }

    /// Fails for options that exclude each other, and for those that would have no effect.
    fn check(&self) -> Result<(), RecipeError> {
        if let [with, option, ..] = self.amounts_given()[..] {
            return Err(RecipeError::Conflict { option, with });
        }
        let case = self.case();
        for option in self.given() {
            case.effect_of(option).map_err(|why| RecipeError::NoEffect { option, why })?;
        }
        Ok(())
    }

    fn missing(&self, one_of: Vec<RecipeOption>) -> RecipeError {
        RecipeError::Missing { method: self.method, one_of }
    }

    /// The recipe of a criterion and an amount, with the options that all methods share.
    fn with(&self, criterion: Criterion, amount: Amount) -> Recipe {
        with_arithmetic(Recipe {
            method: Method::new(criterion, amount)
                .expect("options give each criterion its amounts"),
            target: self.target.clone(),
            skip: self.skip.clone(),
            non_finite: self.non_finite.unwrap_or(NonFinite::Refuse),
            arithmetic: self.arithmetic,
        })
    }

    /// Criterion and amount of a method that uses magnitudes only.
    fn weights_only(&self) -> Result<(Criterion, Amount), RecipeError> {
        match (self.method, self.sparsity, self.pattern) {
            (_, Some(sparsity), _) => {
                let amount = Amount::Sparsity { sparsity, scope: self.exact_scope() };
                Ok((Criterion::Magnitude, amount))
            }
            (_, None, Some(pattern)) => Ok((Criterion::Magnitude, Amount::Pattern(pattern))),
            (MethodName::MagnitudeFlow, None, None) => Ok((self.flow(), Amount::Emergent)),
            (_, None, None) => Err(self.missing(self.case().amounts())),
        }
    }

    /// The amount of an activation-aware method.
    fn calibrated_amount(&self) -> Result<Amount, RecipeError> {
        match (self.sparsity, self.pattern, self.price) {
            (Some(sparsity), ..) => {
                let scope = match self.allocation {
                    Some(Allocation::Flow) => Scope::Model,
                    Some(Allocation::Uniform) | None => Scope::Tensor,
                };
                Ok(Amount::Sparsity { sparsity, scope })
            }
            (_, Some(pattern), _) => Ok(Amount::Pattern(pattern)),
            (.., Some(price)) => Ok(Amount::Price(price)),
            _ if self.method == MethodName::ActivationFlow => {
                Ok(Amount::Price(Price::try_from(DEFAULT_PRICE).expect("above 0")))
            }
            _ => Err(self.missing(self.case().amounts())),
        }
    }

    /// The scope of a sparsity by magnitudes.
    fn exact_scope(&self) -> Scope {
        match self.scope.unwrap_or(ScopeName::by_default(self.method)) {
            ScopeName::Tile => Scope::Tile { block_size: self.block_size() },
            ScopeName::Tensor => Scope::Tensor,
            ScopeName::Model => Scope::Model,
        }
    }

    /// The magnitude flow with its parameters.
    fn flow(&self) -> Criterion {
        let flow = FlowRecipe {
            iterations: self.iterations.unwrap_or(FlowParams::DEFAULT_ITERATIONS),
            beta: self.beta.unwrap_or(FlowParams::DEFAULT_BETA),
            inflow: self.inflow.unwrap_or(FlowParams::DEFAULT_INFLOW),
        };
        Criterion::MagnitudeFlow { block_size: self.block_size(), flow }
    }

    fn block_size(&self) -> u64 {
        self.block_size.unwrap_or(DEFAULT_BLOCK_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparsity() -> Option<Sparsity> {
        Sparsity::try_from(0.5).ok()
    }

    #[test]
    fn the_default_is_the_magnitude_flow() {
        let recipe = RecipeOptions::default().build(None).expect("a recipe");
        assert_eq!(recipe.needs().tile_edge, Some(256));
        assert!(matches!(recipe.method.criterion(), Criterion::MagnitudeFlow { .. }));
        assert_eq!(recipe.method.amount(), Amount::Emergent);
    }

    #[test]
    fn defaults_depend_on_the_method() {
        let scope = |method| {
            let options =
                RecipeOptions { method, sparsity: sparsity(), ..RecipeOptions::default() };
            options.build(None).expect("a recipe").method.amount()
        };
        let over = |scope| Amount::Sparsity { sparsity: sparsity().expect("a share"), scope };
        assert_eq!(scope(MethodName::MagnitudeFlow), over(Scope::Tile { block_size: 256 }));
        assert_eq!(scope(MethodName::Magnitude), over(Scope::Tensor));
    }

    #[test]
    fn an_option_without_effect_is_an_error() {
        let none = RecipeOptions::default();
        let error = |options: RecipeOptions| options.build(None).expect_err("an error").to_string();
        let magnitude = RecipeOptions { method: MethodName::Magnitude, ..none.clone() };
        assert_eq!(error(magnitude.clone()), "method magnitude needs sparsity or pattern");
        assert_eq!(
            error(RecipeOptions { beta: Some(2.0), sparsity: sparsity(), ..none.clone() }),
            "beta has no effect: sparsity sets the sparsity, and no flow runs"
        );
        assert_eq!(
            error(RecipeOptions { block_size: Some(8), sparsity: sparsity(), ..magnitude }),
            "block_size has no effect: the method does not use tiles"
        );
        assert_eq!(
            error(RecipeOptions { scope: Some(ScopeName::Model), ..none.clone() }),
            "scope has no effect without sparsity"
        );
        let pattern = "2:4".parse().ok();
        assert_eq!(
            error(RecipeOptions { pattern, sparsity: sparsity(), ..none.clone() }),
            "pattern cannot be combined with sparsity"
        );
        let calibration = CalibrationOptions { seed: Some(1), ..CalibrationOptions::default() };
        let options = RecipeOptions { calibration, ..none };
        let spelled = options.build(None).expect_err("an error");
        let spelled = spelled.message(|option| format!("--{}", option.name()));
        assert_eq!(spelled, "--seed has no effect: the method does not use calibration");
    }
}
