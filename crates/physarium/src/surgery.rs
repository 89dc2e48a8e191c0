/*!
The surgery from end to end, on one screen: plan, then for each shard read, decide, write, journal,
then publish.
*/

use std::path::Path;

use physarium_checkpoint::journal::{
    self, InputShard, Outcome, Processed, RunRecord, ShardRecord, TensorRecord, Tiles, Totals,
};
use physarium_checkpoint::manifest::{self, FileEntry, LeftOut, Manifest, TensorEntry};
use physarium_checkpoint::{
    Checkpoint, Decision, Disposition, FlowRecipe, LinkPolicy, Method, Overwrite, PlannedTensor,
    Purpose, Recipe, Resume, SOLVED_DIR, Scope, Shard, Sidecar, Staging, StagingRequest,
    TargetPlan,
};
use physarium_flow::FlowParams;
use physarium_model::{Decoder, Residency};

use crate::calibration::CalibrationText;
use crate::cancel::Cancel;
use crate::engine::{
    Engine, GRADIENT_TOKENS, MemoryPlan, ShardRun, SolvedWeights, Solving, TensorDone, check_recipe,
};
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Program and version, as records name it.
const TOOL: &str = concat!("physarium ", env!("CARGO_PKG_VERSION"));
/// Edge of a tile unless the user says otherwise, in weights.
const DEFAULT_BLOCK_SIZE: u64 = 256;
/// Bytes that journal and manifest may take per tensor, for the check of free space.
const RECORD_BYTES: u64 = 2048;

/// The magnitude flow with its default parameters.
pub fn default_method() -> Method {
    Method::MagnitudeFlow {
        block_size: DEFAULT_BLOCK_SIZE,
        flow: FlowRecipe {
            iterations: FlowParams::DEFAULT_ITERATIONS,
            beta: FlowParams::DEFAULT_BETA,
            inflow: FlowParams::DEFAULT_INFLOW,
        },
    }
}

