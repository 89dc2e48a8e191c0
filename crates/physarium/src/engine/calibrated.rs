/*!
Solves the targets of an activation-aware method, layer by layer, before shards are written.

In: a model, windows of calibration tokens, the plan. Out: for each target, solved weights in its own dtype, in the
file of its layer ([`SolvedWeights`]). A resumed run reuses the files that are complete.

[`StageSolver`] is the only place that distinguishes the activation-aware methods.
*/

mod budget;
mod footprint;
mod kept_budget;
mod layer_solver;
mod narrow;
mod squares;
mod stage_solver;
mod statistics;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use physarium_checkpoint::{
    Digest, Map, Orientation, PlannedTensor, Recipe, Site, TargetPlan, printable,
};
use physarium_model::{
    Compute, Config, Decoder, GradientPass, Labelled, Labels, PrunedInputs, Residency, Sensitivity,
    StreamPlace, Walk, Workspace,
};

pub(crate) use self::budget::Budget;
pub(crate) use self::footprint::{Footprint, OnTiles};
use self::kept_budget::KeptBudget;
pub(crate) use self::layer_solver::DeadInputs;
use self::layer_solver::{LayerSolver, of_layer};
pub(crate) use self::squares::{SAMPLE_TOKENS, Squares};
pub(crate) use self::stage_solver::{StageSolver, Wanted};
pub(crate) use self::statistics::{DenseMeans, GroupSums, InputSums, StageSums, Summed};
pub(crate) use self::watch::Watch;
pub(crate) use super::allocation::TargetsBySite;
use super::solved::{LayerFiles, STREAMS_NAME, SolvedWeights};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::memory_limit::Streams;
use crate::progress::{Event, Kept, Progress};
use crate::recipe::arithmetic::compute;
use crate::recipe::effort::stream_share;

/// Calibration tokens of the pass over gradients: enough for means over them, few enough that all their activations
/// fit in memory.
pub(crate) const GRADIENT_TOKENS: usize = 8192;

/// The targets to solve, and what they are solved with.
pub(crate) struct Solving<'a> {
    pub model: &'a Path,
    pub plan: &'a TargetPlan,
    pub recipe: &'a Recipe,
    pub windows: &'a [Vec<u32>],
    pub threads: usize,
    /// Directory for the files of solved weights.
    pub dir: PathBuf,
    /// Digest of everything that decides the solved weights; only files that are marked with it are reused.
    pub key: Digest,
    pub dead_inputs: DeadInputs,
    /// Where the residual streams are kept.
    pub streams: Streams,
    /// What becomes of inputs that are needed before and after a target is solved.
    pub pruned_inputs: PrunedInputs,
}

