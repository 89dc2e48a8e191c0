/*!
Solves the targets of an activation-aware method, layer by layer, before shards are written.

In: a model, windows of calibration tokens, the plan. Out: for each target, solved weights in its own dtype, in the
file of its layer ([`SolvedWeights`]). A resumed run reuses the files that are complete.

[`StageSolver`] is the only place that distinguishes the activation-aware methods.
*/

mod footprint;
mod narrow;
mod stage_solver;
mod statistics;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use physarium_checkpoint::{
    Amount, Digest, Map, Method, Orientation, PlannedTensor, Recipe, Scope, Site, TargetPlan,
    printable,
};
use physarium_flow::activation::Keep;
use physarium_model::{
    Capture, Compute, Config, Decoder, Dense, GradientPass, Labelled, Labels, PrunedInputs,
    Residency, Sensitivity, Shown, Stage, StreamPlace, Walk, Workspace,
};

pub(crate) use self::footprint::Footprint;
use self::stage_solver::{StageSolver, Wanted};
use self::statistics::StageSums;
use super::allocation::{Allocation, TargetsBySite, ZerosBySite};
use super::solved::{LayerFiles, STREAMS_NAME, SolvedMap, SolvedWeights};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::memory_limit::Streams;
use crate::progress::{Event, Kept, Progress};
use crate::recipe::arithmetic::compute;
use crate::recipe::effort::stream_share;

/// Calibration tokens of the pass over gradients: enough for means over them, few enough that all their activations
/// fit in memory.
pub(crate) const GRADIENT_TOKENS: usize = 8192;