/// What to do with projections that cannot be pruned, or that nothing is known of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// Carry those that cannot be pruned, count inputs that are nought on all of the calibration text,
    /// and say so.
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
        let across =
            matches!(recipe.method, Method::Pattern { .. }) || recipe.calibrated().is_some();
        if let (true, Some(tensor)) = (across, plan.first_transposed_target()) {
            let file = checkpoint.shards()[tensor.shard].path.clone();
            return Err(Error::Transposed { file, tensor: tensor.info.name.clone() });
        }
        let sidecars = Sidecar::list(&checkpoint, Purpose::NewWeights, options.links)?;
        let threads = options.threads.max(1);
        let memory = MemoryPlan::new(&checkpoint, &plan, &recipe, threads);
        let windows = None;
        if recipe.calibrated().is_some() {
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
        let Some(calibrated) = self.recipe.calibrated() else {
            return Err(Error::Usage("this method sees no calibration text".to_owned()));
        };
        let calibration = calibrated.calibration;
        let decoder = Decoder::open(self.checkpoint.dir(), Residency::Streamed)?;
        let most = decoder.config().max_positions.map_or(u64::MAX, |most| most as u64);
        if calibration.window > most {
            let window = calibration.window;
            let what = format!("--window {window}: the model is made for at most {most} positions");
            return Err(Error::Usage(what));
        }
        self.windows = Some(text.windows(decoder.files(), &calibration)?);
        Ok(())
    }

    /// Bytes that the output will take.
    pub fn output_bytes(&self) -> u64 {
        let shards: u64 = self.checkpoint.shards().iter().map(Shard::size_bytes).sum();
        let sidecars: u64 = self.sidecars.iter().map(|sidecar| sidecar.size_bytes).sum();
        shards + sidecars + self.plan.tensors.len() as u64 * RECORD_BYTES
    }

    /// Resident bytes at most; with a method that sees activations, about.
    pub fn resident_bytes(&self) -> u64 {
        let Some(windows) = &self.windows else { return self.memory.resident_bytes };
        let tokens: u64 = windows.iter().map(|window| window.len() as u64).sum();
        let window = windows.iter().map(|window| window.len() as u64).max().unwrap_or(0);
        let shapes = || self.plan.targets().map(|(_, shape)| shape);
        let widest = shapes().map(|shape| shape.rows.max(shape.cols)).max().unwrap_or(0);
        let inputs = shapes().map(|shape| shape.cols).max().unwrap_or(0);
        let narrowest = shapes().map(|shape| shape.cols).min().unwrap_or(0);
        let largest = shapes().map(|shape| shape.rows * shape.cols).max().unwrap_or(0);
        // Two residual streams; two Gram matrices and what a solver makes of them; the solver's rows;
        // two layers of weights, each twice; a window's activations.
        // Before the streams there are, where gradients decide, those of fewer tokens at all layers.
        let layers = self.plan.targets().filter_map(|(tensor, _)| tensor.role.as_ref()?.layer);
        let depth = layers.max().map_or(0, |last| last + 1);
        let gradients = (GRADIENT_TOKENS as u64).min(tokens) * depth * narrowest * 4;
        let streams = (2 * tokens * narrowest * 4).max(gradients);
        let statistics = 6 * inputs * inputs * 4;
        let layers = 2 * 2 * 3 * largest * 2;
        let activations = 8 * window * widest * 4;
        self.memory.resident_bytes + streams + statistics + 8 * largest * 4 + layers + activations
    }

    /// Prunes into `out`, which appears under that name only when it is complete. A run that was
    /// interrupted is continued.
    ///
    /// # Errors
    /// `Interrupted` when `cancel` is raised; otherwise what stopped the run. Nothing has appeared
    /// under `out` then.
    pub fn prune(
        &self,
        out: &Path,
        overwrite: Overwrite,
        resume: Resume,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Summary> {
        let request = StagingRequest {
            out,
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
        if let Method::Exact { scope: Scope::Model, .. } = self.recipe.method {
            progress.event(Event::Step("looking for the cut over all targets"));
        }
        let solved = self.solve(staging.dir(), cancel, progress)?;
        let (plan, recipe, memory) = (&self.plan, &self.recipe, self.memory);
        let engine = Engine::prepare(&self.checkpoint, plan, recipe, memory, solved, cancel)?;
        let bytes = shards[first..].iter().map(Shard::size_bytes).sum();
        let tensors = shards[first..].iter().map(|shard| shard.tensors.len() as u64).sum();
        progress.event(Event::Started { task: "prune", bytes, tensors });
        for (index, shard) in shards.iter().enumerate().skip(first) {
            let run = ShardRun { engine: &engine, shard, tensors: self.tensors_of(index) };
            let mut part = staging.create_shard(&shard.name, shard.size_bytes())?;
            let (input_sha256, output_sha256) = run.run(&mut part, &mut |bytes, complete| {
                progress.event(Event::Bytes(bytes));
                let Some(tensor) = complete else { return Ok(()) };
                progress.event(Event::Tensor(&tensor.planned.info.name));
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
        if self.recipe.calibrated().is_none() {
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
        for (tensor, shape) in self.plan.targets() {
            let dead = solved.of(&tensor.info.name).trace.dead_inputs;
            if dead > 0 {
                let what = format!(
                    "{dead} of {} inputs are nought on all of the calibration text",
                    shape.cols
                );
                return Err(Error::Unsolvable { tensor: tensor.info.name.clone(), what });
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
    let PlannedTensor { info, role, decision, .. } = tensor.planned;
    let outcome = match decision {
        Decision::Skip(reason) => Outcome::Skipped { reason: reason.to_string() },
        Decision::Target(_) => {
            let (expected, trace) = (engine.tiles(tensor.planned), engine.trace(tensor.planned));
            assert_eq!(tensor.done.elements, info.elements, "{}: elements visited", info.name);
            assert_eq!(tensor.done.tiles, expected.unwrap_or(0), "{}: tiles visited", info.name);
            Outcome::Processed(Processed {
                role: role.clone().expect("a target has a role"),
                processed: tensor.done.elements,
                pruned: tensor.done.counts.pruned,
                already_zero: tensor.done.counts.already_zero,
                non_finite: tensor.done.counts.non_finite,
                refitted: tensor.done.refitted,
                dead_inputs: trace.map_or(0, |trace| trace.dead_inputs),
                output_error: trace.map(|trace| trace.output_error),
                tiles: expected.map(|expected| Tiles { expected, visited: tensor.done.tiles }),
            })
        }
    };
    TensorRecord {
        name: info.name.clone(),
        shard: shard.name.clone(),
        dtype: info.dtype,
        shape: info.shape.clone(),
        elements: info.elements,
        outcome,
        output_blake3: Some(tensor.output_blake3),
    }
}
