/*!
Units of an activation-aware method.

A unit of statistics takes the residual streams of its group from the unit before it, carries the pruned one past the stage
that has been solved since, and sums the inputs of its own stage. A unit that solves adds the sums of all groups, in the
order of the groups.
*/

mod arrays;

use std::collections::BTreeMap;

use physarium_checkpoint::{Amount, Attempt, PlannedTensor, Site};
use physarium_model::{
    Compute, Decoder, Gram, Layer, Layers, Passage, Residency, StageShape, Workspace, window_groups,
};
use serde_json::json;

use self::arrays::{Array, Arrays};
use super::listing::{BUDGET, statistics_id};
use super::weights::SOLVED;
use super::workplace::{Made, Workplace};
use crate::cancel::Cancel;
use crate::engine::{
    Budget, DeadInputs, DenseMeans, GroupSums, InputSums, SAMPLE_TOKENS, SolvedMap, SolvedWeights,
    Solving, Squares, StageSolver, StageSums, Summed, TargetsBySite, Wanted, Watch,
    targets_by_site, write_solved,
};
use crate::error::{Error, Result};
use crate::memory_limit::Streams;
use crate::progress::{Event, Progress};
use crate::recipe::arithmetic::compute;
use crate::recipe::effort::stream_share;

/// Files of a unit of statistics: the sums, and the streams before and after its stage.
const SUMS: &str = "sums.safetensors";
const PRUNED: &str = "pruned.safetensors";
const DENSE: &str = "dense.safetensors";
/// The file of the unit that measures gradients.
const COSTS: &str = "costs.safetensors";
/// Arrays in the file of sums.
const GRAM: &str = "gram";
const SQUARES: &str = "squares";
const SAMPLE: &str = "sample";
const DENSE_INPUTS: &str = "dense_inputs";
const DENSE_OUTPUTS: &str = "dense_outputs";

/// A layer, a stage in it, and a group of windows.
pub(super) type At = (usize, usize, usize);

/// The residual streams of a group: the pruned one, and the dense one if the method uses it.
type GroupStreams = (Vec<Vec<f32>>, Option<Vec<Vec<f32>>>);

/// An activation-aware run at work.
pub(super) struct Calibrated<'a> {
    place: &'a Workplace,
    cancel: &'a Cancel,
    decoder: Decoder,
    targets: TargetsBySite<'a>,
    compute: Compute,
    stages: Vec<StageShape>,
    windows: Vec<&'a [u32]>,
}