/// What to do with inputs that are always zero on the calibration text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadInputs {
    /// Count them.
    Count,
    /// Stop at the first target that has some.
    Refuse,
}

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

    /// Solves all layers that have no complete file.
    ///
    /// # Errors
    /// `Usage` for a target that the decoder does not have; `Model` and `Checkpoint` for faults in files;
    /// `Unsolvable` for weights or activations that the method cannot use.
    pub fn run(&self, cancel: &Cancel, progress: &mut dyn Progress) -> Result<SolvedWeights> {
        let files = LayerFiles::new(self.dir.clone(), self.key)?;
        let decoder = Decoder::open(self.model, Residency::Streamed)?;
        let targets = self.targets(decoder.config())?;
        let compute = compute(self.threads, self.recipe.arithmetic)?.stopping_when(cancel.asked());
        let windows: Vec<&[u32]> = self.windows.iter().map(Vec::as_slice).collect();
        let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0);
        // Activations are only summed over many tokens.
        let coarse = compute.coarse();
        let workspace = Workspace::new(&coarse, decoder.config(), longest);
        let needs = self.recipe.needs();
        let calibration = needs.calibration.expect("only activation-aware methods are solved");
        let mut watch = Watch { cancel, progress };
        let sensitivities = match needs.gradients {
            true => {
                let labels = Labels::Drawn { seed: calibration.seed };
                Some(self.sensitivities(&decoder, &workspace, labels, &mut watch)?)
            }
            false => None,
        };
        let allocation = || {
            let sensitivities = sensitivities.as_ref();
            let sensitivities = sensitivities.expect("a model-wide budget needs gradients");
            Allocation::new(&decoder, &compute, &targets, sensitivities)
        };
        let zeros = self.zeros(&targets, allocation)?;
        // Work that was stopped has meaningless results: this is asked wherever they are used.
        cancel.check()?;
        let layers = decoder.config().layers();
        let steps = (layers * decoder.config().stages().len() * windows.len()) as u64;
        let begun = Event::LayersStarted { task: "calibrate", layers: layers as u64, steps };
        watch.progress.event(begun);
        let mut solver = LayerSolver {
            method: self.recipe.method,
            dense_stream: needs.dense_stream,
            compute: &compute,
            targets,
            zeros,
            sensitivities,
            sums: StageSums::default(),
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
        let decoder = &decoder;
        Walk { decoder, windows, workspace, streams, pruned_inputs, stream_share }
            .run(&mut solver)?;
        solver.tell_kept_layers();
        Ok(solver.files.finish())
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

    /// Number of zeros of each target; empty for a pattern, which fixes them itself. `allocation` is called
    /// for a model-wide budget only.
    fn zeros(
        &self,
        targets: &TargetsBySite<'_>,
        allocation: impl FnOnce() -> Result<Allocation>,
    ) -> Result<ZerosBySite> {
        Ok(match self.recipe.method.amount() {
            Amount::Sparsity { sparsity, scope: Scope::Model } => {
                allocation()?.by_sparsity(sparsity)
            }
            Amount::Sparsity { sparsity, .. } => {
                let zeros = |target: &PlannedTensor| sparsity.count(target.input.elements);
                targets.iter().map(|(site, target)| (site.clone(), zeros(target))).collect()
            }
            Amount::Price(price) => allocation()?.by_price(price),
            Amount::Pattern(_) | Amount::Emergent => ZerosBySite::new(),
        })
    }

    /// The targets by site.
    ///
    /// # Errors
    /// `Usage` for a target that the decoder does not have.
    fn targets(&self, config: &Config) -> Result<TargetsBySite<'_>> {
        let layers = config.layers() as u64;
        let stages = config.stages();
        let shapes = || stages.iter().flat_map(|stage| &stage.maps);
        let mut targets = TargetsBySite::new();
        for target in self.plan.targets() {
            let site = map_site(self.plan, target)?;
            let is_in_layer = shapes().any(|shape| shape.map == site.map);
            if !is_in_layer || site.layer.is_none_or(|layer| layer >= layers) {
                return Err(no_activations(target));
            }
            targets.insert(site.clone(), target);
        }
        Ok(targets)
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

/// The windows of the pass over gradients, spread over all `windows`.
fn gradient_windows(windows: &[Vec<u32>]) -> impl Iterator<Item = &[u32]> {
    let window = windows.first().map_or(1, |window| window.len());
    let count = (GRADIENT_TOKENS / window).clamp(1, windows.len().max(1));
    (0..count.min(windows.len())).map(move |index| &windows[index * windows.len() / count][..])
}

/// Cancellation and progress of a run.
struct Watch<'a> {
    cancel: &'a Cancel,
    progress: &'a mut dyn Progress,
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

/// Collects statistics and solves targets stage by stage, and writes a file per layer.
struct LayerSolver<'a> {
    method: Method,
    dense_stream: bool,
    compute: &'a Compute,
    targets: TargetsBySite<'a>,
    zeros: ZerosBySite,
    /// How much predictions depend on outputs, for methods that use gradients.
    sensitivities: Option<BTreeMap<Site, Sensitivity>>,
    sums: StageSums,
    /// Solved weights of the current layer, if an interrupted run left its file.
    kept: Option<BTreeMap<Site, Dense>>,
    /// Layers taken from an interrupted run that the user has not been told of.
    kept_layers: usize,
    /// Whether a layer was taken from an interrupted run.
    is_resumed: bool,
    dead_inputs: DeadInputs,
    /// Layers of the decoder.
    layers: usize,
    /// Maps of the current layer that this run has solved.
    solved: Vec<SolvedMap<'a>>,
    files: LayerFiles,
    watch: Watch<'a>,
}

