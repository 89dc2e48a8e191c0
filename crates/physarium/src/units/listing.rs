//! The units of a run, each after those that it needs.

use std::collections::BTreeMap;

use physarium_checkpoint::Site;
use physarium_model::{Config, Decoder, Residency, StageKind, StageShape, window_groups};

use super::cost::Costs;
use super::plan::{Unit, Work};
use crate::engine::{TargetsBySite, targets_by_site};
use crate::error::Result;
use crate::surgery::Surgery;

/// The id of the unit that finds a threshold over the model.
pub(super) const THRESHOLD: &str = "threshold";
/// The id of the unit that decides how many weights of each target are pruned.
pub(super) const BUDGET: &str = "budget";

/// The units of a run.
///
/// # Errors
/// `Model` for a decoder that cannot be opened; `Usage` for a target that it does not have.
pub(super) fn units(surgery: &Surgery, costs: &Costs<'_>) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    // The units that a shard needs, by the names of its tensors; and those that every shard needs.
    let (mut solves, mut before) = (BTreeMap::new(), Vec::new());
    if surgery.recipe.needs().calibration.is_some() {
        let decoder = Decoder::open(surgery.checkpoint.dir(), Residency::Streamed)?;
        let targets = targets_by_site(&surgery.plan, decoder.config())?;
        let listing = Listing { surgery, costs, config: decoder.config(), targets };
        solves = listing.calibrated(&mut units)?;
    } else if surgery.is_over_model() {
        units.push(costs.unit(THRESHOLD.to_owned(), Work::Threshold, Vec::new())?);
        before.push(THRESHOLD.to_owned());
    }
    for (index, shard) in surgery.checkpoint.shards().iter().enumerate() {
        let tensors = surgery.tensors_of(index).iter();
        let solved = tensors.filter_map(|tensor| solves.get(&tensor.input.name).cloned());
        let needs = before.iter().cloned().chain(solved).collect();
        let work = Work::Shard { shard: shard.name.clone() };
        units.push(costs.unit(shard_id(index), work, needs)?);
    }
    Ok(units)
}

/// The id of a shard's unit.
pub(super) fn shard_id(index: usize) -> String {
    format!("shard-{:05}", index + 1)
}

/// The id of a unit that sums the statistics of a group of windows at a stage.
pub(super) fn statistics_id(layer: usize, kind: StageKind, group: usize) -> String {
    let stage = match kind {
        StageKind::BeforeAttention => "qkv",
        StageKind::MixedValues => "o",
        StageKind::BeforeMlp => "gate-up",
        StageKind::Gated => "down",
    };
    format!("layer-{layer:05}-{stage}-statistics-{group}")
}

/// The id of the unit that solves a target.
pub(super) fn solve_id(site: &Site) -> String {
    let layer = site.layer.expect("a target of a decoder layer");
    format!("layer-{layer:05}-{}-solve", site.map.name().replace('_', "-"))
}

/// What the units of an activation-aware method are made from.
struct Listing<'a> {
    surgery: &'a Surgery,
    costs: &'a Costs<'a>,
    config: &'a Config,
    targets: TargetsBySite<'a>,
}

impl Listing<'_> {
    /// Appends the units that solve all targets. Returns the id of that of each, by the name of its tensor.
    fn calibrated(&self, units: &mut Vec<Unit>) -> Result<BTreeMap<String, String>> {
        let windows = self.surgery.windows()?;
        let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        let groups = window_groups(&windows).len();
        let mut budget = Vec::new();
        if self.surgery.recipe.needs().gradients {
            units.push(self.costs.unit(BUDGET.to_owned(), Work::Budget, Vec::new())?);
            budget.push(BUDGET.to_owned());
        }
        let mut solves = BTreeMap::new();
        // The units that the next stage of each group needs.
        let mut before = vec![Vec::new(); groups];
        let mut solved: Vec<String> = Vec::new();
        for (layer, at, stage) in self.stages() {
            let mut statistics = Vec::new();
            for (group, before) in before.iter_mut().enumerate() {
                let id = statistics_id(layer, stage.kind, group);
                let needs = std::mem::take(before).into_iter().chain(solved.clone()).collect();
                let work = Work::Statistics { layer, stage: at, group };
                units.push(self.costs.unit(id.clone(), work, needs)?);
                before.push(id.clone());
                statistics.push(id);
            }
            solved.clear();
            for shape in &stage.maps {
                let site = shape.site(layer);
                let Some(target) = self.targets.get(&site) else { continue };
                let (id, tensor) = (solve_id(&site), target.input.name.clone());
                let needs = budget.iter().chain(&statistics).cloned().collect();
                let work = Work::Solve { tensor: tensor.clone() };
                units.push(self.costs.unit(id.clone(), work, needs)?);
                solves.insert(tensor, id.clone());
                solved.push(id);
            }
        }
        Ok(solves)
    }

    /// The stages of the model, each with its layer and its place in that, up to the last one with a target.
    fn stages(&self) -> impl Iterator<Item = (usize, usize, StageShape)> {
        let of_layer = self.config.stages();
        let stages = (0..self.config.layers()).flat_map(|layer| {
            of_layer.iter().cloned().enumerate().map(move |(at, stage)| (layer, at, stage))
        });
        let stages: Vec<_> = stages.collect();
        let has_target = |(layer, _, stage): &(usize, usize, StageShape)| {
            stage.maps.iter().any(|shape| self.targets.contains_key(&shape.site(*layer)))
        };
        let end = stages.iter().rposition(has_target).map_or(0, |last| last + 1);
        stages.into_iter().take(end)
    }
}
