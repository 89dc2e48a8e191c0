//! One row of a comparison: prune, measure, and what an earlier run of the same comparison has left of it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use physarium_audit::{Step, verify};
use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{
    Checkpoint, Digest, Error as Fault, Found, Occupant, Overwrite, Resume, Source,
};
use physarium_pack::{WeightBytes, weight_bytes};

use super::book::{Book, Stage, in_the_way};
use super::request::{ComparisonRequest, Contender, Outputs};
use super::result::{ComparedRun, PrunedRun};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::eval::{EvalRequest, KeptStates, States, evaluate_with};
use crate::peak::{self, Peak};
use crate::progress::{Event, Progress};
use crate::records::TOOL;
use crate::surgery::{Output, Surgery};

/// One contender, with what it needs.
pub(super) struct Turn<'a> {
    pub(super) request: &'a ComparisonRequest<'a>,
    pub(super) contender: &'a Contender,
    pub(super) surgery: &'a Surgery,
    pub(super) book: &'a Book,
    /// The dense model's last states.
    pub(super) dense: &'a KeptStates,
    pub(super) cancel: &'a Cancel,
}

/// A contender whose row an earlier run has measured.
///
/// # Errors
/// `Checkpoint` for an output that is to be kept and is not what was measured; `Interrupted`.
pub(super) fn measured_before(
    turn: &Known<'_>,
    progress: &mut dyn Progress,
) -> Result<Option<ComparedRun>> {
    let Some(Stage::Measured { manifest, run }) = turn.stage() else { return Ok(None) };
    let (out, found) = (turn.out(), turn.found()?);
    match (turn.request.outputs, found) {
        // Killed before it was removed.
        (Outputs::Discard, Occupant::Finished) => {
            remove_output(&out, manifest)?;
            Ok(Some(*run))
        }
        (Outputs::Discard, _) => Ok(Some(*run)),
        (Outputs::Keep, Occupant::Finished) => {
            turn.prove(Some(manifest), progress)?;
            Ok(Some(*run))
        }
        (Outputs::Keep, Occupant::Absent | Occupant::Empty) => Ok(None),
    }
}

/// A contender of a comparison that may have been begun before.
pub(super) struct Known<'a> {
    pub(super) request: &'a ComparisonRequest<'a>,
    pub(super) contender: &'a Contender,
    pub(super) key: &'a serde_json::Value,
    pub(super) cancel: &'a Cancel,
}

impl Known<'_> {
    fn stage(&self) -> Option<Stage> {
        Book::stage(self.request.dir, self.key, &self.contender.name)
    }

    fn out(&self) -> PathBuf {
        self.request.dir.join(&self.contender.name)
    }

    fn found(&self) -> Result<Occupant> {
        Ok(Found::at(&self.out(), self.request.eval.model)?.output)
    }

    /// Fails unless the output has this contender's recipe and this version, and every byte of it is proven against
    /// the dense model.
    fn prove(&self, recorded: Option<Digest>, progress: &mut dyn Progress) -> Result<Manifest> {
        let out = self.out();
        let changed =
            |found: &str| in_the_way(&out, "the output that this comparison wrote", found);
        let manifest = Manifest::read(&out.join(manifest::FILE_NAME))?;
        if manifest.recipe != self.contender.recipe || manifest.tool != TOOL {
            return Err(changed("an output of another recipe or version"));
        }
        if recorded.is_some_and(|recorded| manifest_digest(&out).ok() != Some(recorded)) {
            return Err(changed("another manifest"));
        }
        let cancel = self.cancel;
        let verified = verify(self.request.eval.model, &out, &mut |step| {
            progress.event(match step {
                Step::Total(bytes) => Event::Started { task: "verify", bytes, tensors: 0 },
                Step::Read(bytes) => Event::Bytes(bytes),
            });
            cancel.check()
        })
        .map_err(of_audit)?;
        progress.event(Event::Finished);
        match verified.findings.first() {
            None if verified.is_proven() => Ok(manifest),
            None => Err(changed("an output of another model")),
            Some(finding) => Err(changed(&finding.to_string())),
        }
    }
}

/// Removes an output that a comparison wrote, by the digest of its manifest. An output that is gone is removed.
///
/// # Errors
/// `Checkpoint` for an output with another manifest, which is left alone.
pub(super) fn remove_output(out: &Path, manifest: Digest) -> Result<()> {
    if out.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(());
    }
    if manifest_digest(out)? != manifest {
        return Err(in_the_way(out, "the output that a comparison wrote", "another manifest"));
    }
    Ok(std::fs::remove_dir_all(out).map_err(|e| Fault::io(out, "remove", e))?)
}

