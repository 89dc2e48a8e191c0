/*!
From what a user asks for to a recipe: defaults, and which options go together.

In: options by the names that the command line and other programs use, each absent unless the user gave it.
Out: a [`Recipe`], or a [`RecipeError`] that names the option at fault. An option that would have no effect
is an error, never ignored.
*/

use std::path::Path;

use physarium_checkpoint::{
    Amount, Calibration, Criterion, FlowRecipe, Method, NmPattern, NonFinite, Price, Recipe, Scope,
    Sparsity,
};
use physarium_flow::FlowParams;

use crate::calibration::{CalibrationText, default_window};
use crate::error::Error;
use crate::recipe::error::{MethodName, NoEffect, RecipeError, RecipeOption};

/// Side length of a tile unless the user says otherwise, in weights.
const DEFAULT_BLOCK_SIZE: u64 = 256;
/// Tokens that statistics come from unless the user says otherwise.
const DEFAULT_CALIBRATION_TOKENS: u64 = 131_072;
/// Price of a weight where nothing else sets the sparsity.
const DEFAULT_PRICE: f64 = 0.02;

/// How one sparsity is spread over the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// The same share of each tensor.
    Uniform,
    /// One budget for the model, spent where predictions suffer least.
    Flow,
}

/// Over what an exact sparsity is taken, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeName {
    /// Each tile by itself.
    Tile,
    /// Each matrix by itself.
    Tensor,
    /// All targets together.
    Model,
}

/// What a user may ask for. `None` and empty: nothing was asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecipeOptions {
    /// Pruning method.
    pub method: MethodName,
    /// Fraction of weights to zero.
    pub sparsity: Option<Sparsity>,
    /// N kept of each M consecutive inputs.
    pub pattern: Option<NmPattern>,
    /// How the sparsity is spread over the targets.
    pub allocation: Option<Allocation>,
    /// Importance threshold where neither sparsity nor pattern is given.
    pub price: Option<Price>,
    /// Over what the sparsity is taken.
    pub scope: Option<ScopeName>,
    /// Side length of the tiles.
    pub block_size: Option<u64>,
    /// Steps of the magnitude flow.
    pub iterations: Option<u32>,
    /// Exponent of the magnitude flow's response.
    pub beta: Option<f64>,
    /// Mean flow per tube of the magnitude flow.
    pub inflow: Option<f64>,
    /// What of the calibration text is used.
    pub calibration: CalibrationOptions,
    /// Globs on tensor names; empty means the default projections.
    pub target: Vec<String>,
    /// Globs on tensor names that are left alone.
    pub skip: Vec<String>,
    /// What NaN and infinite weights do; refused unless the user says otherwise.
    pub non_finite: Option<NonFinite>,
}

/// What of a calibration text is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CalibrationOptions {
    /// Tokens, in whole windows.
    pub tokens: Option<u64>,
    /// Tokens of a window.
    pub window: Option<u64>,
    /// Seed of the choice of windows.
    pub seed: Option<u64>,
}

impl CalibrationOptions {
    /// What of `text` is used for the checkpoint in `model`: by default 131,072 tokens, of the bundled text all
    /// that it has, in windows of 2048 or the model's maximum.
    ///
    /// # Errors
    /// What is wrong with the model's config or tokenizer.
    pub fn resolve(&self, model: &Path, text: &CalibrationText) -> Result<Calibration, Error> {
        let window = match self.window {
            Some(window) => window,
            None => default_window(model)?,
        };
        let tokens = match self.tokens {
            Some(tokens) => tokens,
            None if text.is_bundled() => {
                text.available(model, window)?.min(DEFAULT_CALIBRATION_TOKENS)
            }
            None => DEFAULT_CALIBRATION_TOKENS,
        };
        Ok(text.calibration(tokens, window, self.seed.unwrap_or(0)))
    }

    /// The first option that was given.
    pub fn given(&self) -> Option<RecipeOption> {
        first_given(&[
            (RecipeOption::CalibrationTokens, self.tokens.is_some()),
            (RecipeOption::Window, self.window.is_some()),
            (RecipeOption::Seed, self.seed.is_some()),
        ])
    }
}

fn first_given(options: &[(RecipeOption, bool)]) -> Option<RecipeOption> {
    options.iter().find(|(_, given)| *given).map(|(option, _)| *option)
}

impl RecipeOptions {
    /// The recipe for the checkpoint in `model`. An activation-aware method is calibrated on `text`, which
    /// [`Surgery::calibrate`](crate::Surgery::calibrate) is given too.
    ///
    /// # Errors
    /// `Recipe` for options that do not go together; what is wrong with the model's config or tokenizer.
    ///
    /// # Panics
    /// If an activation-aware method is given no text.
    pub fn recipe(&self, model: &Path, text: Option<&CalibrationText>) -> Result<Recipe, Error> {
        if !self.method.is_activation_aware() {
            return Ok(self.build(None)?);
        }
        let text = text.expect("an activation-aware method has a calibration text");
        // Options first: reading a tokenizer takes a second.
        self.refuse_conflicts()?;
        self.calibrated_amount()?;
        Ok(self.build(Some(self.calibration.resolve(model, text)?))?)
    }

