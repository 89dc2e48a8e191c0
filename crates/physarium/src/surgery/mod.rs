/*!
Pruning a checkpoint from end to end: plan, then read, decide, write and record each shard, then publish.

In: a checkpoint directory and a [`Recipe`]. Out: a new directory with the pruned checkpoint, its journal and its
manifest. The engine (`engine`) prunes the shards; `physarium_checkpoint` makes the output durable.
*/

mod expected;
mod model_card;
mod request;
mod shard_writer;

use std::path::Path;

use physarium_checkpoint::journal::{TensorRecord, Totals};
use physarium_checkpoint::manifest::{FileEntry, LeftOut};
use physarium_checkpoint::{
    Amount, Checkpoint, Disposition, Found as FoundOutput, Inputs, LinkPolicy, ModelSource,
    Orientation, PlannedTensor, Purpose, Recipe, SOLVED_DIR, Scope, Shard, ShardInputs, Sidecar,
    Staging, StagingRequest, TargetPlan,
};
use physarium_model::{Decoder, Residency, release_memory};

use crate::calibration::{self, CalibrationText};
use crate::cancel::Cancel;
use crate::card::FrontMatter;
use crate::engine::{
    DeadInputs, Engine, Found, MemoryPlan, ModelCuts, ModelSearch, Preparation, ShardRun,
    SolvedWeights, Solving, check_recipe,
};
use crate::error::{Error, Result};
use crate::memory_limit::Allowed;
use crate::progress::{Event, Kept, Progress};
use crate::recipe::arithmetic::{self, with_arithmetic};
use crate::records::{OtherFiles, Records, run_record};
use crate::tokenizer::TOKENIZER_FILES;
pub use model_card::CardPlace;
use model_card::ModelCard;
pub use request::{Options, Output, Strictness, Summary};
use shard_writer::ShardWriter;

/// Bytes that journal and manifest may take per tensor, for the check of free space.
const RECORD_BYTES: u64 = 2048;

/// A planned run. Nothing is written before [`Surgery::prune`].
#[derive(Debug)]
pub struct Surgery {
    /// The input.
    pub checkpoint: Checkpoint,
    /// The decision for every tensor.
    pub plan: TargetPlan,
    /// Where the input is on the hub or in a store, for the manifest: what its path says, if it was not given by name.
    pub source: Option<ModelSource>,
    /// Where the model card goes.
    pub card: CardPlace,
    /// Everything that decides the output's bytes.
    pub recipe: Recipe,
    /// Files beside the shards.
    pub sidecars: Vec<Sidecar>,
    /// Threads and memory.
    pub memory: MemoryPlan,
    /// What the user should know about metadata that the model card cannot keep and, once it is calibrated, about the
    /// decoder of an activation-aware method.
    pub notes: Vec<String>,
    pub(crate) allowed: Allowed,
    pub(crate) strictness: Strictness,
    pub(crate) links: LinkPolicy,
    /// Metadata of the input's README.md.
    front_matter: FrontMatter,
    /// Windows of calibration tokens, for an activation-aware method.
    windows: Option<Vec<Vec<u32>>>,
}

impl Surgery {
    /// Opens and validates the checkpoint and decides for every tensor. Writes nothing.
    ///
    /// # Errors
    /// `Compute` for an arithmetic that this machine does not have; `Usage` for parameters out of range, and for targets whose activations an activation-aware method cannot
    /// capture; `Checkpoint` for a malformed checkpoint, or one with nothing to prune; `Transposed` for a method
    /// that works along the inputs, on a target that is not stored `[out_features, in_features]`; `NoMemory` if
    /// `options.memory` is less than the run needs.
    pub fn plan(model: &Path, recipe: Recipe, options: Options) -> Result<Surgery> {
        let recipe = with_arithmetic(recipe);
        arithmetic::check(recipe.arithmetic)?;
        check_recipe(&recipe)?;
        let checkpoint = Checkpoint::open(model)?;
        let plan = TargetPlan::new(&checkpoint, &recipe.selection())?;
        if options.strictness == Strictness::Refuse {
            plan.refuse_skipped_projections(checkpoint.shards())?;
        }
        plan.require_targets(&checkpoint)?;
        let needs = recipe.needs();
        if needs.along_inputs {
            refuse_transposed(&checkpoint, &plan)?;
        }
        let sidecars = Sidecar::list(&checkpoint, Purpose::NewWeights, options.links)?;
        let allowed = Allowed::by(options.memory);
        let within = (options.threads.max(1), allowed);
        let memory = MemoryPlan::new(&checkpoint, &plan, &recipe, within);
        let windows = None;
        let front_matter = model_card::front_matter(&checkpoint, &sidecars)?;
        match needs.calibration {
            Some(_) => Solving::check(&plan)?,
            // That of an activation-aware method is known once it is calibrated.
            None => memory.check(allowed)?,
        }
        let strictness = options.strictness;
        Ok(Surgery {
            source: ModelSource::of_dir(model),
            card: CardPlace::default(),
            checkpoint,
            plan,
            recipe,
            sidecars,
            memory,
            notes: front_matter.notes.clone(),
            allowed,
            strictness,
            links: options.links,
            front_matter,
            windows,
        })
    }