impl Capture for LayerSolver<'_> {
    type Error = Error;

    fn wants_dense(&self) -> bool {
        self.dense_stream
    }

    fn begin_layer(&mut self, layer: usize) -> Result<()> {
        let targets = || self.targets.iter().filter(|(site, _)| site.layer == Some(layer as u64));
        let tensors: Vec<&PlannedTensor> = targets().map(|(_, target)| *target).collect();
        let kept = self.files.take(layer, &tensors)?;
        self.kept = kept.map(|kept| targets().map(|(site, _)| site.clone()).zip(kept).collect());
        if self.kept.is_none() {
            self.tell_kept_layers();
            return Ok(());
        }
        (self.kept_layers, self.is_resumed) = (self.kept_layers + 1, true);
        tensors.iter().try_for_each(|target| {
            self.refuse_dead(target, self.files.stats_of(&target.input.name).dead_inputs)
        })
    }

    fn inputs(&mut self, stage: &Stage, shown: Shown<'_>) -> Result<()> {
        self.watch.cancel.check()?;
        let wanted = stage.maps().iter().any(|(site, _)| self.targets.contains_key(site));
        if self.kept.is_none() && wanted {
            let width = stage.maps()[0].1.inputs();
            self.sums.add(self.compute, width, shown);
        }
        (0..shown.windows).for_each(|_| self.watch.progress.event(Event::LayerStep));
        Ok(())
    }

    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        let statistics = std::mem::take(&mut self.sums).mean(self.compute);
        self.watch.cancel.check()?;
        // Before any target of the stage is solved.
        let dead = statistics.inputs().dead() as u64;
        let of_stage = stage.maps().iter().filter_map(|(site, _)| self.targets.get(site));
        of_stage.copied().try_for_each(|target| self.refuse_dead(target, dead))?;
        let sites: Vec<Site> = stage.maps().iter().map(|(site, _)| site.clone()).collect();
        // Prepared for the first target that no earlier run has solved.
        let (mut solver, mut statistics) = (None, Some(statistics));
        for (index, site) in sites.iter().enumerate() {
            let Some(target) = self.targets.get(site).copied() else { continue };
            let map = &stage.maps()[index].1;
            let map = if let Some(kept) = &mut self.kept {
                map.with_weights(kept.remove(site).expect("a kept layer has all targets"))
            } else {
                let solver = match &mut solver {
                    Some(solver) => solver,
                    none => {
                        let criterion = self.method.criterion();
                        let statistics = statistics.take().expect("prepared once");
                        none.insert(StageSolver::new(self.compute, criterion, statistics, target)?)
                    }
                };
                let (weights, stats) = solver.solve(Wanted {
                    target,
                    weights: &map.weights(),
                    keep: self.keep(site),
                    output_costs: self.output_costs(site),
                })?;
                let map = map.with_weights(weights);
                self.solved.push(SolvedMap { target, map: map.clone(), stats });
                map
            };
            stage.replace(site, map);
        }
        Ok(())
    }

    fn finish_layer(&mut self, layer: usize) -> Result<()> {
        let (kept, solved) = (self.kept.take(), std::mem::take(&mut self.solved));
        self.watch.cancel.check()?;
        if kept.is_none() && !solved.is_empty() {
            self.files.keep(layer, &solved)?;
        }
        Ok(())
    }
}

impl<'a> LayerSolver<'a> {
    /// Fails if `dead` inputs of a target are always zero and that is to be refused.
    fn refuse_dead(&self, target: &PlannedTensor, dead: u64) -> Result<()> {
        if dead == 0 || self.dead_inputs == DeadInputs::Count {
            return Ok(());
        }
        let (tensor, inputs) = (target.input.name.clone(), target.views[0].cols);
        Err(Error::DeadInputs { tensor, dead, inputs, resumed: self.is_resumed })
    }

    /// Reports the layers that were taken from an interrupted run.
    fn tell_kept_layers(&mut self) {
        let count = std::mem::take(&mut self.kept_layers);
        if count > 0 {
            self.watch.progress.event(Event::Resumed {
                kept: Kept::Layers,
                count,
                of: self.layers,
            });
        }
    }

    /// Which weights of a target the amount keeps.
    fn keep(&self, site: &Site) -> Keep {
        match self.method.amount() {
            Amount::Pattern(pattern) => {
                Keep::Pattern { keep: pattern.keep(), group: pattern.group() }
            }
            _ => Keep::AllBut(self.zeros[site] as usize),
        }
    }

    /// How much predictions depend on each output of a target, for methods that use gradients.
    fn output_costs(&self, site: &Site) -> Option<Vec<f32>> {
        let costs = &self.sensitivities.as_ref()?[site].outputs;
        Some(costs.iter().map(|cost| *cost as f32).collect())
    }
}
