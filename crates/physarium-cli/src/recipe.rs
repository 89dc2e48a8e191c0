//! The options that decide an output's bytes, as they are typed. The library decides what they mean.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use physarium::audit::grouped;
use physarium::checkpoint::manifest::Manifest;
use physarium::checkpoint::{
    Arithmetic, Calibration, NmPattern, NonFinite, Price, Recipe, Source, Sparsity, excerpt,
};
use physarium::{
    Allocation, CalibrationOptions, CalibrationText, Effort, Error, MethodName, NoEffect,
    RecipeError, RecipeOption, RecipeOptions, ScopeName, check_recipe,
};

use crate::arguments::{ArithmeticChoice, CALIBRATION, FLOW, METHOD, SelectionArguments};
use crate::output::{self, counted};

/// Largest recipe in TOML that is read, in bytes.
const MAX_RECIPE: u64 = 1 << 20;

/// The options of a recipe.
#[derive(Args)]
pub struct RecipeArguments {
    /// Pruning method [default: magnitude-flow]
    #[arg(long, value_enum, help_heading = METHOD)]
    method: Option<MethodChoice>,
    /// Fraction of target weights to zero, e.g. 0.5; exact
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = METHOD)]
    sparsity: Option<Sparsity>,
    /// Keep N of every M consecutive weights of a row, e.g. 2:4
    #[arg(long, value_name = "N:M", help_heading = METHOD)]
    pattern: Option<NmPattern>,
    /// Prune weights of less than P times the mean importance [default: 0.02 for activation-flow]
    #[arg(long, value_name = "P", allow_negative_numbers = true, help_heading = METHOD)]
    price: Option<Price>,
    /// Distribution of --sparsity over tensors by activation-aware methods [default: uniform]
    #[arg(long, value_enum, help_heading = METHOD)]
    allocation: Option<AllocationChoice>,
    /// Computation that activation-flow spends on quality [default: standard]
    #[arg(long, value_enum, help_heading = METHOD)]
    effort: Option<EffortChoice>,
    /// Scope of --sparsity [default: tile for magnitude-flow, tensor for magnitude]
    #[arg(long, value_enum, help_heading = METHOD)]
    scope: Option<ScopeChoice>,
    /// Keep NaN and infinite weights and prune around them, instead of refusing the checkpoint
    #[arg(long, help_heading = METHOD)]
    allow_nonfinite: bool,
    /// Repeat the run of a recipe in TOML or of an output's physarium.manifest.json
    #[arg(long, value_name = "FILE", help_heading = METHOD, conflicts_with_all = ["target", "skip"])]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArguments,
    #[command(flatten)]
    calibration: CalibrationArguments,
    /// Arithmetic of an activation-aware method; one gives the same bytes on every machine that has it [default:
    /// bf16x2 on Intel AMX, bf16 on AVX-512 BF16 of AMD, f32 elsewhere]
    #[arg(long, value_enum, help_heading = CALIBRATION)]
    arithmetic: Option<ArithmeticChoice>,
    /// Side length of the square tiles, 1 to 1024 [default: 256]
    #[arg(long, value_name = "N", help_heading = FLOW)]
    block_size: Option<u64>,
    /// Number of steps of the flow [default: 30]
    #[arg(long, value_name = "N", help_heading = FLOW)]
    iterations: Option<u32>,
    /// Exponent of the response to the flow, above 1 [default: 2]
    #[arg(long, value_name = "B", allow_negative_numbers = true, help_heading = FLOW)]
    beta: Option<f64>,
    /// Mean flow per tube [default: 5.16, which prunes 2/9 of a Gaussian tile]
    #[arg(long, value_name = "I", allow_negative_numbers = true, help_heading = FLOW)]
    inflow: Option<f64>,
}

/// The calibration text, and how much of it is used.
#[derive(Args)]
pub struct CalibrationArguments {
    /// Calibration text: plain UTF-8, or JSON documents with field "text" [default: bundled short stories]
    #[arg(long, value_name = "FILE", help_heading = CALIBRATION)]
    calibration: Option<PathBuf>,
    /// Number of tokens to use, in whole windows [default: 131072, with --effort quick 32768; all of a shorter text]
    #[arg(long, value_name = "TOKENS", help_heading = CALIBRATION)]
    calibration_tokens: Option<u64>,
    /// Context window in calibration [default: 2048, or the model's maximum]
    #[arg(
        long,
        value_name = "TOKENS",
        value_parser = clap::value_parser!(u64).range(2..),
        help_heading = CALIBRATION
    )]
    window: Option<u64>,
    /// Random seed of the calibration [default: 0]
    #[arg(long, value_name = "N", help_heading = CALIBRATION)]
    seed: Option<u64>,
}

/// A method on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodChoice {
    /// Conductances adapt under a conserved flow in each tile (fast baseline; no data)
    MagnitudeFlow,
    /// Smallest magnitudes; needs --sparsity or --pattern (no data)
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

/// An allocation on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AllocationChoice {
    /// Same sparsity per tensor
    Uniform,
    /// One model-wide budget, spent where predictions suffer least
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

/// An effort on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EffortChoice {
    /// Fewest steps, and 32768 calibration tokens by default
    Quick,
    /// Most of the quality that more steps give
    Standard,
    /// Twice the steps, for lower layer errors
    Best,
}

impl From<EffortChoice> for Effort {
    fn from(choice: EffortChoice) -> Effort {
        match choice {
            EffortChoice::Quick => Effort::Quick,
            EffortChoice::Standard => Effort::Standard,
            EffortChoice::Best => Effort::Best,
        }
    }
}

