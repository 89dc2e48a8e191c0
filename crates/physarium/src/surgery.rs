/*!
The surgery from end to end, on one screen: plan, then for each shard read, decide, write, journal,
then publish.
*/

use std::path::Path;

use physarium_checkpoint::journal::{
    self, InputShard, MatrixRecord, Outcome, Processed, RunRecord, ShardRecord, TensorRecord,
    Tiles, Totals,
};
use physarium_checkpoint::manifest::{self, FileEntry, LeftOut, Manifest, TensorEntry};
use physarium_checkpoint::{
    Action, Amount, Checkpoint, Disposition, LinkPolicy, MatrixView, Orientation, Overwrite,
    PlannedTensor, Purpose, Recipe, Resume, SOLVED_DIR, Scope, Shard, Sidecar, Staging,
    StagingRequest, TargetPlan,
};
use physarium_model::{Decoder, Residency};

use crate::calibration::CalibrationText;
use crate::cancel::Cancel;
use crate::engine::{
    Activations, Done, Engine, MemoryPlan, Preparation, ShardRun, SolvedWeights, Solving,
    TensorDone, check_recipe,
};
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Program and version, as records name it.
const TOOL: &str = concat!("physarium ", env!("CARGO_PKG_VERSION"));
/// Bytes that journal and manifest may take per tensor, for the check of free space.
const RECORD_BYTES: u64 = 2048;

/// What to do with projections that cannot be pruned, or that nothing is known of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// Copy those that cannot be pruned, count inputs that are always zero on the calibration text, and
    /// report both.
    #[default]
    Skip,
    /// Refuse the checkpoint.
    Refuse,
}

/// What does not decide the output's bytes, or decides only whether there is one.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads that decide tiles; two more read, write and hash.
    pub threads: usize,
    /// What to do with projections that cannot be pruned.
    pub strictness: Strictness,
    /// What to do with links out of the checkpoint.
    pub links: LinkPolicy,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            strictness: Strictness::Skip,
            links: LinkPolicy::LeaveOut,
        }
    }
}

/// A run that has been planned; nothing is written yet.
#[derive(Debug)]
pub struct Surgery {
    /// The input.
    pub checkpoint: Checkpoint,
    /// The decision for every tensor.
    pub plan: TargetPlan,
    /// What decides the output's bytes.
    pub recipe: Recipe,
    /// Files beside the shards.
    pub sidecars: Vec<Sidecar>,
    /// Threads and memory.
    pub memory: MemoryPlan,
    threads: usize,
    strictness: Strictness,
    /// Windows of calibration tokens, for a method that sees activations.
    windows: Option<Vec<Vec<u32>>>,
}

/// Where a run writes, and what it does with what is in the way.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The output directory.
    pub dir: &'a Path,
    /// What to do with a finished output.
    pub overwrite: Overwrite,
    /// What to do with an unfinished run.
    pub resume: Resume,
}

impl<'a> Output<'a> {
    /// A new directory. A finished output there is refused, an unfinished run is resumed.
    pub fn new(dir: &'a Path) -> Output<'a> {
        Output { dir, overwrite: Overwrite::Refuse, resume: Resume::Continue }
    }
}

/// What a run did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// Sums over all tensors, as journalled.
    pub totals: Totals,
    /// Mean over the processed tensors of the relative square error of their outputs, as journalled;
    /// `None` where the method sees no activations.
    pub output_error: Option<f64>,
    /// Shards that an earlier, interrupted run had finished.
    pub resumed_shards: usize,
    /// All shards.
    pub shards: usize,
    /// Bytes of the output's shards.
    pub output_bytes: u64,
}