impl<'a> Calibrated<'a> {
    /// Opens the model.
    ///
    /// # Errors
    /// `Model` for a decoder that cannot be opened; `Compute` for threads that cannot be started.
    pub fn new(place: &'a Workplace, cancel: &'a Cancel) -> Result<Calibrated<'a>> {
        let surgery = &place.surgery;
        let decoder = Decoder::open(surgery.checkpoint.dir(), Residency::Streamed)?;
        let targets = targets_by_site(&surgery.plan, decoder.config())?;
        let compute = compute(surgery.memory.threads, surgery.recipe.arithmetic)?;
        let compute = compute.stopping_when(cancel.asked());
        let windows = surgery.windows()?.iter().map(Vec::as_slice).collect();
        let stages = decoder.config().stages();
        Ok(Calibrated { place, cancel, decoder, targets, compute, stages, windows })
    }

    /// Measures gradients, and decides how many weights of each target are pruned.
    pub fn budget(&self, attempt: &Attempt, progress: &mut dyn Progress) -> Result<Made> {
        let surgery = &self.place.surgery;
        let windows = surgery.windows()?;
        surgery.check_memory(surgery.footprint(&self.decoder, windows)?.budget_unit())?;
        let solving = Solving {
            model: surgery.checkpoint.dir(),
            plan: &surgery.plan,
            recipe: &surgery.recipe,
            windows,
            threads: surgery.memory.threads,
            dir: attempt.path(""),
            key: self.place.plan.key,
            streams: Streams::Memory(0),
            pruned_inputs: surgery.memory.pruned_inputs,
            dead_inputs: DeadInputs::Count,
        };
        let coarse = self.compute.coarse();
        let workspace = self.workspace(&coarse, &self.windows);
        let mut watch = Watch { cancel: self.cancel, progress };
        let model = (&self.decoder, &self.targets);
        let budget = solving.budget(model, &self.compute, &workspace, &mut watch)?;
        let costs = budget.output_costs.expect("a unit of its own is for gradients");
        let name = |site: &Site| self.targets[site].input.name.clone();
        let of_targets = costs.iter().filter(|(site, _)| self.targets.contains_key(site));
        let arrays: Vec<Array<'_>> = of_targets
            .map(|(site, costs)| Array {
                name: name(site),
                shape: vec![costs.len()],
                values: costs,
            })
            .collect();
        arrays::write(&attempt.path(COSTS), &arrays)?;
        let zeros: BTreeMap<String, u64> =
            budget.zeros.iter().map(|(site, zeros)| (name(site), *zeros)).collect();
        watch.progress.event(Event::Finished);
        let files = vec![COSTS.to_owned()];
        Ok(Made { files, shard: None, did: json!({ "zeros": zeros }) })
    }

    /// Carries a group of windows up to a stage, and sums the inputs of its maps.
    pub fn statistics(
        &self,
        at: At,
        attempt: &Attempt,
        progress: &mut dyn Progress,
    ) -> Result<Made> {
        let (layer, stage, group) = at;
        let shape = &self.stages[stage];
        let range = window_groups(&self.windows)[group].clone();
        let windows = &self.windows[range.clone()];
        let surgery = &self.place.surgery;
        let footprint = surgery.footprint(&self.decoder, &surgery.windows()?[range])?;
        surgery.check_memory(footprint.statistics_unit(shape))?;
        let (coarse, steps) = (self.compute.coarse(), windows.len() as u64);
        progress.event(Event::LayersStarted { task: "statistics", layers: 1, steps });
        let workspace = self.workspace(&coarse, windows);
        let share = stream_share(surgery.recipe.method.criterion());
        let streams = self.streams(at, windows)?;
        let mut passage = Passage::of_group(windows, &workspace, streams, share);
        if let Some((before, kind)) = self.solved_since(layer, stage) {
            passage.advance_pruned(&before?, kind, Vec::new())?;
        }
        let layers = self.layers(layer, stage, &coarse)?;
        let is_wanted = shape.maps.iter().any(|m| self.targets.contains_key(&m.site(layer)));
        let mut sums = GroupSums::default();
        passage.show(&layers, stage, 0, &mut |_, shown| {
            self.cancel.check()?;
            if is_wanted {
                sums.add(&self.compute, (Summed::of(&surgery.recipe), shape.inputs()), shown);
            }
            (0..shown.windows).for_each(|_| progress.event(Event::LayerStep));
            Ok::<(), Error>(())
        })?;
        drop(layers);
        // Work that was stopped has meaningless results.
        self.cancel.check()?;
        let (pruned, dense) = passage.into_streams();
        let mut files = Vec::new();
        if writes_pruned(&self.stages, stage) {
            files.push(self.write_stream(attempt, PRUNED, &pruned)?);
        }
        if let (Some(dense), true) = (&dense, shape.kind.adds_to_stream()) {
            files.push(self.write_stream(attempt, DENSE, dense)?);
        }
        drop((pruned, dense));
        let tokens = sums.tokens;
        if is_wanted {
            write_sums(attempt, (shape.inputs(), group), sums)?;
            files.push(SUMS.to_owned());
        }
        progress.event(Event::Finished);
        Ok(Made { files, shard: None, did: json!({ "tokens": tokens }) })
    }

    /// Solves a target.
    pub fn solve(&self, tensor: &str, attempt: &Attempt) -> Result<Made> {
        let surgery = &self.place.surgery;
        let named = |(_, target): &(&Site, &&PlannedTensor)| target.input.name == tensor;
        let (site, target) = self.targets.iter().find(named).expect("the list was checked");
        let layer = site.layer.expect("a target of a layer") as usize;
        let of_site = |stage: &StageShape| stage.maps.iter().position(|m| m.map == site.map);
        let found = self.stages.iter().enumerate().find_map(|(i, s)| Some((i, of_site(s)?)));
        let (stage, map) = found.expect("a target is a map of a stage");
        let shape = &self.stages[stage];
        let footprint = surgery.footprint(&self.decoder, surgery.windows()?)?;
        surgery.check_memory(footprint.solve_unit(shape, &shape.maps[map]))?;
        let mut sums = StageSums::default();
        for group in 0..window_groups(&self.windows).len() {
            let at = (layer, stage, group);
            sums.add(&self.compute, self.read_sums(at, shape.inputs())?);
            self.cancel.check()?;
        }
        let statistics = sums.mean(&self.compute);
        let dead = statistics.inputs.dead() as u64;
        surgery.dead_inputs().check(target, dead, true)?;
        let budget = self.read_budget(site)?;
        let criterion = surgery.recipe.method.criterion();
        let solver = StageSolver::new(&self.compute, criterion, statistics, target)?;
        let layer = self.decoder.layer(layer)?;
        let map = layer.at(site).expect("a target is a map of the decoder");
        let (weights, stats) = solver.solve(Wanted {
            target,
            weights: &map.weights(),
            keep: budget.keep(site),
            output_costs: budget.output_costs(site),
        })?;
        self.cancel.check()?;
        let solved = SolvedMap { target, map: map.with_weights(weights), stats };
        write_solved(&attempt.path(SOLVED), self.place.plan.key, &[solved])?;
        let did = serde_json::to_value(stats).expect("figures are plain JSON");
        Ok(Made { files: vec![SOLVED.to_owned()], shard: None, did })
    }

    fn workspace<'b>(&self, coarse: &'b Compute, windows: &[&[u32]]) -> Workspace<'b> {
        let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0);
        Workspace::new(coarse, self.decoder.config(), longest)
    }

    /// The streams of a group as earlier units have left them.
    fn streams(&self, (layer, stage, group): At, windows: &[&[u32]]) -> Result<GroupStreams> {
        let before =
            |writes: &dyn Fn(usize) -> bool| last_before(&self.stages, layer, stage, writes);
        let read = |writer: Option<(usize, usize)>, name| match writer {
            Some((layer, stage)) => {
                let id = statistics_id(layer, self.stages[stage].kind, group);
                self.read_stream(&id, name, windows)
            }
            None => Ok(self.decoder.embedding()?.of_each(windows)?),
        };
        let pruned = read(before(&|stage| writes_pruned(&self.stages, stage)), PRUNED)?;
        let dense = match self.place.surgery.recipe.needs().dense_stream {
            true => Some(read(before(&|stage| self.stages[stage].kind.adds_to_stream()), DENSE)?),
            false => None,
        };
        Ok((pruned, dense))
    }

    /// The stage that was solved since the pruned stream was written, if it adds to that, with its layer.
    fn solved_since(
        &self,
        layer: usize,
        stage: usize,
    ) -> Option<(Result<Layer>, physarium_model::StageKind)> {
        let (layer, before) = previous(&self.stages, layer, stage)?;
        let kind = self.stages[before].kind;
        kind.adds_to_stream().then(|| (self.pruned_layer(layer, before + 1), kind))
    }

    /// A layer of both models, of which the stages before `stage` are solved.
    fn layers(&self, layer: usize, stage: usize, coarse: &Compute) -> Result<Layers> {
        let dense = self.decoder.layer(layer)?;
        dense.prepare(coarse);
        let mut pruned = Layer::clone(&dense);
        self.replace_solved(&mut pruned, layer, stage)?;
        pruned.prepare(coarse);
        Ok(Layers { pruned, dense: Some(dense) })
    }

    /// A layer of the pruned model, of which the stages before `stage` are solved.
    fn pruned_layer(&self, layer: usize, stage: usize) -> Result<Layer> {
        let mut pruned = Layer::clone(&*self.decoder.layer(layer)?);
        self.replace_solved(&mut pruned, layer, stage)?;
        Ok(pruned)
    }

    fn replace_solved(&self, pruned: &mut Layer, layer: usize, stage: usize) -> Result<()> {
        let mut places = SolvedWeights::default();
        for shape in self.stages[..stage].iter().flat_map(|stage| &stage.maps) {
            let site = shape.site(layer);
            let Some(target) = self.targets.get(&site) else { continue };
            let mut weights = places.remember(self.place.stored(target)?);
            let map = pruned.at(&site).expect("a target is a map of the decoder");
            let map = map.with_weights(weights.pop().expect("a file of one target"));
            pruned.replace(&site, map);
        }
        Ok(())
    }

    /// Writes a stream. Returns the file's name.
    fn write_stream(&self, attempt: &Attempt, name: &str, windows: &[Vec<f32>]) -> Result<String> {
        let hidden = self.decoder.config().hidden;
        let mut arrays = Vec::with_capacity(windows.len());
        for (index, values) in windows.iter().enumerate() {
            let shape = vec![values.len() / hidden, hidden];
            arrays.push(Array { name: window_name(index), shape, values });
        }
        arrays::write(&attempt.path(name), &arrays)?;
        Ok(name.to_owned())
    }

    fn read_stream(&self, unit: &str, name: &str, windows: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let arrays = Arrays::open(self.place.dir.proven(unit, name)?)?;
        let hidden = self.decoder.config().hidden;
        let read = |(index, window): (usize, &&[u32])| {
            let expected = vec![window.len(), hidden];
            match arrays.get(&window_name(index))? {
                Some((shape, values)) if shape == expected => Ok(values),
                _ => Err(arrays.unexpected("the residual stream of each window of the group")),
            }
        };
        windows.iter().enumerate().map(read).collect()
    }

    /// The sums of a group at a stage of `width` inputs.
    fn read_sums(&self, (layer, stage, group): At, width: usize) -> Result<GroupSums> {
        let unit = &statistics_id(layer, self.stages[stage].kind, group);
        let record =
            self.place.record(self.place.plan.unit(unit).expect("the list was checked"))?;
        let windows = &self.windows[window_groups(&self.windows)[group].clone()];
        let tokens: usize = windows.iter().map(|window| window.len()).sum();
        if record.and_then(|record| record.did["tokens"].as_u64()) != Some(tokens as u64) {
            return Err(self.place.malformed(unit));
        }
        let arrays = Arrays::open(self.place.dir.proven(unit, SUMS)?)?;
        let unexpected = || arrays.unexpected("the sums of a group");
        let get = |name| arrays.get(name)?.map(|(_, values)| values).ok_or_else(unexpected);
        let inputs = match Summed::of(&self.place.surgery.recipe) {
            Summed::Products => {
                let gram = Gram::from_upper(width, &get(GRAM)?);
                InputSums::Products(gram.ok_or_else(unexpected)?)
            }
            Summed::Squares => {
                let sums = get(SQUARES)?;
                let sample = if group == 0 { get(SAMPLE)? } else { Vec::new() };
                let tokens = if group == 0 { tokens.min(SAMPLE_TOKENS) } else { 0 };
                if [sums.len(), sample.len()] != [width, tokens * width] {
                    return Err(unexpected());
                }
                InputSums::Squares(Squares { sums, sample })
            }
        };
        let adds = self.stages[stage].kind.adds_to_stream();
        let outputs = self.stages[stage].maps[0].outputs;
        let (dense, rows) = match self.place.surgery.recipe.needs().dense_stream {
            false => (DenseMeans::Unused, 0),
            true if adds => (DenseMeans::Outputs(get(DENSE_OUTPUTS)?), outputs),
            true => (DenseMeans::Inputs(get(DENSE_INPUTS)?), width),
        };
        if dense.sums().len() != rows * width {
            return Err(unexpected());
        }
        Ok(GroupSums { tokens, inputs: Some(inputs), dense })
    }

    /// What is decided for a target before any is solved.
    fn read_budget(&self, site: &Site) -> Result<Budget> {
        let recipe = &self.place.surgery.recipe;
        let Some(unit) = self.place.plan.unit(BUDGET) else {
            return Budget::new(recipe, (&self.decoder, &self.targets), &self.compute, None);
        };
        let tensor = &self.targets[site].input.name;
        let record = self.place.record(unit)?.expect("what a unit needs is done");
        let zeros = record.did["zeros"].get(tensor).and_then(serde_json::Value::as_u64);
        let arrays = Arrays::open(self.place.dir.proven(BUDGET, COSTS)?)?;
        let costs = arrays.get(tensor)?.map(|(_, costs)| costs);
        let costs = costs.ok_or_else(|| arrays.unexpected("the costs of every target"))?;
        let is_pattern = matches!(recipe.method.amount(), Amount::Pattern(_));
        match zeros.is_some() || is_pattern {
            true => Ok(Budget::decided(recipe, vec![(site.clone(), zeros, costs)])),
            false => Err(self.place.malformed(BUDGET)),
        }
    }
}

