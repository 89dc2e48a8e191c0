/*!
Comparison of several recipes on one model.

In: a dense model, recipes, a calibration text and an evaluation text. Out: for each recipe a [`ComparedRun`], with
the pruned model measured against the dense one. Recipes run one after the other, exactly as [`Surgery::prune`] and
[`evaluate`] run by themselves.
*/

use std::path::Path;
use std::time::Instant;

use physarium_checkpoint::journal::Totals;
use physarium_checkpoint::{Overwrite, Recipe, Resume};
use serde::Serialize;

use crate::calibration::CalibrationText;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::eval::{EvalRequest, Evaluation, evaluate};
use crate::peak;
use crate::progress::{Event, Progress};
use crate::surgery::{Options, Output, Surgery};

/// A recipe that takes part in a comparison.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Its name in the table, and the name of its output directory.
    pub name: String,
    /// The recipe.
    pub recipe: Recipe,
}

/// What to do with a pruned model once it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// Remove it.
    Discard,
    /// Keep it.
    Keep,
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
    /// Directory for the pruned models, one sub-directory per contender. It must exist.
    pub dir: &'a Path,
    /// What to do with pruned models once they are measured.
    pub outputs: Outputs,
    /// Options of the pruning runs.
    pub options: Options,
}

/// The result of one contender.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedRun {
    /// The contender's name.
    pub name: String,
    /// The contender's recipe.
    pub recipe: Recipe,
    /// Counts over all tensors.
    pub totals: Totals,
    /// Number of weights of the targets.
    pub target: u64,
    /// Mean over the targets of the relative square error of their outputs; `None` unless the method is
    /// activation-aware.
    pub output_error: Option<f64>,
    /// Seconds that pruning took, from planning to the published output.
    pub prune_seconds: f64,
    /// Peak resident memory of the process while pruning, if the system reports it.
    pub prune_peak_rss_bytes: Option<u64>,
    /// The pruned model, evaluated against the dense one.
    pub evaluation: Evaluation,
}

/// Prunes and measures each contender. Calls `done` with each result as soon as it is there.
///
/// # Errors
/// As [`Surgery::prune`] and [`evaluate`]; `Interrupted` or `Stopped` when `cancel` is raised.
pub fn compare(
    request: &ComparisonRequest<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
    mut done: impl FnMut(ComparedRun),
) -> Result<()> {
    for (index, contender) in request.contenders.iter().enumerate() {
        let (number, of) = (index + 1, request.contenders.len());
        progress.event(Event::Run { name: &contender.name, number, of });
        let out = request.dir.join(&contender.name);
        let run = request.prune_and_measure(contender, &out, cancel, progress)?;
        if run.evaluation.partial {
            return Err(Error::Stopped);
        }
        if request.outputs == Outputs::Discard {
            let io = |e| physarium_checkpoint::Error::io(&out, "remove", e);
            std::fs::remove_dir_all(&out).map_err(io)?;
        }
        done(run);
    }
    Ok(())
}

impl ComparisonRequest<'_> {
    fn prune_and_measure(
        &self,
        contender: &Contender,
        out: &Path,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<ComparedRun> {
        let dense = self.eval.model;
        peak::reset();
        let began = Instant::now();
        let mut surgery = Surgery::plan(dense, contender.recipe.clone(), self.options)?;
        if contender.recipe.needs().calibration.is_some() {
            surgery.calibrate(self.calibration)?;
        }
        let output = Output { dir: out, overwrite: Overwrite::Replace, resume: Resume::Continue };
        let summary = surgery.prune(output, cancel, progress)?;
        let prune_seconds = began.elapsed().as_secs_f64();
        let prune_peak_rss_bytes = peak::peak_resident_bytes();
        peak::reset();
        let eval = EvalRequest { model: out, against: Some(dense), ..self.eval };
        Ok(ComparedRun {
            name: contender.name.clone(),
            recipe: contender.recipe.clone(),
            totals: summary.totals,
            output_error: summary.output_error,
            target: surgery.plan.target_elements(),
            prune_seconds,
            prune_peak_rss_bytes,
            evaluation: evaluate(&eval, cancel, progress)?,
        })
    }
}
