//! Options that decide an output's bytes, and the recipe that they make.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use physarium::checkpoint::manifest::Manifest;
use physarium::checkpoint::{
    Amount, Calibrated, Calibration, FlowRecipe, Method, NmPattern, NonFinite, Price, Recipe,
    Scope, Sparsity,
};
use physarium::{CalibrationText, Error, default_method};

use crate::arguments::SelectionArguments;
use crate::output;

/// Tokens that statistics come from unless the user says otherwise.
const DEFAULT_CALIBRATION_TOKENS: u64 = 131_072;
/// Price of a weight where nothing else sets the sparsity.
const DEFAULT_PRICE: f64 = 0.02;

/// Options that a recipe is made of.
#[derive(Args)]
pub struct RecipeArguments {
    /// How weights are chosen
    #[arg(long, value_enum, default_value_t = MethodName::MagnitudeFlow)]
    method: MethodName,
    /// Share of weights that shall be zero, between 0 and 1; exact, ties by position
    #[arg(long, value_name = "S", conflicts_with = "pattern")]
    sparsity: Option<Sparsity>,
    /// Keep N of each M consecutive inputs, as N:M
    #[arg(long, value_name = "N:M")]
    pattern: Option<NmPattern>,
    /// Whether the sparsity is every tensor's, or the model's, spent where its predictions feel it least
    /// (methods with calibration) [default: uniform]
    #[arg(long, value_enum, requires = "sparsity")]
    allocation: Option<AllocationName>,
    /// What a weight must be worth to stay, as a multiple of the mean worth: sets the sparsity of
    /// activation-flow where nobody does [default: 0.02]
    #[arg(long, value_name = "P", conflicts_with_all = ["sparsity", "pattern"])]
    price: Option<Price>,
    /// Over what the sparsity is taken [default: tile for magnitude-flow, tensor for magnitude]
    #[arg(long, value_enum, requires = "sparsity")]
    scope: Option<ScopeName>,
    /// Edge of the square tiles that are decided one by one, 1 to 1024 [default: 256]
    #[arg(long, value_name = "N")]
    block_size: Option<u64>,
    /// Steps of the flow [default: 30]
    #[arg(long, value_name = "N")]
    iterations: Option<u32>,
    /// Exponent of the response, above 1 [default: 2]
    #[arg(long, value_name = "B")]
    beta: Option<f64>,
    /// Mean flow per tube [default: 5.16, which takes 2/9 of a Gaussian tile]
    #[arg(long, value_name = "I")]
    inflow: Option<f64>,
    #[command(flatten)]
    calibration: CalibrationArguments,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Keep NaN and infinite weights as they are and prune around them, instead of refusing
    #[arg(long)]
    allow_nonfinite: bool,
    /// Take all of this from a file instead: a recipe in TOML, or the physarium.manifest.json of an
    /// output, whose run is repeated byte for byte
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "method", "sparsity", "pattern", "allocation", "price", "scope", "block_size", "iterations",
        "beta", "inflow", "calibration_tokens", "window", "seed", "target", "skip", "allow_nonfinite",
    ])]
    recipe: Option<PathBuf>,
}

/// The text that statistics come from, and how much of it.
#[derive(Args)]
pub struct CalibrationArguments {
    /// Text that wanda, sparsegpt and activation-flow take statistics from: UTF-8, or JSON Lines where
    /// the name ends in .jsonl [default: short stories that come along]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Tokens of it that are used, in whole windows [default: 131072; all of the text that comes along]
    #[arg(long, value_name = "TOKENS")]
    calibration_tokens: Option<u64>,
    /// Tokens that the model sees at once in calibration [default: 2048, or what the model is made for]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(2..))]
    window: Option<u64>,
    /// Which windows are used where the text has more than enough [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// A method on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// Conductances adapt under a conserved flow in each tile (sees magnitudes only)
    MagnitudeFlow,
    /// The smallest magnitudes; needs --sparsity or --pattern
    Magnitude,
    /// The smallest |w| times the norm of its input, row by row (calibrated)
    Wanda,
    /// Column by column, what stays makes up for what goes (calibrated)
    Sparsegpt,
    /// Conductances adapt to the flow that reproduces the dense outputs (calibrated)
    ActivationFlow,
}

impl MethodName {
    /// As it is typed.
    pub fn text(self) -> String {
        let value = self.to_possible_value().expect("no method is hidden");
        value.get_name().to_owned()
    }