/// The name of a window's array.
fn window_name(index: usize) -> String {
    format!("window.{index:06}")
}

/// Writes the sums of a group.
fn write_sums(attempt: &Attempt, (width, group): (usize, usize), sums: GroupSums) -> Result<()> {
    fn array<'a>(name: &str, shape: Vec<usize>, values: &'a [f32]) -> Array<'a> {
        Array { name: name.to_owned(), shape, values }
    }
    let GroupSums { inputs, dense, .. } = sums;
    let rows = |sums: &Vec<f32>| vec![sums.len() / width, width];
    let (upper, squares);
    let mut arrays = Vec::new();
    match inputs.expect("a group has windows") {
        InputSums::Products(gram) => {
            // Half of the matrix takes the place of all of it.
            upper = gram.upper();
            arrays.push(array(GRAM, vec![upper.len()], &upper));
        }
        InputSums::Squares(summed) => {
            squares = summed;
            arrays.push(array(SQUARES, vec![width], &squares.sums));
            if group == 0 {
                arrays.push(array(SAMPLE, rows(&squares.sample), &squares.sample));
            }
        }
    }
    match &dense {
        DenseMeans::Unused => {}
        DenseMeans::Inputs(sums) => arrays.push(array(DENSE_INPUTS, rows(sums), sums)),
        DenseMeans::Outputs(sums) => arrays.push(array(DENSE_OUTPUTS, rows(sums), sums)),
    }
    arrays::write(&attempt.path(SUMS), &arrays)
}

