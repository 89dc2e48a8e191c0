//! What to compare, and how.

use std::path::Path;

use physarium_checkpoint::Recipe;
use serde::{Deserialize, Serialize};

use crate::calibration::CalibrationText;
use crate::eval::EvalRequest;
use crate::surgery::Options;
use crate::units::Share;

/// A recipe that takes part in a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// Its name in the table, and the name of its output directory.
    pub name: String,
    /// The recipe.
    pub recipe: Recipe,
}

/// What to do with a pruned model once it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outputs {
    /// Remove it.
    Discard,
    /// Keep it.
    Keep,
}

/// What to do with a comparison that was begun in the same directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Resume it if it is the same; fail otherwise.
    Resume,
    /// Remove what it made, and start again.
    Discard,
}

/// What to compare, and how.
#[derive(Debug)]
pub struct ComparisonRequest<'a> {
    /// The recipes, in the order of the table.
    pub contenders: &'a [Contender],
    /// Calibration text of activation-aware methods.
    pub calibration: &'a CalibrationText,
    /// How results are measured. `model` is the dense model; `against` is ignored.
    pub eval: EvalRequest<'a>,
    /// Directory for the pruned models, one sub-directory per contender, and for the records of finished rows. It is
    /// created if it does not exist.
    pub dir: &'a Path,
    /// Names of files in `dir` that the caller writes. They must not exist before the comparison begins.
    pub tables: &'a [&'a str],
    /// What to do with pruned models once they are measured.
    pub outputs: Outputs,
    /// What to do with a comparison that was begun in `dir`.
    pub begun: Begun,
    /// The rows that this process makes. Once all shares are made, a call with all of them returns the table.
    pub share: Share,
    /// Options of the pruning runs.
    pub options: Options,
}