    /// Supplies the calibration text that the recipe names, for an activation-aware method.
    ///
    /// # Errors
    /// `Usage` for a method that does not use a calibration text, for a window beyond the model's maximum, and for
    /// targets that the model's config does not ask for, such as layers beyond `num_hidden_layers`; `NoMemory` if the
    /// run needs more than its options allow;
    /// `Checkpoint` and `Model` for faults in the text, the tokenizer or the decoder.
    pub fn calibrate(&mut self, text: &CalibrationText) -> Result<()> {
        self.calibrate_like(text, None)
    }

    /// As [`Surgery::calibrate`]. If `other` has the same model and calibration, its windows are taken, and the text is
    /// not read again.
    pub(crate) fn calibrate_like(
        &mut self,
        text: &CalibrationText,
        other: Option<&Surgery>,
    ) -> Result<()> {
        let needs = self.recipe.needs();
        let Some(calibration) = needs.calibration else {
            return Err(Error::Usage("this method does not use a calibration text".to_owned()));
        };
        let decoder = Decoder::open(self.checkpoint.dir(), Residency::Streamed)?;
        let most = decoder.config().max_positions.map_or(u64::MAX, |most| most as u64);
        if calibration.window > most {
            let window = calibration.window;
            let what = format!("--window {window}: the model supports at most {most} positions");
            return Err(Error::Usage(what));
        }
        Solving::check_layers(&self.plan, decoder.config())?;
        let same = other.filter(|other| other.recipe.needs().calibration == Some(calibration));
        let windows = match same.and_then(|other| other.windows.clone()) {
            Some(windows) => windows,
            None => text.windows(decoder.files(), &calibration)?,
        };
        // What tokenizing has freed is used again, so that it does not count.
        release_memory();
        let footprint = self.footprint(&decoder, &windows)?;
        let memory = self.memory.with(&footprint, self.allowed);
        memory.check(self.allowed)?;
        self.memory = memory;
        self.windows = Some(windows);
        self.notes = self.front_matter.notes.clone();
        self.notes.extend(decoder.notes().iter().map(ToString::to_string));
        Ok(())
    }

    /// Fails if the input's README.md cannot have the model card that is to be there.
    ///
    /// # Errors
    /// `Checkpoint`.
    pub(crate) fn check_card(&self) -> Result<()> {
        self.model_card().check()
    }

    /// Takes the windows of a calibration text as they are.
    pub(crate) fn take_windows(&mut self, windows: Vec<Vec<u32>>) {
        self.windows = Some(windows);
    }

    /// Most resident bytes that the run's options allow; `None` for no limit.
    pub fn memory_limit(&self) -> Option<u64> {
        self.allowed.bytes
    }

    /// What [`Surgery::prune`] would find at its output's place. Writes nothing. Hashes what decides whether an unfinished run
    /// can be resumed, if there is one.
    ///
    /// # Errors
    /// `Checkpoint` for a place that it would refuse, for an unfinished run that it could not resume, for a README.md that cannot
    /// have the model card, and if `cancel` is raised.
    pub fn look_at_output(&self, output: Output<'_>, cancel: &Cancel) -> Result<FoundOutput> {
        self.model_card().check()?;
        Ok(Staging::look(&self.staging_request(output), &mut |_| cancel.check())?)
    }

    /// What is to be written where.
    fn staging_request<'a>(&'a self, output: Output<'a>) -> StagingRequest<'a> {
        let Output { dir, overwrite, resume } = output;
        StagingRequest {
            out: dir,
            checkpoint: &self.checkpoint,
            run: run_record(&self.recipe, &self.checkpoint),
            inputs: self.inputs(),
            output_bytes: self.output_bytes(),
            solved_bytes: self.solved_bytes(),
            overwrite,
            resume,
        }
    }

    /// Whether one threshold over all targets decides what is pruned.
    pub(crate) fn is_over_model(&self) -> bool {
        self.recipe.needs().calibration.is_none()
            && matches!(self.recipe.method.amount(), Amount::Sparsity { scope: Scope::Model, .. })
    }