/// The stage before one, in its layer or the layer before.
fn previous(stages: &[StageShape], layer: usize, stage: usize) -> Option<(usize, usize)> {
    match (layer, stage) {
        (0, 0) => None,
        (layer, 0) => Some((layer - 1, stages.len() - 1)),
        (layer, stage) => Some((layer, stage - 1)),
    }
}

/// Whether units of this stage write the pruned stream: those after a stage that adds to it, and the first.
fn writes_pruned(stages: &[StageShape], stage: usize) -> bool {
    stage == 0 || stages[stage - 1].kind.adds_to_stream()
}

/// The last stage before one whose units write something.
fn last_before(
    stages: &[StageShape],
    layer: usize,
    stage: usize,
    writes: &dyn Fn(usize) -> bool,
) -> Option<(usize, usize)> {
    let mut at = previous(stages, layer, stage);
    while let Some((layer, stage)) = at.filter(|(_, stage)| !writes(*stage)) {
        at = previous(stages, layer, stage);
    }
    at
}

/// Files that no unit needs once a unit of statistics is done, each with its unit: the sums of the stage before, which is
/// solved, and the streams that the unit has written anew.
pub(super) fn used(
    stages: &[StageShape],
    (layer, stage, group): At,
) -> Vec<(String, &'static str)> {
    let id = |(layer, stage): (usize, usize)| statistics_id(layer, stages[stage].kind, group);
    let mut used = Vec::new();
    used.extend(previous(stages, layer, stage).map(|before| (id(before), SUMS)));
    let last = |writes: &dyn Fn(usize) -> bool| last_before(stages, layer, stage, writes).map(id);
    if writes_pruned(stages, stage) {
        used.extend(last(&|stage| writes_pruned(stages, stage)).map(|id| (id, PRUNED)));
    }
    if stages[stage].kind.adds_to_stream() {
        used.extend(last(&|stage| stages[stage].kind.adds_to_stream()).map(|id| (id, DENSE)));
    }
    used
}
