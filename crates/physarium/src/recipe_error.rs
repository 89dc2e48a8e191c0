//! Options that do not make a recipe, and why.

use std::fmt;

/// A pruning method by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MethodName {
    /// Conductances adapt under a conserved flow in each tile; uses magnitudes only.
    #[default]
    MagnitudeFlow,
    /// The smallest magnitudes.
    Magnitude,
    /// The smallest |w| times the norm of its input, row by row.
    Wanda,
    /// Column by column; remaining weights are updated to compensate.
    SparseGpt,
    /// Conductances adapt to the flow that reproduces the dense outputs; remaining weights are updated to
    /// compensate.
    ActivationFlow,
}

impl MethodName {
    /// As it is typed.
    pub fn text(self) -> &'static str {
        match self {
            MethodName::MagnitudeFlow => "magnitude-flow",
            MethodName::Magnitude => "magnitude",
            MethodName::Wanda => "wanda",
            MethodName::SparseGpt => "sparsegpt",
            MethodName::ActivationFlow => "activation-flow",
        }
    }

    /// Whether it takes statistics from a calibration text.
    pub fn is_activation_aware(self) -> bool {
        matches!(self, MethodName::Wanda | MethodName::SparseGpt | MethodName::ActivationFlow)
    }
}

/// An option of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the field of the same name")]
pub enum RecipeOption {
    Method,
    Sparsity,
    Pattern,
    Allocation,
    Price,
    Scope,
    BlockSize,
    Iterations,
    Beta,
    Inflow,
    Calibration,
    CalibrationTokens,
    Window,
    Seed,
    AllowNonfinite,
}

impl RecipeOption {
    /// Its name, with `_` between words.
    pub fn name(self) -> &'static str {
        match self {
            RecipeOption::Method => "method",
            RecipeOption::Sparsity => "sparsity",
            RecipeOption::Pattern => "pattern",
            RecipeOption::Allocation => "allocation",
            RecipeOption::Price => "price",
            RecipeOption::Scope => "scope",
            RecipeOption::BlockSize => "block_size",
            RecipeOption::Iterations => "iterations",
            RecipeOption::Beta => "beta",
            RecipeOption::Inflow => "inflow",
            RecipeOption::Calibration => "calibration",
            RecipeOption::CalibrationTokens => "calibration_tokens",
            RecipeOption::Window => "window",
            RecipeOption::Seed => "seed",
            RecipeOption::AllowNonfinite => "allow_nonfinite",
        }
    }
}

/// Why an option would have no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoEffect {
    /// The method does not use activations.
    WeightsOnly,
    /// The method has no such parameter.
    OtherMethod(MethodName),
    /// Another option sets the sparsity, and no flow runs.
    SetBy(RecipeOption),
    /// Only with a sparsity.
    WithoutSparsity,
    /// There are no tiles.
    NoTiles,
    /// A recipe file decides.
    RecipeFile,
}

/// Options that do not make a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipeError {
    /// An option would be ignored.
    NoEffect {
        /// The option.
        option: RecipeOption,
        /// Why.
        why: NoEffect,
    },
    /// Only one of two options can be given.
    Conflict {
        /// One.
        option: RecipeOption,
        /// The other.
        with: RecipeOption,
    },
    /// A method needs one of some options.
    Missing {
        /// The method.
        method: MethodName,
        /// The options.
        one_of: &'static [RecipeOption],
    },
}

impl RecipeError {
    /// The error with options spelled as `spell` does.
    pub fn message(&self, spell: impl Fn(RecipeOption) -> String) -> String {
        match self {
            RecipeError::NoEffect { option, why } => {
                let option = spell(*option);
                match why {
                    NoEffect::WeightsOnly => {
                        format!("{option} has no effect: the method does not use calibration")
                    }
                    NoEffect::OtherMethod(method) => {
                        let method = format!("{} {}", spell(RecipeOption::Method), method.text());
                        format!("{option} has no effect with {method}")
                    }
                    NoEffect::SetBy(by) => format!(
                        "{option} has no effect: {} sets the sparsity, and no flow runs",
                        spell(*by)
                    ),
                    NoEffect::WithoutSparsity => {
                        format!("{option} has no effect without {}", spell(RecipeOption::Sparsity))
                    }
                    NoEffect::NoTiles => {
                        format!("{option} has no effect: the method does not use tiles")
                    }
                    NoEffect::RecipeFile => {
                        format!(
                            "{option} has no effect: the recipe's method does not use calibration"
                        )
                    }
                }
            }
            RecipeError::Conflict { option, with } => {
                format!("{} cannot be combined with {}", spell(*option), spell(*with))
            }
            RecipeError::Missing { method, one_of } => {
                let options: Vec<String> = one_of.iter().map(|option| spell(*option)).collect();
                let method = format!("{} {}", spell(RecipeOption::Method), method.text());
                format!("{method} needs {}", options.join(" or "))
            }
        }
    }
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message(|option| option.name().to_owned()))
    }
}

impl std::error::Error for RecipeError {}
