//! The arguments of a run, which `prune` and `plan` take: what is pruned, how, and into which directory.

use std::path::{Path, PathBuf};

use clap::Args;
use physarium::audit::{Share, grouped};
use physarium::checkpoint::{
    Action, Amount, Disposition, LinkPolicy, TargetPlan, encoded_projections, printable,
};
use physarium::{CardPlace, MemoryLimit, Options, Strictness, Surgery};

use crate::arguments::{OUTPUT, SELECTION};
use crate::model::{Model, RevisionArgument, refuse_in_cache};
use crate::output::{self, counted};
use crate::recipe::RecipeArguments;

/// What is pruned, how, and into which directory.
#[derive(Args)]
pub struct SurgeryArguments {
    /// Checkpoint directory or hub id; never written to
    model: PathBuf,
    #[command(flatten)]
    revision: RevisionArgument,
    /// Output directory
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub out: PathBuf,
    #[command(flatten)]
    recipe: RecipeArguments,
    /// Fail instead of warning on unprunable targets and on inputs that are zero in calibration
    #[arg(long, help_heading = SELECTION)]
    strict: bool,
    /// Copy files that links out of the checkpoint point to, instead of leaving them out
    #[arg(long, help_heading = OUTPUT)]
    follow_links: bool,
    /// Put the model card with its metadata at the head of README.md; without, README.md is copied
    #[arg(long, help_heading = OUTPUT)]
    card: bool,
}

impl SurgeryArguments {
    /// The paths that are read and written.
    pub fn paths(&self) -> Vec<&Path> {
        [&*self.model, &*self.out].into_iter().chain(self.recipe.files()).collect()
    }

    /// Plans the run, with at most so many threads and so much memory, and prints what the user should know before it, unless
    /// it is to be `quiet`. Also returns the model as it is typed in another command.
    ///
    /// # Errors
    /// As [`Surgery::plan`] and [`Surgery::calibrate`]; for a model that is not found, and an output in the hub cache.
    pub fn plan(
        &self,
        (threads, memory): (usize, MemoryLimit),
        quiet: bool,
    ) -> anyhow::Result<(Surgery, String)> {
        let options = Options {
            threads,
            strictness: if self.strict { Strictness::Refuse } else { Strictness::Skip },
            links: if self.follow_links { LinkPolicy::Follow } else { LinkPolicy::LeaveOut },
            memory,
        };
        refuse_in_cache(&self.out)?;
        let Model { path, source, shown } = self.revision.find(&self.model)?;
        let (recipe, text) = self.recipe.recipe(&path)?;
        let mut surgery = Surgery::plan(&path, recipe, options)?;
        surgery.source = source;
        surgery.card = if self.card { CardPlace::InReadme } else { CardPlace::Beside };
        if let Some(text) = &text {
            surgery.calibrate(text)?;
        }
        if !quiet {
            notes(&surgery);
            self.recipe.note(&surgery.recipe);
        }
        Ok((surgery, shown))
    }
}

/// Prints what the user should know before the run.
fn notes(surgery: &Surgery) {
    for warning in surgery.checkpoint.warnings() {
        output::note(&format!("note: {warning}"));
    }
    output::notes(&surgery.notes);
    for sidecar in &surgery.sidecars {
        if let Disposition::LeftOut(reason) = sidecar.disposition {
            output::note(&format!(
                "note: left out: {}: {reason}",
                printable(&sidecar.path.to_string_lossy())
            ));
        }
    }
    note_copied_projections(surgery);
    note_left_alone(&surgery.plan);
    note_amount(surgery);
}

/// Prints which projections are copied instead of pruned, and why.
fn note_copied_projections(surgery: &Surgery) {
    let mut reasons: Vec<(String, u64)> = Vec::new();
    for tensor in &surgery.plan.tensors {
        if let Action::Copy(reason) = &tensor.action
            && reason.is_projection()
        {
            let reason = reason.to_string();
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason, 1)),
            }
        }
    }
    for (reason, count) in reasons {
        let projections = counted(count, "projection");
        output::note(&format!("note: {projections} copied without pruning: {reason}"));
    }
    for encoded in encoded_projections(&surgery.checkpoint) {
        if !encoded.is_skipped_by_dtype() {
            output::note(&format!("note: {encoded}: copied without pruning"));
        }
    }
}

/// Prints what is unusual about a sparsity, or about a pattern for these projections.
fn note_amount(surgery: &Surgery) {
    match surgery.recipe.method.amount() {
        Amount::Sparsity { sparsity, .. } => match f64::from(sparsity) {
            1.0 => output::note("note: --sparsity 1 prunes every weight of the targets"),
            0.0 => output::note("note: --sparsity 0 prunes nothing"),
            _ => {}
        },
        Amount::Pattern(pattern) => {
            let group = pattern.group();
            let divides = |cols| physarium::flow::pattern_divides_row(cols, group);
            let ragged = surgery.plan.matrices().filter(|(_, view)| !divides(view.cols)).count();
            if ragged > 0 {
                output::note(&format!(
                    "note: {} with an input size that is not a multiple of {group}: the shorter last group of \
                     each row keeps at most {} weights",
                    counted(ragged as u64, "projection"),
                    pattern.keep()
                ));
            }
        }
        _ => {}
    }
}

/// Prints what the default targets leave alone in the decoder's layers, if anything.
pub fn note_left_alone(plan: &TargetPlan) {
    let Some(left) = &plan.left_alone else { return };
    output::note(&format!(
        "note: the default targets leave alone {} of {} elements of the matrices in the decoder's layers ({}); \
         --target '{}' takes all of them",
        grouped(left.elements),
        grouped(left.of_layers),
        Share::new(left.elements, left.of_layers, "these matrices").sentence(),
        printable(&left.pattern),
    ));
}