impl Surgery {
    /// Opens and validates the checkpoint and decides for every tensor. Writes nothing.
    ///
    /// # Errors
    /// `Usage` for parameters out of range, `Checkpoint` for a bad checkpoint or nothing to prune,
    /// `Transposed` for an N:M pattern on a Conv1D weight.
    pub fn plan(model: &Path, recipe: Recipe, options: Options) -> Result<Surgery> {
        check_recipe(&recipe)?;
        let checkpoint = Checkpoint::open(model)?;
        let plan = TargetPlan::new(&checkpoint, &recipe.selection())?;
        if options.strictness == Strictness::Refuse {
            plan.refuse_skipped_projections(checkpoint.shards())?;
        }
        plan.require_targets(&checkpoint)?;
        let needs = recipe.needs();
        if let (true, Some((tensor, found))) = (needs.along_inputs, plan.first_not_by_rows()) {
            let file = checkpoint.shards()[tensor.shard].path.clone();
            let found = match found {
                Orientation::InOut => "stored [in_features, out_features] (as Conv1D is)",
                Orientation::OutIn | Orientation::Unknown => "of unknown orientation",
            };
            return Err(Error::Transposed { file, tensor: tensor.input.name.clone(), found });
        }
        let sidecars = Sidecar::list(&checkpoint, Purpose::NewWeights, options.links)?;
        let threads = options.threads.max(1);
        let memory = MemoryPlan::new(&checkpoint, &plan, &recipe, threads);
        let windows = None;
        if needs.calibration.is_some() {
            Solving::check(&plan)?;
        }
        let strictness = options.strictness;
        Ok(Surgery { checkpoint, plan, recipe, sidecars, memory, threads, strictness, windows })
    }

    /// Hands over the calibration text that the recipe names.
    ///
    /// # Errors
    /// `Usage` for a recipe that sees no activations; what is wrong with text, tokenizer or decoder.
    pub fn calibrate(&mut self, text: &CalibrationText) -> Result<()> {
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
        let windows = text.windows(decoder.files(), &calibration)?;
        let (config, gradients) = (decoder.config(), needs.gradients);
        let activations = Activations { config, windows: &windows, gradients };
        self.memory = self.memory.with(&activations, &self.plan);
        self.windows = Some(windows);
        Ok(())
    }

    /// Bytes that the output will take.
    pub fn output_bytes(&self) -> u64 {
        let shards: u64 = self.checkpoint.shards().iter().map(Shard::size_bytes).sum();
        let sidecars: u64 = self.sidecars.iter().map(|sidecar| sidecar.size_bytes).sum();
        shards + sidecars + self.plan.tensors.len() as u64 * RECORD_BYTES
    }

