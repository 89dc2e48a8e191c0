//! Options that decide an output's bytes, as they are typed. What they mean is the library's to say.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use physarium::checkpoint::manifest::Manifest;
use physarium::checkpoint::{NmPattern, NonFinite, Price, Recipe, Sparsity};
use physarium::{
    Allocation, CalibrationOptions, CalibrationText, Error, MethodName, NoEffect, RecipeError,
    RecipeOption, RecipeOptions, ScopeName,
};

use crate::arguments::{CALIBRATION, FLOW, METHOD, SelectionArguments};
use crate::output;

/// Options that a recipe is made of.
#[derive(Args)]
pub struct RecipeArguments {
    /// Pruning method
    #[arg(long, value_enum, default_value_t = MethodChoice::MagnitudeFlow, help_heading = METHOD)]
    method: MethodChoice,
    /// Fraction of weights to zero (0–1); exact, ties by position
    #[arg(long, value_name = "S", conflicts_with = "pattern", help_heading = METHOD)]
    sparsity: Option<Sparsity>,
    /// Keep N of each M consecutive inputs
    #[arg(long, value_name = "N:M", help_heading = METHOD)]
    pattern: Option<NmPattern>,
    /// Same sparsity per tensor, or one model-wide budget spent where predictions suffer least
    /// (activation-aware methods) [default: uniform]
    #[arg(long, value_enum, requires = "sparsity", help_heading = METHOD)]
    allocation: Option<AllocationChoice>,
    /// Importance threshold (multiple of the mean) when no --sparsity or --pattern is given
    /// (activation-aware methods) [default: 0.02 for activation-flow]
    #[arg(long, value_name = "P", conflicts_with_all = ["sparsity", "pattern"], help_heading = METHOD)]
    price: Option<Price>,
    /// Scope of the sparsity [default: tile for magnitude-flow, tensor for magnitude]
    #[arg(long, value_enum, requires = "sparsity", help_heading = METHOD)]
    scope: Option<ScopeChoice>,
    /// Keep NaN and infinite weights and prune around them, instead of refusing the checkpoint
    #[arg(long, help_heading = METHOD)]
    allow_nonfinite: bool,
    /// Read the options above and below from a recipe in TOML, or from the physarium.manifest.json of an
    /// output, whose run is repeated byte for byte
    #[arg(long, value_name = "FILE", help_heading = METHOD, conflicts_with_all = [
        "method", "sparsity", "pattern", "allocation", "price", "scope", "block_size", "iterations",
        "beta", "inflow", "calibration_tokens", "window", "seed", "target", "skip", "allow_nonfinite",
    ])]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArguments,
    #[command(flatten)]
    calibration: CalibrationArguments,
    /// Side length of the square tiles, 1 to 1024 [default: 256]
    #[arg(long, value_name = "N", help_heading = FLOW)]
    block_size: Option<u64>,
    /// Steps of the flow [default: 30]
    #[arg(long, value_name = "N", help_heading = FLOW)]
    iterations: Option<u32>,
    /// Exponent of the response, above 1 [default: 2]
    #[arg(long, value_name = "B", help_heading = FLOW)]
    beta: Option<f64>,
    /// Mean flow per tube [default: 5.16, which prunes 2/9 of a Gaussian tile]
    #[arg(long, value_name = "I", help_heading = FLOW)]
    inflow: Option<f64>,
}

/// The text that statistics come from, and how much of it.
#[derive(Args)]
pub struct CalibrationArguments {
    /// Calibration text of wanda, sparsegpt and activation-flow: UTF-8, or JSON Lines if the name ends in
    /// .jsonl [default: bundled short stories]
    #[arg(long, value_name = "FILE", help_heading = CALIBRATION)]
    calibration: Option<PathBuf>,
    /// Tokens to use, in whole windows [default: 131072; all of the bundled text]
    #[arg(long, value_name = "TOKENS", help_heading = CALIBRATION)]
    calibration_tokens: Option<u64>,
    /// Context window in calibration [default: 2048, or the model's maximum]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(2..),
          help_heading = CALIBRATION)]
    window: Option<u64>,
    /// Seed of the choice of windows if the text has more than needed [default: 0]
    #[arg(long, value_name = "N", help_heading = CALIBRATION)]
    seed: Option<u64>,
}

/// A method on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodChoice {
    /// Conductances adapt under a conserved flow in each tile (magnitudes only; fast baseline)
    MagnitudeFlow,
    /// Smallest magnitudes; needs --sparsity or --pattern
    Magnitude,
    /// Smallest |w| times the norm of its input, row by row (activation-aware)
    Wanda,
    /// Column by column; remaining weights are updated to compensate (activation-aware)
    Sparsegpt,
    /// Conductances adapt to the flow that reproduces the dense outputs; remaining weights are updated to
    /// compensate (activation-aware; the choice for quality)
    ActivationFlow,
}

