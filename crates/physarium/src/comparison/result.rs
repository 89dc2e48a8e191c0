//! The result of a comparison, row by row.

use physarium_checkpoint::Recipe;
use physarium_checkpoint::journal::Totals;
use physarium_pack::WeightBytes;
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
    /// Bytes of its weights, dense and packed; `None` in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightBytes>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Every contender of the request's share has its row, and others are not of the share.
    ShareDone,
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

/// Schema of [`ComparisonRecord`].
const SCHEMA: &str = "physarium.compare/1";

/// A comparison as its JSON has it: `physarium.compare.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComparisonRecord {
    /// `physarium.compare/1`.
    pub schema: String,
    /// Whether every contender has its row.
    pub complete: bool,
    /// The dense model, evaluated by itself; `None` until it is.
    pub dense: Option<Evaluation>,
    /// The rows that are measured.
    pub runs: Vec<ComparedRun>,
    /// The rows that failed.
    pub failed: Vec<FailedRun>,
}

impl Comparison {
    /// The rows as JSON has them.
    pub fn record(&self) -> ComparisonRecord {
        ComparisonRecord {
            schema: SCHEMA.to_owned(),
            complete: self.ended == Ended::Complete,
            dense: self.dense.clone(),
            runs: self.runs().cloned().collect(),
            failed: self.failed().cloned().collect(),
        }
    }

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