    /// Prunes into `out`, which appears under that name only when it is complete. A run that was
    /// interrupted is continued.
    ///
    /// # Errors
    /// `Interrupted` when `cancel` is raised; otherwise what stopped the run. Nothing has appeared
    /// under `out` then.
    pub fn prune(
        &self,
        output: Output<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Summary> {
        let Output { dir, overwrite, resume } = output;
        let request = StagingRequest {
            out: dir,
            checkpoint: &self.checkpoint,
            run: self.run_record(),
            output_bytes: self.output_bytes(),
            overwrite,
            resume,
        };
        let mut staging = Staging::begin(request, &mut |_| cancel.check())?;
        let records = match self.operate(&mut staging, cancel, progress) {
            Ok(records) => records,
            Err(Error::Checkpoint(physarium_checkpoint::Error::Interrupted)) => {
                return Err(Error::Interrupted { staging: staging.dir().to_owned() });
            }
            Err(e @ (Error::NonFinite { .. } | Error::Unsolvable { .. })) => {
                // This recipe will never get through this input: there is nothing to go on with.
                staging.discard()?;
                return Err(e);
            }
            Err(e) => return Err(e),
        };
        let summary = self.publish(staging, &records)?;
        progress.event(Event::Finished);
        Ok(summary)
    }

    fn run_record(&self) -> RunRecord {
        let input = |shard: &Shard| InputShard {
            name: shard.name.clone(),
            size_bytes: shard.size_bytes(),
            header_sha256: shard.header_sha256,
        };
        RunRecord {
            schema: journal::SCHEMA.to_owned(),
            tool: TOOL.to_owned(),
            recipe: self.recipe.clone(),
            input: self.checkpoint.shards().iter().map(input).collect(),
        }
    }

    /// Writes every shard that is not there yet.
    fn operate(
        &self,
        staging: &mut Staging,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Records> {
        let mut records = Records::default();
        for finished in staging.finished() {
            records.shards.push(finished.shard.clone());
            records.tensors.extend(finished.tensors.iter().cloned());
        }
        records.resumed = records.shards.len();
        let (shards, first) = (self.checkpoint.shards(), records.resumed);
        if first > 0 {
            progress.event(Event::Resumed { shards: first, of: shards.len() });
        }
        if first == shards.len() {
            return Ok(records);
        }
        let solved = self.solve(staging.dir(), cancel, progress)?;
        let over_model =
            matches!(self.recipe.method.amount(), Amount::Sparsity { scope: Scope::Model, .. });
        if over_model && solved.is_none() {
            progress.event(Event::Step("finding the model-wide threshold"));
        }
        let preparation = Preparation {
            checkpoint: &self.checkpoint,
            plan: &self.plan,
            recipe: &self.recipe,
            memory: self.memory,
            solved,
        };
        let engine = Engine::prepare(preparation, cancel)?;
        let bytes = shards[first..].iter().map(Shard::size_bytes).sum();
        let tensors = shards[first..].iter().map(|shard| shard.tensors.len() as u64).sum();
        progress.event(Event::Started { task: "prune", bytes, tensors });
        for (index, shard) in shards.iter().enumerate().skip(first) {
            let run = ShardRun { engine: &engine, shard, tensors: self.tensors_of(index) };
            let mut part = staging.create_shard(&shard.name, shard.size_bytes())?;
            let (input_sha256, output_sha256) = run.run(&mut part, &mut |bytes, complete| {
                progress.event(Event::Bytes(bytes));
                let Some(tensor) = complete else { return Ok(()) };
                progress.event(Event::Tensor(&tensor.planned.input.name));
                let record = tensor_record(&engine, shard, &tensor);
                staging.record_tensor(record.clone())?;
                records.tensors.push(record);
                Ok(())
            })?;
            let (name, size_bytes) = (shard.name.clone(), shard.size_bytes());
            let record = ShardRecord { name, size_bytes, input_sha256, output_sha256 };
            staging.finish_shard(part, record.clone())?;
            records.shards.push(record);
            progress.event(Event::Shard(&shard.name));
        }
        Ok(records)
    }

    /// Solves all targets, where the method sees activations.
    fn solve(
        &self,
        staging: &Path,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Option<SolvedWeights>> {
        if self.recipe.needs().calibration.is_none() {
            return Ok(None);
        }
        let Some(windows) = &self.windows else {
            return Err(Error::Usage("this method needs a calibration text".to_owned()));
        };
        let solving = Solving {
            model: self.checkpoint.dir(),
            plan: &self.plan,
            recipe: &self.recipe,
            windows,
            threads: self.threads,
            dir: staging.join(SOLVED_DIR),
        };
        let solved = solving.run(cancel, progress)?;
        if self.strictness == Strictness::Refuse {
            self.refuse_dead_inputs(&solved)?;
        }
        Ok(Some(solved))
    }

    /// Fails if nothing is known of some inputs.
    fn refuse_dead_inputs(&self, solved: &SolvedWeights) -> Result<()> {
        for (tensor, view) in self.plan.matrices() {
            let dead = solved.of(&tensor.input.name).stats.dead_inputs;
            if dead > 0 {
                let what = format!(
                    "{dead} of {} inputs are always zero on the calibration text",
                    view.cols
                );
                return Err(Error::Unsolvable { tensor: tensor.input.name.clone(), what });
            }
        }
        Ok(())
    }

    /// The plan's tensors of one shard: a run of the plan, which is in file order.
    fn tensors_of(&self, shard: usize) -> &[PlannedTensor] {
        let tensors = &self.plan.tensors;
        let begin = tensors.partition_point(|tensor| tensor.shard < shard);
        let end = tensors.partition_point(|tensor| tensor.shard <= shard);
        &tensors[begin..end]
    }

    /// Copies the other files, writes the manifest, and makes the output appear.
    fn publish(&self, staging: Staging, records: &Records) -> Result<Summary> {
        let (mut files, mut left_out) = (Vec::new(), Vec::new());
        for sidecar in &self.sidecars {
            match sidecar.disposition {
                Disposition::Copy => {
                    files.push(staging.copy_sidecar(self.checkpoint.dir(), &sidecar.path)?);
                }
                Disposition::LeftOut(reason) => left_out.push(LeftOut {
                    path: sidecar.path.to_string_lossy().into_owned(),
                    reason: reason.to_owned(),
                }),
            }
        }
        let totals = Totals::of(&records.tensors);
        staging.remove_solved()?;
        staging.publish(totals, |journal: FileEntry| {
            files.push(journal);
            Manifest {
                schema: manifest::SCHEMA.to_owned(),
                tool: TOOL.to_owned(),
                recipe: self.recipe.clone(),
                totals,
                shards: records.shards.clone(),
                files,
                left_out,
                tensors: records.tensors.iter().filter_map(TensorEntry::of).collect(),
                check: String::new(),
            }
        })?;
        Ok(Summary {
            totals,
            output_error: mean_output_error(&records.tensors),
            resumed_shards: records.resumed,
            shards: records.shards.len(),
            output_bytes: records.shards.iter().map(|shard| shard.size_bytes).sum(),
        })
    }
}

/// What was written, over all shards.
#[derive(Default)]
struct Records {
    resumed: usize,
    shards: Vec<ShardRecord>,
    tensors: Vec<TensorRecord>,
}

/// The mean of what is known.
fn mean_output_error(tensors: &[TensorRecord]) -> Option<f64> {
    let errors: Vec<f64> =
        tensors.iter().filter_map(|tensor| tensor.processed()?.output_error).collect();
    let count = errors.len() as f64;
    (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / count)
}

fn tensor_record(engine: &Engine<'_>, shard: &Shard, tensor: &TensorDone<'_>) -> TensorRecord {
    let input = &tensor.planned.input;
    let outcome = match &tensor.planned.action {
        Action::Copy(reason) => Outcome::Skipped { reason: reason.to_string() },
        Action::Prune => Outcome::Processed(processed(engine, tensor)),
    };
    TensorRecord {
        name: input.name.clone(),
        shard: shard.name.clone(),
        dtype: input.dtype,
        shape: input.shape.clone(),
        elements: input.elements,
        outcome,
        output_blake3: Some(tensor.output_blake3),
    }
}

fn processed(engine: &Engine<'_>, tensor: &TensorDone<'_>) -> Processed {
    let (input, named) = (&tensor.planned.input, tensor.planned.projection());
    let (expected, stats) = (engine.tiles(tensor.planned), engine.stats(tensor.planned));
    let done = tensor.sum();
    assert_eq!(done.elements, input.elements, "{}: elements visited", input.name);
    assert_eq!(done.tiles, expected.unwrap_or(0), "{}: tiles visited", input.name);
    Processed {
        projection: named.projection.clone(),
        layer: named.site.layer,
        processed: done.elements,
        pruned: done.counts.pruned,
        already_zero: done.counts.already_zero,
        non_finite: done.counts.non_finite,
        refitted: done.refitted,
        dead_inputs: stats.map_or(0, |stats| stats.dead_inputs),
        output_error: stats.map(|stats| stats.output_error),
        tiles: expected.map(|expected| Tiles { expected, visited: done.tiles }),
        matrices: matrix_records(tensor),
    }
}

/// The matrices of a tensor that has several.
fn matrix_records(tensor: &TensorDone<'_>) -> Vec<MatrixRecord> {
    let views = &tensor.planned.views;
    if views.len() == 1 {
        return Vec::new();
    }
    assert_eq!(views.len(), tensor.matrices.len(), "{}: matrices", tensor.planned.input.name);
    let record = |(view, done): (&MatrixView, &Done)| MatrixRecord {
        map: view.site.map.name().to_owned(),
        expert: view.site.expert,
        elements: done.elements,
        pruned: done.counts.pruned,
        already_zero: done.counts.already_zero,
    };
    views.iter().zip(&tensor.matrices).map(record).collect()
}
