//! The result of a comparison, row by row.

use physarium_checkpoint::Recipe;
use physarium_checkpoint::journal::Totals;
use serde::{Deserialize, Serialize};

use crate::eval::Evaluation;

/// What pruning one contender took and gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrunedRun {
    /// Counts over all tensors.
    pub totals: Totals,
    /// Number of weights of the targets.
    pub target: u64,
    /// Mean over the targets of the relative square error of their outputs; `None` unless the method is
    /// activation-aware.
    pub output_error: Option<f64>,
    /// Seconds that pruning took, from the start to the published output, in the process that published it; `None` if
    /// that was killed before it wrote them down.
    pub prune_seconds: Option<f64>,
    /// Peak resident memory of this row's pruning; `None` if the system cannot measure it apart from earlier rows.
    pub prune_peak_rss_bytes: Option<u64>,
}

/// A contender that is pruned and measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComparedRun {
    /// The contender's name.
    pub name: String,
    /// The contender's recipe.
    pub recipe: Recipe,
    /// What pruning took and gave.
    #[serde(flatten)]
    pub pruned: PrunedRun,
    /// The pruned model, evaluated against the dense one.
    pub evaluation: Evaluation,
}

/// A contender that could not be pruned or measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedRun {
    /// The contender's name.
    pub name: String,
    /// The contender's recipe.
    pub recipe: Recipe,
    /// Why.
    pub error: String,
}

/// A row of a comparison.
#[derive(Debug, Clone)]
pub enum Row {
    /// The contender is pruned and measured.
    Measured(Box<ComparedRun>),
    /// It could not be.
    Failed(Box<FailedRun>),
}

/// Whether a comparison has all its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every contender has its row.
    Complete,
    /// Not yet, or it was cancelled. The same call resumes it.
    Unfinished,
}

/// The rows of a comparison so far.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Comparison {
    /// The dense model, evaluated by itself; `None` until it is.
    pub dense: Option<Evaluation>,
    /// The rows, in the order of the contenders.
    pub rows: Vec<Row>,
    /// Whether there are more to come.
    pub ended: Ended,
}

impl Comparison {
    /// The rows that are measured.
    pub fn runs(&self) -> impl Iterator<Item = &ComparedRun> {
        self.rows.iter().filter_map(|row| match row {
            Row::Measured(run) => Some(&**run),
            Row::Failed(_) => None,
        })
    }

    /// The rows that failed.
    pub fn failed(&self) -> impl Iterator<Item = &FailedRun> {
        self.rows.iter().filter_map(|row| match row {
            Row::Failed(run) => Some(&**run),
            Row::Measured(_) => None,
        })
    }
}
