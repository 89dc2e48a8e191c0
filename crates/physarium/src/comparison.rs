/*!
Several ways to prune one model, side by side.

In: a model, recipes, a text to calibrate on and a text to measure on. Out: one row for each recipe, with how far
the result is from the dense model ([`ComparedRun`]). Outputs are pruned and measured one after the other, as `prune`
and `eval` would.
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

/// A way to prune.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Its name in the table and of its directory.
    pub name: String,
    /// What it does.
    pub recipe: Recipe,
}

/// What becomes of pruned models once they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// They are removed.
    Discard,
    /// They stay.
    Keep,
}

/// What is compared, and how.
#[derive(Debug)]
pub struct ComparisonRequest<'a> {
    /// The contenders, in the order of the table.
    pub contenders: &'a [Contender],
    /// What activation-aware methods calibrate on.
    pub calibration: &'a CalibrationText,
    /// How results are measured: `model` is the dense model, `against` is not looked at.
    pub eval: EvalRequest<'a>,
    /// Where pruned models are made, each in a directory of its contender's name; it is there.
    pub dir: &'a Path,
    /// What becomes of them.
    pub outputs: Outputs,
    /// How pruning runs.
    pub options: Options,
}

/// One contender's result.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedRun {
    /// The contender.
    pub name: String,
    /// Its recipe.
    pub recipe: Recipe,
    /// What was done, in counts.
    pub totals: Totals,
    /// Weights of the targets.
    pub target: u64,
    /// Mean over the targets of the relative square error of their outputs; null unless the method is
    /// activation-aware.
    pub output_error: Option<f64>,
    /// Seconds that pruning took, from planning to the published output.
    pub prune_seconds: f64,
    /// Most memory that was resident while pruning, where the system tells.
    pub prune_peak_rss_bytes: Option<u64>,
    /// Against the dense model.
    pub evaluation: Evaluation,
}

/// Prunes and measures each contender, and hands over each as soon as it is done.
///
/// # Errors
/// As [`Surgery::prune`] and [`evaluate`]; `Stopped` when `cancel` is raised.
pub fn compare(
    request: &ComparisonRequest<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
    mut done: impl FnMut(ComparedRun),
) -> Result<()> {
    for contender in request.contenders {
        progress.event(Event::Step(&contender.name));
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
        let prune_peak_rss_bytes = peak::resident_bytes();
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
