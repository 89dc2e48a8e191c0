//! Names of methods and options, and errors of options that cannot be combined into a recipe.

use std::fmt;

/// A pruning method by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MethodName {
    /// Conductances adapt under a conserved flow in each tile. Uses magnitudes only.
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
    /// Its name on the command line and in records.
    pub fn text(self) -> &'static str {
        match self {
            MethodName::MagnitudeFlow => "magnitude-flow",
            MethodName::Magnitude => "magnitude",
            MethodName::Wanda => "wanda",
            MethodName::SparseGpt => "sparsegpt",
            MethodName::ActivationFlow => "activation-flow",
        }
    }

    /// Whether it uses activations on a calibration text.
    pub fn is_activation_aware(self) -> bool {
        matches!(self, MethodName::Wanda | MethodName::SparseGpt | MethodName::ActivationFlow)
    }
}

/// The scope of an exact sparsity, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeName {
    /// Each tile by itself.
    Tile,
    /// Each matrix by itself.
    Tensor,
    /// All targets together.
    Model,
}

impl ScopeName {
    /// The scope of a sparsity for which no scope is given.
    pub(crate) fn by_default(method: MethodName) -> ScopeName {
        match method {
            MethodName::MagnitudeFlow => ScopeName::Tile,
            _ => ScopeName::Tensor,
        }
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
    Effort,
    Scope,
    BlockSize,
    Iterations,
    Beta,
    Inflow,
    Calibration,
    CalibrationTokens,
    Window,
    Seed,
    Arithmetic,
    AllowNonfinite,
}

impl RecipeOption {
    /// Every option.
    pub const ALL: [RecipeOption; 17] = [
        RecipeOption::Method,
        RecipeOption::Sparsity,
        RecipeOption::Pattern,
        RecipeOption::Allocation,
        RecipeOption::Price,
        RecipeOption::Effort,
        RecipeOption::Scope,
        RecipeOption::BlockSize,
        RecipeOption::Iterations,
        RecipeOption::Beta,
        RecipeOption::Inflow,
        RecipeOption::Calibration,
        RecipeOption::CalibrationTokens,
        RecipeOption::Window,
        RecipeOption::Seed,
        RecipeOption::Arithmetic,
        RecipeOption::AllowNonfinite,
    ];

    /// Its name, with `_` between words.
    pub fn name(self) -> &'static str {
        match self {
            RecipeOption::Method => "method",
            RecipeOption::Sparsity => "sparsity",
            RecipeOption::Pattern => "pattern",
            RecipeOption::Allocation => "allocation",
            RecipeOption::Price => "price",
            RecipeOption::Effort => "effort",
            RecipeOption::Scope => "scope",
            RecipeOption::BlockSize => "block_size",
            RecipeOption::Iterations => "iterations",
            RecipeOption::Beta => "beta",
            RecipeOption::Inflow => "inflow",
            RecipeOption::Calibration => "calibration",
            RecipeOption::CalibrationTokens => "calibration_tokens",
            RecipeOption::Window => "window",
            RecipeOption::Seed => "seed",
            RecipeOption::Arithmetic => "arithmetic",
            RecipeOption::AllowNonfinite => "allow_nonfinite",
        }
    }
}

/// Why an option would have no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoEffect {
    /// The method does not use calibration.
    WeightsOnly,
    /// The method does not have this option.
    OtherMethod(MethodName),
    /// This option sets the sparsity, and no flow runs.
    SetBy(RecipeOption),
    /// It applies to a sparsity only.
    WithoutSparsity,
    /// The method does not use tiles.
    NoTiles,
    /// The recipe comes from a file, and its method does not use calibration.
    RecipeFile,
    /// The recipe comes from a file, which says it.
    SaidByFile,
    /// It needs a whole model, and there is one matrix.
    OneMatrix,
}

/// Options that cannot be combined into a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipeError {
    /// An option would have no effect.
    NoEffect {
        /// The option.
        option: RecipeOption,
        /// Why.
        why: NoEffect,
    },
    /// Two options exclude each other.
    Conflict {
        /// One of them.
        option: RecipeOption,
        /// The other.
        with: RecipeOption,
    },
    /// A method needs an option that is not given.
    Missing {
        /// The method.
        method: MethodName,
        /// The options that would do.
        one_of: Vec<RecipeOption>,
    },
}

impl RecipeError {
    /// The message, with the name of each option as `spell` gives it.
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
                    NoEffect::OneMatrix => {
                        format!("{option} has no effect on one matrix: it needs a whole model")
                    }
                    NoEffect::SaidByFile => {
                        format!("{option} has no effect with --recipe, which decides it")
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