/// A scope on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeChoice {
    /// Each tile
    Tile,
    /// Each tensor; of fused and stacked tensors each matrix
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

/// An option of a recipe as it is typed.
pub fn spelled(option: RecipeOption) -> String {
    format!("--{}", option.name().replace('_', "-"))
}

impl CalibrationArguments {
    /// The calibration text.
    ///
    /// # Errors
    /// If its file cannot be read or has no text.
    pub fn text(&self) -> Result<CalibrationText, Error> {
        match &self.calibration {
            Some(path) => CalibrationText::read(path, None),
            None => Ok(CalibrationText::bundled()),
        }
    }

    /// How much of the text is used.
    pub fn options(&self) -> CalibrationOptions {
        let (tokens, window) = (self.calibration_tokens, self.window);
        CalibrationOptions { tokens, window, seed: self.seed }
    }

    /// Prints a note if the bundled text is used, or a text that is shorter than the default number of tokens.
    pub fn note(&self, used: &Calibration, default_tokens: u64) {
        if self.calibration.is_none() {
            output::note(
                "note: calibrating on the bundled short stories; --calibration FILE with text typical \
                 of your use gives better results",
            );
        } else if self.calibration_tokens.is_none() && used.tokens + used.window <= default_tokens {
            let windows = counted(used.tokens / used.window, "whole window");
            output::note(&format!(
                "note: the calibration text has fewer than {} tokens, the default: all of it is used, {windows} \
                 of {} tokens",
                grouped(default_tokens),
                grouped(used.window),
            ));
        }
    }

    /// The options that were given.
    pub fn given(&self) -> Vec<RecipeOption> {
        let text = self.calibration.as_ref().map(|_| RecipeOption::Calibration);
        text.into_iter().chain(self.options().given()).collect()
    }
}

impl RecipeArguments {
    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.recipe, &self.calibration.calibration].into_iter().flatten().map(PathBuf::as_path)
    }

    /// The recipe, and the calibration text of activation-aware methods.
    ///
    /// # Errors
    /// For options that conflict or would have no effect, and for files that cannot be read.
    pub fn recipe(&self, model: &Path) -> anyhow::Result<(Recipe, Option<CalibrationText>)> {
        if let Some(path) = &self.recipe {
            self.refuse_beside_file()?;
            return self.of_file(path);
        }
        let options = self.options();
        if !options.method.is_activation_aware() {
            let recipe = options.recipe(model, None)?;
            self.refuse_calibration(NoEffect::WeightsOnly)?;
            return Ok((recipe, None));
        }
        let text = self.calibration.text()?;
        Ok((options.recipe(model, Some(&text))?, Some(text)))
    }

    /// Prints what the user should know of the calibration text that `recipe` uses.
    pub fn note(&self, recipe: &Recipe) {
        if let (None, Some(calibration)) = (&self.recipe, recipe.needs().calibration) {
            self.calibration.note(&calibration, self.options().default_tokens());
        }
    }

    /// The options as the library takes them.
    pub fn options(&self) -> RecipeOptions {
        let SelectionArguments { target, skip } = self.selection.clone();
        RecipeOptions {
            method: self.method.map(MethodName::from).unwrap_or_default(),
            sparsity: self.sparsity,
            pattern: self.pattern,
            allocation: self.allocation.map(Allocation::from),
            price: self.price,
            effort: self.effort.map(Effort::from),
            scope: self.scope.map(ScopeName::from),
            block_size: self.block_size,
            iterations: self.iterations,
            beta: self.beta,
            inflow: self.inflow,
            calibration: self.calibration.options(),
            arithmetic: self.arithmetic.map(Arithmetic::from),
            target,
            skip,
            non_finite: self.allow_nonfinite.then_some(NonFinite::Keep),
        }
    }

    /// Fails if a calibration text was given, which would have no effect.
    fn refuse_calibration(&self, why: NoEffect) -> Result<(), Error> {
        match self.calibration.given().first() {
            None => Ok(()),
            Some(&option) => Err(RecipeError::NoEffect { option, why }.into()),
        }
    }

    /// Fails for an option that a recipe in a file decides.
    fn refuse_beside_file(&self) -> Result<(), Error> {
        let method = self.method.map(|_| RecipeOption::Method);
        match method.or(self.options().given().first().copied()) {
            None => Ok(()),
            Some(option) => Err(RecipeError::NoEffect { option, why: NoEffect::SaidByFile }.into()),
        }
    }

    /// The recipe in a manifest (`.json`) or a TOML file.
    fn of_file(&self, path: &Path) -> anyhow::Result<(Recipe, Option<CalibrationText>)> {
        let recipe = if path.extension().is_some_and(|extension| extension == "json") {
            Manifest::read(path)?.recipe
        } else {
            let bytes = Source::open(path)?.read_all(MAX_RECIPE)?;
            toml::from_slice(&bytes)
                .map_err(|e| Error::Usage(excerpt(&e.to_string())))
                .with_context(|| format!("{}: not a valid recipe", path.display()))?
        };
        check_recipe(&recipe).with_context(|| format!("{}: not a valid recipe", path.display()))?;
        if recipe.needs().calibration.is_none() {
            self.refuse_calibration(NoEffect::RecipeFile)?;
            return Ok((recipe, None));
        }
        // `Surgery::calibrate` compares its digest with the recipe's.
        Ok((recipe, Some(self.calibration.text()?)))
    }
}