    /// Whether it takes statistics from a text.
    pub fn sees_activations(self) -> bool {
        matches!(self, MethodName::Wanda | MethodName::Sparsegpt | MethodName::ActivationFlow)
    }

    /// The method with what it is asked for, if it sees activations.
    pub fn calibrated(self, amount: Amount, calibration: Calibration) -> Option<Method> {
        let calibrated = Calibrated { amount, calibration };
        match self {
            MethodName::Wanda => Some(Method::Wanda(calibrated)),
            MethodName::Sparsegpt => Some(Method::SparseGpt(calibrated)),
            MethodName::ActivationFlow => Some(Method::ActivationFlow(calibrated)),
            MethodName::MagnitudeFlow | MethodName::Magnitude => None,
        }
    }
}

/// Where zeros go, on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AllocationName {
    /// The same share of each tensor
    Uniform,
    /// One budget for all tensors, by what the model's predictions lose
    Flow,
}

impl AllocationName {
    /// The sparsity as it is spent.
    pub fn amount(self, sparsity: Sparsity) -> Amount {
        match self {
            AllocationName::Uniform => Amount::Sparsity(sparsity),
            AllocationName::Flow => Amount::ModelSparsity(sparsity),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeName {
    /// Each tile by itself
    Tile,
    /// Each tensor by itself
    Tensor,
    /// All targets together
    Model,
}

impl CalibrationArguments {
    /// The text.
    ///
    /// # Errors
    /// What is wrong with its file.
    pub fn text(&self) -> Result<CalibrationText, Error> {
        match &self.calibration {
            Some(path) => CalibrationText::read(path, None),
            None => Ok(CalibrationText::built_in()),
        }
    }

    /// What of the text is used for a model.
    ///
    /// # Errors
    /// What is wrong with the model's config or tokenizer.
    pub fn calibration(&self, model: &Path, text: &CalibrationText) -> Result<Calibration, Error> {
        let window = match self.window {
            Some(window) => window,
            None => physarium::default_window(model)?,
        };
        let tokens = match (self.calibration_tokens, &self.calibration) {
            (Some(tokens), _) => tokens,
            (None, Some(_)) => DEFAULT_CALIBRATION_TOKENS,
            (None, None) => text.available(model, window)?.min(DEFAULT_CALIBRATION_TOKENS),
        };
        Ok(text.calibration(tokens, window, self.seed.unwrap_or(0)))
    }

    /// What to say where the text is not the user's.
    pub fn note(&self) {
        if self.calibration.is_none() {
            output::note(
                "note: calibrating on the short stories that come along; --calibration FILE with text \
                 like the model's use serves it better",
            );
        }
    }

    /// The first option that was given.
    fn given(&self) -> Option<&'static str> {
        let given = [
            ("--calibration", self.calibration.is_some()),
            ("--calibration-tokens", self.calibration_tokens.is_some()),
            ("--window", self.window.is_some()),
            ("--seed", self.seed.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
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
        if self.method.sees_activations() {
            let text = self.calibration.text()?;
            let method = self.calibrated(model, &text)?;
            return Ok((self.with(method), Some(text)));
        }
        Ok((self.with(self.weights_only()?), None))
    }

    /// What to say where nobody chose the text.
    pub fn note(&self) {
        if self.recipe.is_none() && self.method.sees_activations() {
            self.calibration.note();
        }
    }

    /// A recipe from a file: a manifest's, or TOML.
    fn of_file(&self, path: &Path) -> anyhow::Result<(Recipe, Option<CalibrationText>)> {
        let recipe = if path.extension().is_some_and(|extension| extension == "json") {
            Manifest::read(path)?.recipe
        } else {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{}: cannot read", path.display()))?;
            toml::from_str(&text).with_context(|| format!("{}: no recipe", path.display()))?
        };
        let text = match (recipe.calibrated(), self.calibration.given()) {
            (None, None) => None,
            (None, Some(option)) => {
                let what = format!("{option} has no effect: the recipe's method sees weights only");
                return Err(Error::Usage(what).into());
            }
            // That it is the recipe's text is checked where its windows are cut.
            (Some(_), _) => Some(self.calibration.text()?),
        };
        Ok((recipe, text))
    }

    fn with(&self, method: Method) -> Recipe {
        let non_finite = if self.allow_nonfinite { NonFinite::Keep } else { NonFinite::Refuse };
        let SelectionArguments { target, skip } = self.selection.clone();
        Recipe { method, target, skip, non_finite }
    }

    /// A method that sees weights only.
    fn weights_only(&self) -> Result<Method, Error> {
        let given = self.calibration.given();
        let given = given.or(self.allocation.map(|_| "--allocation"));
        if let Some(option) = given.or(self.price.map(|_| "--price")) {
            let what =
                format!("{option} has no effect: the method sees weights only; leave it out");
            return Err(Error::Usage(what));
        }
        match (self.method, self.sparsity, self.pattern) {
            (_, Some(sparsity), _) => {
                self.refuse_flow_options("--sparsity sets it")?;
                Ok(Method::Exact { sparsity, scope: self.exact_scope()? })
            }
            (_, None, Some(pattern)) => {
                self.refuse_flow_options("--pattern sets it")?;
                self.refuse_block_size("--pattern knows no tiles")?;
                Ok(Method::Pattern { pattern })
            }
            (MethodName::Magnitude, None, None) => {
                let what = "--method magnitude needs --sparsity S or --pattern N:M";
                Err(Error::Usage(what.to_owned()))
            }
            (_, None, None) => Ok(self.flow()),
        }
    }

    /// A method that sees activations.
    fn calibrated(&self, model: &Path, text: &CalibrationText) -> Result<Method, Error> {
        let name = self.method.text();
        self.refuse_flow_options("the method has none of them")?;
        self.refuse_block_size("the method knows no tiles")?;
        let refused =
            [("--scope", self.scope.is_some()), ("--allow-nonfinite", self.allow_nonfinite)];
        if let Some((option, _)) = refused.into_iter().find(|(_, given)| *given) {
            return Err(Error::Usage(format!("{option} has no effect with --method {name}")));
        }
        let amount = match (self.sparsity, self.pattern, self.price) {
            (Some(sparsity), ..) => {
                self.allocation.unwrap_or(AllocationName::Uniform).amount(sparsity)
            }
            (_, Some(pattern), _) => Amount::Pattern(pattern),
            (.., Some(price)) => Amount::Price(price),
            _ if self.method == MethodName::ActivationFlow => {
                Amount::Price(Price::try_from(DEFAULT_PRICE).expect("above 0"))
            }
            _ => {
                let what =
                    format!("--method {name} needs --sparsity S, --pattern N:M or --price P");
                return Err(Error::Usage(what));
            }
        };
        let calibration = self.calibration.calibration(model, text)?;
        Ok(self.method.calibrated(amount, calibration).expect("it sees activations"))
    }

    fn exact_scope(&self) -> Result<Scope, Error> {
        let by_default = match self.method {
            MethodName::MagnitudeFlow => ScopeName::Tile,
            _ => ScopeName::Tensor,
        };
        let scope = match self.scope.unwrap_or(by_default) {
            ScopeName::Tile => return Ok(Scope::Tile { block_size: self.block_size() }),
            ScopeName::Tensor => Scope::Tensor,
            ScopeName::Model => Scope::Model,
        };
        self.refuse_block_size("only --scope tile knows tiles")?;
        Ok(scope)
    }

    fn flow(&self) -> Method {
        let Method::MagnitudeFlow { flow, .. } = default_method() else {
            unreachable!("the default method is the flow")
        };
        let flow = FlowRecipe {
            iterations: self.iterations.unwrap_or(flow.iterations),
            beta: self.beta.unwrap_or(flow.beta),
            inflow: self.inflow.unwrap_or(flow.inflow),
        };
        Method::MagnitudeFlow { block_size: self.block_size(), flow }
    }

    fn block_size(&self) -> u64 {
        let Method::MagnitudeFlow { block_size, .. } = default_method() else {
            unreachable!("the default method is the flow")
        };
        self.block_size.unwrap_or(block_size)
    }

    fn refuse_flow_options(&self, why: &str) -> Result<(), Error> {
        let given = [
            ("--iterations", self.iterations.is_some()),
            ("--beta", self.beta.is_some()),
            ("--inflow", self.inflow.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => Err(Error::Usage(format!(
                "{option} has no effect on a requested sparsity: {why}; leave it out"
            ))),
        }
    }

    fn refuse_block_size(&self, why: &str) -> Result<(), Error> {
        match self.block_size {
            None => Ok(()),
            Some(_) => Err(Error::Usage(format!("--block-size has no effect: {why}"))),
        }
    }
}