    pub(crate) fn preparation(&self, found: Found) -> Preparation<'_> {
        Preparation {
            checkpoint: &self.checkpoint,
            recipe: &self.recipe,
            memory: self.memory,
            found,
        }
    }

    /// The cuts of one threshold over the model.
    ///
    /// # Errors
    /// `Checkpoint` for targets that cannot be read.
    ///
    /// # Panics
    /// If the recipe has none.
    pub(crate) fn model_cuts(&self, cancel: &Cancel) -> Result<ModelCuts> {
        let Amount::Sparsity { sparsity, .. } = self.recipe.method.amount() else {
            panic!("a threshold over the model is by sparsity");
        };
        let (checkpoint, plan, threads) = (&self.checkpoint, &self.plan, self.memory.workers);
        ModelSearch { checkpoint, plan, threads, cancel }.cuts(sparsity)
    }

    /// Prunes into `output.dir`, which appears only once complete.
    ///
    /// # Errors
    /// `Interrupted` when `cancel` is raised: a later call with the same recipe and output resumes the run. `Usage`
    /// for an activation-aware method without a calibration text. Otherwise what stopped the run. The output
    /// directory has not appeared then.
    pub fn prune(
        &self,
        output: Output<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Summary> {
        self.model_card().check()?;
        let request = self.staging_request(output);
        if request.inputs.shards == ShardInputs::All {
            progress.event(Event::Step("hashing the input"));
        }
        let mut staging = Staging::begin(request, &mut |_| cancel.check())?;
        let records = match self.write_shards(&mut staging, cancel, progress) {
            Ok(records) => records,
            Err(
                e @ (Error::NonFinite { .. }
                | Error::Unsolvable { .. }
                | Error::DeadInputs { resumed: false, .. }),
            ) => {
                // This recipe fails on this input every time: there is nothing to resume.
                staging.discard()?;
                return Err(e);
            }
            Err(e) => return Err(resumable(e, staging.dir())),
        };
        let dir = staging.dir().to_owned();
        let summary = self.publish(staging, &records, cancel).map_err(|e| resumable(e, &dir))?;
        progress.event(Event::Finished);
        Ok(summary)
    }

    /// Writes every shard that an interrupted run has not finished.
    fn write_shards(
        &self,
        staging: &mut Staging,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Records> {
        let mut records = Records::of_resumed(staging.finished());
        let (shards, first) = (self.checkpoint.shards(), records.resumed);
        if first > 0 {
            let (kept, of) = (Kept::Shards, shards.len());
            progress.event(Event::Resumed { kept, count: first, of });
        }
        self.refuse_dead_inputs(&records.tensors)?;
        if first == shards.len() {
            return Ok(records);
        }
        let found = if self.recipe.needs().calibration.is_some() {
            Found::Solved(self.solve(staging, first, cancel, progress)?)
        } else if self.is_over_model() {
            progress.event(Event::Step("finding the model-wide threshold"));
            Found::Cuts(self.model_cuts(cancel)?)
        } else {
            Found::Nothing
        };
        let mut engine = Engine::prepare(self.preparation(found), cancel)?;
        (0..first).try_for_each(|shard| engine.release(self.tensors_of(shard)))?;
        let bytes = shards[first..].iter().map(Shard::size_bytes).sum();
        let tensors = shards[first..].iter().map(|shard| shard.tensors.len() as u64).sum();
        progress.event(Event::Started { task: "prune", bytes, tensors });
        let mut writer = ShardWriter { staging, records: &mut records, progress };
        for (index, shard) in shards.iter().enumerate().skip(first) {
            let tensors = self.tensors_of(index);
            writer.write(&ShardRun { engine: &engine, shard, tensors })?;
            engine.release(tensors)?;
        }
        Ok(records)
    }

    /// Fails if targets that an interrupted run wrote have dead inputs, and that is to be refused.
    fn refuse_dead_inputs(&self, written: &[TensorRecord]) -> Result<()> {
        let dead = |record: &TensorRecord| record.processed().map_or(0, |done| done.dead_inputs);
        for record in written.iter().filter(|record| dead(record) > 0) {
            let mut targets = self.plan.targets();
            if let Some(target) = targets.find(|target| target.input.name == record.name) {
                self.dead_inputs().check(target, dead(record), true)?;
            }
        }
        Ok(())
    }

    /// What to do with inputs that are always zero.
    pub(crate) fn dead_inputs(&self) -> DeadInputs {
        match self.strictness {
            Strictness::Skip => DeadInputs::Count,
            Strictness::Refuse => DeadInputs::Refuse,
        }
    }

    /// Solves the targets of the shards from `first_shard` on, and all that their inputs depend on, with an activation-aware
    /// method.
    fn solve(
        &self,
        staging: &Staging,
        first_shard: usize,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<SolvedWeights> {
        let solving = Solving {
            model: self.checkpoint.dir(),
            plan: &self.plan,
            recipe: &self.recipe,
            windows: self.windows()?,
            threads: self.memory.threads,
            dir: staging.dir().join(SOLVED_DIR),
            key: staging.key(),
            streams: self.memory.streams.expect("a plan with windows has streams"),
            pruned_inputs: self.memory.pruned_inputs,
            dead_inputs: self.dead_inputs(),
        };
        solving.run(first_shard, cancel, progress)
    }

    /// What the output depends on beside the recipe and the headers. With activations, and with one threshold for
    /// the model, each shard of the output depends on all of the input.
    pub(crate) fn inputs(&self) -> Inputs<'_> {
        let calibrated = self.recipe.needs().calibration.is_some();
        Inputs {
            files: if calibrated { &TOKENIZER_FILES } else { &[] },
            shards: match calibrated || self.is_over_model() {
                true => ShardInputs::All,
                false => ShardInputs::Own,
            },
            calibration_tokens: self.windows.as_deref().map(calibration::digest_of),
        }
    }

    /// The windows of the calibration text.
    ///
    /// # Errors
    /// `Usage` if there was none.
    pub(crate) fn windows(&self) -> Result<&[Vec<u32>]> {
        let missing = || Error::Usage("this method needs a calibration text".to_owned());
        self.windows.as_deref().ok_or_else(missing)
    }

    /// The plan's tensors of one shard; consecutive, as the plan is in file order.
    pub(crate) fn tensors_of(&self, shard: usize) -> &[PlannedTensor] {
        let tensors = &self.plan.tensors;
        let begin = tensors.partition_point(|tensor| tensor.shard < shard);
        let end = tensors.partition_point(|tensor| tensor.shard <= shard);
        &tensors[begin..end]
    }

    fn model_card(&self) -> ModelCard<'_> {
        ModelCard {
            place: self.card,
            checkpoint: &self.checkpoint,
            sidecars: &self.sidecars,
            recipe: &self.recipe,
            source: self.source.as_ref(),
            base: &self.front_matter,
        }
    }

    /// Copies the other files, writes the card and the manifest, and makes the output appear.
    pub(crate) fn publish(
        &self,
        staging: Staging,
        records: &Records,
        cancel: &Cancel,
    ) -> Result<Summary> {
        // Before files are copied: the input may have a directory of the same name.
        staging.remove_solved()?;
        let mut other_files = OtherFiles { source: self.source.clone(), ..OtherFiles::default() };
        let card = self.model_card();
        for sidecar in &self.sidecars {
            match sidecar.disposition {
                Disposition::Copy if card.rewrites(&sidecar.path) => {}
                Disposition::Copy => {
                    let (dir, path) = (self.checkpoint.dir(), &sidecar.path);
                    let copied = staging.copy_sidecar(dir, path, &mut |_| cancel.check())?;
                    other_files.files.push(copied);
                }
                Disposition::LeftOut(reason) => other_files.left_out.push(LeftOut {
                    path: sidecar.path.to_string_lossy().into_owned(),
                    reason: reason.to_owned(),
                }),
            }
        }
        let totals = Totals::of(&records.tensors);
        card.write(&staging, records, &mut other_files)?;
        staging.publish(totals, |journal: FileEntry| {
            other_files.files.push(journal);
            records.manifest(&self.recipe, totals, other_files)
        })?;
        Ok(Summary {
            totals,
            output_error: records.mean_output_error(),
            resumed_shards: records.resumed,
            shards: records.shards.len(),
            output_bytes: records.shards.iter().map(|shard| shard.size_bytes).sum(),
        })
    }
}

/// What stopped a run, with the directory that a cancelled one leaves.
pub(crate) fn resumable(e: Error, staging: &Path) -> Error {
    match e {
        Error::Checkpoint(physarium_checkpoint::Error::Interrupted) => {
            Error::Interrupted { staging: staging.to_owned() }
        }
        other => other,
    }
}

/// Fails if a target's rows are not known to run along its inputs.
fn refuse_transposed(checkpoint: &Checkpoint, plan: &TargetPlan) -> Result<()> {
    let Some((tensor, orientation)) = plan.first_not_by_rows() else { return Ok(()) };
    let found = match orientation {
        Orientation::InOut => "stored [in_features, out_features] (as Conv1D is)",
        Orientation::OutIn | Orientation::Unknown => "of unknown orientation",
    };
    let file = checkpoint.shards()[tensor.shard].path.clone();
    Err(Error::Transposed { file, tensor: tensor.input.name.clone(), found })
}