impl Solving<'_> {
    /// Checks that every target is a map of a decoder layer, so that its activations can be captured.
    ///
    /// # Errors
    /// `Usage` for the first target that is not.
    pub fn check(plan: &TargetPlan) -> Result<()> {
        plan.targets().try_for_each(|target| map_site(plan, target).map(|_| ()))
    }

    /// Checks that every target is in a layer that the config asks for.
    ///
    /// # Errors
    /// `Usage` for the first target that is not, with what would exclude its layer.
    pub fn check_layers(plan: &TargetPlan, config: &Config) -> Result<()> {
        let layers = config.layers() as u64;
        let beyond = |target: &&PlannedTensor| {
            map_site(plan, target).is_ok_and(|site| site.layer.is_some_and(|layer| layer >= layers))
        };
        let layer_of = |target: &PlannedTensor| target.views[0].site.layer.unwrap_or(layers);
        let targets: Vec<&PlannedTensor> = plan.targets().filter(beyond).collect();
        let Some(first) = targets.iter().min_by_key(|target| layer_of(target)) else {
            return Ok(());
        };
        let skipped: BTreeSet<u64> = targets.iter().map(|target| layer_of(target)).collect();
        let skip = |layer: &u64| format!("--skip '{}*'", plan.naming.module(*layer, ""));
        Err(Error::Usage(format!(
            "{}: activations not available for this tensor: config.json asks for {layers} layers, 0 to {}; \
             exclude those beyond ({}), or use a method that needs no calibration text",
            printable(&first.input.name),
            layers - 1,
            skipped.iter().map(skip).collect::<Vec<_>>().join(" "),
        )))
    }

    /// The solved weights of all targets of the shards from `first_shard` on, which are to be written: from the files of an
    /// interrupted run, if it has left all of them, or by a walk through the model.
    ///
    /// # Errors
    /// `Usage` for a target that the decoder does not have; `Model` and `Checkpoint` for faults in files;
    /// `Unsolvable` for weights or activations that the method cannot use.
    pub fn run(
        &self,
        first_shard: usize,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<SolvedWeights> {
        let mut files = LayerFiles::new(self.dir.clone(), self.key)?;
        let decoder = Decoder::open(self.model, Residency::Streamed)?;
        let targets = targets_by_site(self.plan, decoder.config())?;
        let needed = targets.iter().filter(|(_, target)| target.shard >= first_shard);
        let needed: BTreeSet<usize> =
            needed.filter_map(|(site, _)| Some(site.layer? as usize)).collect();
        if self.take_all(&mut files, (&targets, &needed), cancel)? {
            let (count, of) = (needed.len(), decoder.config().layers());
            progress.event(Event::Resumed { kept: Kept::Layers, count, of });
            return Ok(files.finish());
        }
        self.walk((&decoder, targets), files, cancel, progress)
    }

    /// Walks through the model, and solves the layers that have no complete file.
    fn walk(
        &self,
        (decoder, targets): (&Decoder, TargetsBySite<'_>),
        files: LayerFiles,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<SolvedWeights> {
        // No layer after the last target's has to be passed.
        let last = targets.keys().filter_map(|site| site.layer).max();
        let layers = last.map_or(0, |layer| layer as usize + 1);
        let mut watch = Watch { cancel, progress };
        let compute = compute(self.threads, self.recipe.arithmetic)?.stopping_when(cancel.asked());
        let windows: Vec<&[u32]> = self.windows.iter().map(Vec::as_slice).collect();
        let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0);
        // Activations are only summed over many tokens.
        let coarse = compute.coarse();
        let workspace = Workspace::new(&coarse, decoder.config(), longest);
        let budget = self.kept_budget((decoder, &targets), &compute, &workspace, &mut watch)?;
        let steps = (layers * decoder.config().stages().len() * windows.len()) as u64;
        let begun = Event::LayersStarted { task: "calibrate", layers: layers as u64, steps };
        watch.progress.event(begun);
        let mut solver = LayerSolver {
            recipe: self.recipe,
            compute: &compute,
            targets,
            budget,
            sums: StageSums::default(),
            group: GroupSums::default(),
            kept: None,
            kept_layers: 0,
            is_resumed: false,
            dead_inputs: self.dead_inputs,
            layers,
            solved: Vec::new(),
            files,
            watch,
        };
        let (windows, workspace) = (&windows[..], &workspace);
        let path = self.scratch();
        let (streams, pruned_inputs) = (self.place(&path), self.pruned_inputs);
        let stream_share = stream_share(self.recipe.method.criterion());
        Walk { decoder, windows, workspace, streams, pruned_inputs, stream_share }
            .run(layers, &mut solver)?;
        solver.tell_kept_layers();
        Ok(solver.files.finish())
    }

    /// Whether an interrupted run has left the solved weights of all these layers, which are then taken.
    ///
    /// # Errors
    /// `Checkpoint` if a file cannot be read; `DeadInputs` for one that is refused.
    fn take_all(
        &self,
        files: &mut LayerFiles,
        (targets, needed): (&TargetsBySite<'_>, &BTreeSet<usize>),
        cancel: &Cancel,
    ) -> Result<bool> {
        if !needed.iter().all(|layer| files.has(*layer)) {
            return Ok(false);
        }
        for layer in needed {
            cancel.check()?;
            let of_layer: Vec<&PlannedTensor> =
                of_layer(targets, *layer).map(|(_, target)| target).collect();
            if files.take(*layer, &of_layer)?.is_none() {
                return Ok(false);
            }
            for target in of_layer {
                let dead = files.stats_of(&target.input.name).dead_inputs;
                self.dead_inputs.check(target, dead, true)?;
            }
        }
        Ok(true)
    }

    /// The scratch file.
    fn scratch(&self) -> PathBuf {
        self.dir.join(STREAMS_NAME)
    }

    /// The place of residual streams, if the scratch file is at `path`.
    fn place<'a>(&self, path: &'a Path) -> StreamPlace<'a> {
        match self.streams {
            Streams::Memory(_) => StreamPlace::Memory,
            Streams::File(_) => StreamPlace::File(path),
        }
    }

    /// The budget, from the file of an interrupted run if it took gradients.
    ///
    /// # Errors
    /// As [`Solving::budget`]; `Checkpoint` if its file cannot be written.
    fn kept_budget(
        &self,
        model: (&Decoder, &TargetsBySite<'_>),
        compute: &Compute,
        workspace: &Workspace<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Budget> {
        if !self.recipe.needs().gradients {
            return self.budget(model, compute, workspace, watch);
        }
        let (dir, key, recipe, targets) = (&self.dir, self.key, self.recipe, model.1);
        let kept = KeptBudget { dir, key, recipe, targets };
        if let Some(budget) = kept.read() {
            let what = "resuming: what the pass over gradients decided is kept, verified by digest";
            watch.progress.event(Event::Step(what));
            return Ok(budget);
        }
        let budget = self.budget(model, compute, workspace, watch)?;
        kept.write(&budget)?;
        Ok(budget)
    }

    /// How many weights of each target are pruned, and how much predictions depend on its outputs.
    ///
    /// # Errors
    /// `Model` for weights that cannot be read; `Checkpoint` if the work was stopped.
    pub fn budget(
        &self,
        (decoder, targets): (&Decoder, &TargetsBySite<'_>),
        compute: &Compute,
        workspace: &Workspace<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Budget> {
        let needs = self.recipe.needs();
        let calibration = needs.calibration.expect("only activation-aware methods are solved");
        let sensitivities = match needs.gradients {
            true => {
                let labels = Labels::Drawn { seed: calibration.seed };
                let sensitivities = self.sensitivities(decoder, workspace, labels, watch)?;
                watch.cancel.check()?;
                refuse_infinite(&sensitivities, targets)?;
                Some(sensitivities)
            }
            false => None,
        };
        let budget = Budget::new(self.recipe, (decoder, targets), compute, sensitivities)?;
        // Work that was stopped has meaningless results: this is asked wherever they are used.
        watch.cancel.check()?;
        Ok(budget)
    }

    /// Measures how much the model's predictions depend on the outputs of each target, on windows spread over the
    /// calibration text.
    fn sensitivities(
        &self,
        decoder: &Decoder,
        workspace: &Workspace<'_>,
        labels: Labels,
        watch: &mut Watch<'_>,
    ) -> Result<BTreeMap<Site, Sensitivity>> {
        let windows: Vec<&[u32]> = gradient_windows(self.windows).collect();
        let layers = decoder.config().layers() as u64;
        let steps = layers * windows.len() as u64;
        let begun = |task| Event::LayersStarted { task, layers, steps };
        watch.progress.event(begun("gradients, forward"));
        let mut done = 0;
        let text = Labelled { windows: &windows, labels };
        GradientPass { decoder, text, workspace, streams: self.place(&self.scratch()) }.run(
            |windows| {
                watch.cancel.check()?;
                if done == steps {
                    watch.progress.event(begun("gradients, backward"));
                }
                done += windows as u64;
                (0..windows).for_each(|_| watch.progress.event(Event::LayerStep));
                Ok(())
            },
        )
    }
}

/// Fails if the pass over gradients has met NaN or infinite numbers at a target.
///
/// # Errors
/// `Unsolvable`.
fn refuse_infinite(
    sensitivities: &BTreeMap<Site, Sensitivity>,
    targets: &TargetsBySite<'_>,
) -> Result<()> {
    let is_infinite = |site: &Site| {
        sensitivities.get(site).is_some_and(|Sensitivity { inputs, outputs }| {
            inputs.iter().chain(outputs).any(|mean| !mean.is_finite())
        })
    };
    match targets.iter().find(|(site, _)| is_infinite(site)) {
        None => Ok(()),
        Some((_, target)) => Err(Error::Unsolvable {
            tensor: target.input.name.clone(),
            what:
                "expected finite activations and gradients, found NaN or infinite ones on this text"
                    .to_owned(),
        }),
    }
}

/// The targets by site.
///
/// # Errors
/// `Usage` for a target that the decoder does not have.
pub(crate) fn targets_by_site<'a>(
    plan: &'a TargetPlan,
    config: &Config,
) -> Result<TargetsBySite<'a>> {
    let layers = config.layers() as u64;
    let stages = config.stages();
    let shapes = || stages.iter().flat_map(|stage| &stage.maps);
    let mut targets = TargetsBySite::new();
    for target in plan.targets() {
        let site = map_site(plan, target)?;
        let is_in_layer = shapes().any(|shape| shape.map == site.map);
        if !is_in_layer || site.layer.is_none_or(|layer| layer >= layers) {
            return Err(no_activations(target));
        }
        targets.insert(site.clone(), target);
    }
    Ok(targets)
}

/// The windows of the pass over gradients, spread over all `windows`.
fn gradient_windows(windows: &[Vec<u32>]) -> impl Iterator<Item = &[u32]> {
    let window = windows.first().map_or(1, |window| window.len());
    let count = (GRADIENT_TOKENS / window).clamp(1, windows.len().max(1));
    (0..count.min(windows.len())).map(move |index| &windows[index * windows.len() / count][..])
}

/// The site of a target that is one map of a decoder layer.
fn map_site<'a>(plan: &TargetPlan, target: &'a PlannedTensor) -> Result<&'a Site> {
    let [view] = &target.views[..] else { return Err(no_activations(target)) };
    let site = &view.site;
    let is_known = match &site.map {
        Map::Q | Map::K | Map::V | Map::O | Map::Gate | Map::Up | Map::Down => true,
        Map::Qkv | Map::GateUp | Map::Other(_) => false,
    };
    // If a checkpoint holds several models, another tensor can have the same site; the decoder has one of them.
    let name = plan.naming.of_site(site) + ".weight";
    let is_map = is_known && site.expert.is_none() && view.orientation == Orientation::OutIn;
    if is_map && name == target.input.name { Ok(site) } else { Err(no_activations(target)) }
}

fn no_activations(target: &PlannedTensor) -> Error {
    Error::Usage(format!(
        "{}: activations not available for this tensor: not a projection of a decoder layer; exclude it, or \
         use a method that needs no calibration text",
        printable(&target.input.name)
    ))
}