    /// The recipe, with what an activation-aware method is calibrated on.
    ///
    /// # Errors
    /// For options that do not go together, or have no effect.
    ///
    /// # Panics
    /// If an activation-aware method is given no calibration.
    pub fn build(&self, calibration: Option<Calibration>) -> Result<Recipe, RecipeError> {
        self.refuse_conflicts()?;
        let (criterion, amount) = match self.method {
            MethodName::MagnitudeFlow | MethodName::Magnitude => self.weights_only()?,
            MethodName::Wanda | MethodName::SparseGpt | MethodName::ActivationFlow => {
                let calibration = calibration.expect("an activation-aware method is calibrated");
                let criterion = match self.method {
                    MethodName::Wanda => Criterion::Wanda(calibration),
                    MethodName::SparseGpt => Criterion::SparseGpt(calibration),
                    _ => Criterion::ActivationFlow(calibration),
                };
                (criterion, self.calibrated_amount()?)
            }
        };
        Ok(Recipe {
            method: Method::new(criterion, amount)
                .expect("options give each criterion its amounts"),
            target: self.target.clone(),
            skip: self.skip.clone(),
            non_finite: self.non_finite.unwrap_or(NonFinite::Refuse),
        })
    }

    fn refuse_conflicts(&self) -> Result<(), RecipeError> {
        let conflicts = [
            (RecipeOption::Sparsity, self.sparsity.is_some()),
            (RecipeOption::Pattern, self.pattern.is_some()),
            (RecipeOption::Price, self.price.is_some()),
        ];
        let mut given = conflicts.into_iter().filter(|(_, given)| *given);
        if let (Some((with, _)), Some((option, _))) = (given.next(), given.next()) {
            return Err(RecipeError::Conflict { option, with });
        }
        let only_with_sparsity = first_given(&[
            (RecipeOption::Allocation, self.allocation.is_some()),
            (RecipeOption::Scope, self.scope.is_some()),
        ]);
        match (only_with_sparsity, self.sparsity) {
            (Some(option), None) => {
                Err(RecipeError::NoEffect { option, why: NoEffect::WithoutSparsity })
            }
            _ => Ok(()),
        }
    }

    /// A method that uses magnitudes only.
    fn weights_only(&self) -> Result<(Criterion, Amount), RecipeError> {
        let given = self.calibration.given().or(first_given(&[
            (RecipeOption::Allocation, self.allocation.is_some()),
            (RecipeOption::Price, self.price.is_some()),
        ]));
        if let Some(option) = given {
            return Err(RecipeError::NoEffect { option, why: NoEffect::WeightsOnly });
        }
        match (self.method, self.sparsity, self.pattern) {
            (_, Some(sparsity), _) => {
                self.refuse_flow_options(NoEffect::SetBy(RecipeOption::Sparsity))?;
                Ok((
                    Criterion::Magnitude,
                    Amount::Sparsity { sparsity, scope: self.exact_scope()? },
                ))
            }
            (_, None, Some(pattern)) => {
                self.refuse_flow_options(NoEffect::SetBy(RecipeOption::Pattern))?;
                self.refuse_block_size()?;
                Ok((Criterion::Magnitude, Amount::Pattern(pattern)))
            }
            (MethodName::Magnitude, None, None) => Err(RecipeError::Missing {
                method: self.method,
                one_of: &[RecipeOption::Sparsity, RecipeOption::Pattern],
            }),
            (_, None, None) => Ok((self.flow(), Amount::Emergent)),
        }
    }

    /// How much an activation-aware method is asked for.
    fn calibrated_amount(&self) -> Result<Amount, RecipeError> {
        self.refuse_flow_options(NoEffect::OtherMethod(self.method))?;
        self.refuse_block_size()?;
        let refused = first_given(&[
            (RecipeOption::Scope, self.scope.is_some()),
            (RecipeOption::AllowNonfinite, self.non_finite == Some(NonFinite::Keep)),
        ]);
        if let Some(option) = refused {
            return Err(RecipeError::NoEffect { option, why: NoEffect::OtherMethod(self.method) });
        }
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
            _ => Err(RecipeError::Missing {
                method: self.method,
                one_of: &[RecipeOption::Sparsity, RecipeOption::Pattern, RecipeOption::Price],
            }),
        }
    }

    fn exact_scope(&self) -> Result<Scope, RecipeError> {
        let by_default = match self.method {
            MethodName::MagnitudeFlow => ScopeName::Tile,
            _ => ScopeName::Tensor,
        };
        let scope = match self.scope.unwrap_or(by_default) {
            ScopeName::Tile => return Ok(Scope::Tile { block_size: self.block_size() }),
            ScopeName::Tensor => Scope::Tensor,
            ScopeName::Model => Scope::Model,
        };
        self.refuse_block_size()?;
        Ok(scope)
    }

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

    fn refuse_flow_options(&self, why: NoEffect) -> Result<(), RecipeError> {
        let given = first_given(&[
            (RecipeOption::Iterations, self.iterations.is_some()),
            (RecipeOption::Beta, self.beta.is_some()),
            (RecipeOption::Inflow, self.inflow.is_some()),
        ]);
        given.map_or(Ok(()), |option| Err(RecipeError::NoEffect { option, why }))
    }

    fn refuse_block_size(&self) -> Result<(), RecipeError> {
        let option = RecipeOption::BlockSize;
        match self.block_size {
            None => Ok(()),
            Some(_) => Err(RecipeError::NoEffect { option, why: NoEffect::NoTiles }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparsity() -> Option<Sparsity> {
        Sparsity::try_from(0.5).ok()
    }

    #[test]
    fn nothing_asked_for_is_the_magnitude_flow() {
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