/// An error of a verification.
fn of_audit(error: physarium_audit::Error) -> Error {
    match error {
        physarium_audit::Error::Checkpoint(fault) => Error::Checkpoint(fault),
        other => Error::Usage(other.to_string()),
    }
}

fn manifest_digest(out: &Path) -> Result<Digest, Fault> {
    Source::open(&out.join(manifest::FILE_NAME))?.sha256(&mut |_| Ok::<(), Fault>(()))
}

impl Turn<'_> {
    /// Prunes and measures, from where an earlier run was stopped.
    ///
    /// # Errors
    /// As [`Surgery::prune`] and [`evaluate`](crate::evaluate); `Checkpoint` for an output of this name that this
    /// comparison did not write; `Stopped` or `Interrupted`.
    pub(super) fn run(&self, progress: &mut dyn Progress) -> Result<ComparedRun> {
        let known = self.known();
        let run = match self.pruned_before(&known, progress)? {
            Some(run) => run,
            None => self.prune(progress)?,
        };
        let (name, out) = (self.contender.name.clone(), known.out());
        let weights = match run.weights {
            Some(weights) => weights,
            None => self.weight_bytes(&out)?,
        };
        let run = PrunedRun { weights: Some(weights), ..run };
        let manifest = manifest_digest(&out)?;
        self.book.record(&name, &Stage::Pruned { manifest, run: run.clone() })?;
        let evaluation = self.evaluate(&out, progress)?;
        let run =
            ComparedRun { name, recipe: self.contender.recipe.clone(), pruned: run, evaluation };
        let measured = Stage::Measured { manifest, run: Box::new(run.clone()) };
        self.book.record(&run.name, &measured)?;
        if self.request.outputs == Outputs::Discard {
            remove_output(&out, manifest)?;
        }
        Ok(run)
    }

    fn known(&self) -> Known<'_> {
        let Turn { request, contender, cancel, .. } = *self;
        Known { request, contender, key: self.book.key(), cancel }
    }

    /// What an earlier run pruned, if its output is there and proven.
    fn pruned_before(
        &self,
        known: &Known<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Option<PrunedRun>> {
        let stage = known.stage();
        let (Some(stage), Occupant::Finished) = (stage, known.found()?) else { return Ok(None) };
        let (recorded, run) = match stage {
            Stage::Begun => (None, None),
            Stage::Pruned { manifest, run } => (Some(manifest), Some(run)),
            Stage::Measured { manifest, run } => (Some(manifest), Some(run.pruned)),
        };
        let manifest = known.prove(recorded, progress)?;
        // Killed between the output and its record: the counts are in the output, what it took is lost.
        Ok(Some(run.unwrap_or_else(|| PrunedRun {
            totals: manifest.totals,
            target: self.surgery.plan.target_elements(),
            output_error: output_error(&known.out()),
            prune_seconds: None,
            prune_peak_rss_bytes: None,
            weights: None,
        })))
    }

    fn prune(&self, progress: &mut dyn Progress) -> Result<PrunedRun> {
        self.book.record(&self.contender.name, &Stage::Begun)?;
        let out = self.request.dir.join(&self.contender.name);
        let peak = peak::reset();
        let began = Instant::now();
        let output = Output { dir: &out, overwrite: Overwrite::Refuse, resume: Resume::Continue };
        let summary = self.surgery.prune(output, self.cancel, progress)?;
        Ok(PrunedRun {
            totals: summary.totals,
            target: self.surgery.plan.target_elements(),
            output_error: summary.output_error,
            prune_seconds: Some(began.elapsed().as_secs_f64()),
            prune_peak_rss_bytes: match peak {
                Peak::New => peak::peak_resident_bytes(),
                Peak::Old => None,
            },
            weights: None,
        })
    }

    /// What the output's weights take, as they are and packed.
    fn weight_bytes(&self, out: &Path) -> Result<WeightBytes> {
        let checkpoint = Checkpoint::open(out)?;
        Ok(weight_bytes(&checkpoint, &mut |_| self.cancel.check())?)
    }

    fn evaluate(&self, out: &Path, progress: &mut dyn Progress) -> Result<crate::Evaluation> {
        let dense = self.request.eval.model;
        let eval = EvalRequest { model: out, against: Some(dense), ..self.request.eval };
        peak::reset();
        let evaluation = evaluate_with(&eval, States::OfOther(self.dense), self.cancel, progress)?;
        match evaluation.partial {
            true => Err(Error::Stopped),
            false => Ok(evaluation),
        }
    }
}

/// Mean of the targets' output errors, from an output's journal.
fn output_error(out: &Path) -> Option<f64> {
    use physarium_checkpoint::journal::{Checks, FILE_NAME, Journal};
    let journal = Journal::read(&out.join(FILE_NAME), Checks::Required).ok()?;
    crate::records::mean_output_error(&journal.tensors)
}