impl From<MethodChoice> for MethodName {
    fn from(choice: MethodChoice) -> MethodName {
        match choice {
            MethodChoice::MagnitudeFlow => MethodName::MagnitudeFlow,
            MethodChoice::Magnitude => MethodName::Magnitude,
            MethodChoice::Wanda => MethodName::Wanda,
            MethodChoice::Sparsegpt => MethodName::SparseGpt,
            MethodChoice::ActivationFlow => MethodName::ActivationFlow,
        }
    }
}

/// How a sparsity is spread, on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AllocationChoice {
    /// The same share of each tensor
    Uniform,
    /// One budget for all tensors, by their effect on predictions
    Flow,
}

impl From<AllocationChoice> for Allocation {
    fn from(choice: AllocationChoice) -> Allocation {
        match choice {
            AllocationChoice::Uniform => Allocation::Uniform,
            AllocationChoice::Flow => Allocation::Flow,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeChoice {
    /// Each tile by itself
    Tile,
    /// Each tensor by itself (each expert, of stacked ones)
    Tensor,
    /// All targets together
    Model,
}

impl From<ScopeChoice> for ScopeName {
    fn from(choice: ScopeChoice) -> ScopeName {
        match choice {
            ScopeChoice::Tile => ScopeName::Tile,
            ScopeChoice::Tensor => ScopeName::Tensor,
            ScopeChoice::Model => ScopeName::Model,
        }
    }
}

/// A recipe's option as it is typed.
pub fn spelled(option: RecipeOption) -> String {
    format!("--{}", option.name().replace('_', "-"))
}

impl CalibrationArguments {
    /// The text.
    ///
    /// # Errors
    /// What is wrong with its file.
    pub fn text(&self) -> Result<CalibrationText, Error> {
        match &self.calibration {
            Some(path) => CalibrationText::read(path, None),
            None => Ok(CalibrationText::bundled()),
        }
    }

    /// What of the text is used.
    pub fn options(&self) -> CalibrationOptions {
        let (tokens, window) = (self.calibration_tokens, self.window);
        CalibrationOptions { tokens, window, seed: self.seed }
    }

    /// Says so where the text is not the user's.
    pub fn note(&self) {
        if self.calibration.is_none() {
            output::note(
                "note: calibrating on the bundled short stories; --calibration FILE with text typical \
                 of the model's use gives better results",
            );
        }
    }

    /// The first option that was given.
    fn given(&self) -> Option<RecipeOption> {
        let text = self.calibration.as_ref().map(|_| RecipeOption::Calibration);
        text.or(self.options().given())
    }
}

impl RecipeArguments {
    /// The recipe, and the text that it calibrates on. An option that would have no effect is refused.
    ///
    /// # Errors
    /// Options that contradict each other; what is wrong with files.
    pub fn recipe(&self, model: &Path) -> anyhow::Result<(Recipe, Option<CalibrationText>)> {
        if let Some(path) = &self.recipe {
            return self.of_file(path);
        }
        let options = self.options();
        if !options.method.is_activation_aware() {
            self.refuse_calibration(NoEffect::WeightsOnly)?;
            return Ok((options.recipe(model, None)?, None));
        }
        let text = self.calibration.text()?;
        Ok((options.recipe(model, Some(&text))?, Some(text)))
    }

    /// Says so where nobody chose the text.
    pub fn note(&self) {
        if self.recipe.is_none() && MethodName::from(self.method).is_activation_aware() {
            self.calibration.note();
        }
    }

    fn options(&self) -> RecipeOptions {
        let SelectionArguments { target, skip } = self.selection.clone();
        RecipeOptions {
            method: self.method.into(),
            sparsity: self.sparsity,
            pattern: self.pattern,
            allocation: self.allocation.map(Allocation::from),
            price: self.price,
            scope: self.scope.map(ScopeName::from),
            block_size: self.block_size,
            iterations: self.iterations,
            beta: self.beta,
            inflow: self.inflow,
            calibration: self.calibration.options(),
            target,
            skip,
            non_finite: self.allow_nonfinite.then_some(NonFinite::Keep),
        }
    }

    fn refuse_calibration(&self, why: NoEffect) -> Result<(), Error> {
        match self.calibration.given() {
            None => Ok(()),
            Some(option) => Err(RecipeError::NoEffect { option, why }.into()),
        }
    }

    /// A recipe from a file: a manifest's, or TOML.
    fn of_file(&self, path: &Path) -> anyhow::Result<(Recipe, Option<CalibrationText>)> {
        let recipe = if path.extension().is_some_and(|extension| extension == "json") {
            Manifest::read(path)?.recipe
        } else {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{}: cannot read", path.display()))?;
            toml::from_str(&text)
                .with_context(|| format!("{}: not a valid recipe", path.display()))?
        };
        if recipe.needs().calibration.is_none() {
            self.refuse_calibration(NoEffect::RecipeFile)?;
            return Ok((recipe, None));
        }
        // That it is the recipe's text is checked where its windows are cut.
        Ok((recipe, Some(self.calibration.text()?)))
    }
}
