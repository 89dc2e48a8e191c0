//! Solves targets as a walk through the model shows their inputs.

use std::collections::BTreeMap;

use physarium_checkpoint::{PlannedTensor, Recipe, Site};
use physarium_model::{Capture, Compute, Dense, Shown, Stage};

use super::budget::Budget;
use super::stage_solver::{StageSolver, Wanted};
use super::statistics::{GroupSums, StageSums, Summed};
use super::watch::Watch;
use crate::engine::allocation::TargetsBySite;
use crate::engine::solved::{LayerFiles, SolvedMap};
use crate::error::{Error, Result};
use crate::progress::{Event, Kept};

/// What to do with inputs that are always zero on the calibration text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadInputs {
    /// Count them.
    Count,
    /// Stop at the first target that has some.
    Refuse,
}

impl DeadInputs {
    /// Fails if `dead` inputs of a target are always zero and that is to be refused; `is_resumed` if layers were taken from
    /// an interrupted run.
    ///
    /// # Errors
    /// `DeadInputs`.
    pub fn check(self, target: &PlannedTensor, dead: u64, is_resumed: bool) -> Result<()> {
        if dead == 0 || self == DeadInputs::Count {
            return Ok(());
        }
        let (tensor, inputs) = (target.input.name.clone(), target.views[0].cols);
        Err(Error::DeadInputs { tensor, dead, inputs, resumed: is_resumed })
    }
}

/// The targets of a layer, in data-flow order.
pub(super) fn of_layer<'t, 'a>(
    targets: &'t TargetsBySite<'a>,
    layer: usize,
) -> impl Iterator<Item = (&'t Site, &'a PlannedTensor)> {
    let of_layer = targets.iter().filter(move |(site, _)| site.layer == Some(layer as u64));
    of_layer.map(|(site, target)| (site, *target))
}

/// Collects statistics and solves targets stage by stage, and writes a file per layer.
pub(super) struct LayerSolver<'a> {
    pub recipe: &'a Recipe,
    pub compute: &'a Compute,
    pub targets: TargetsBySite<'a>,
    pub budget: Budget,
    /// Sums of the groups of windows that are complete, and of the current one.
    pub sums: StageSums,
    pub group: GroupSums,
    /// Solved weights of the current layer, if an interrupted run left its file.
    pub kept: Option<BTreeMap<Site, Dense>>,
    /// Layers taken from an interrupted run that the user has not been told of.
    pub kept_layers: usize,
    /// Whether a layer was taken from an interrupted run.
    pub is_resumed: bool,
    pub dead_inputs: DeadInputs,
    /// Layers that are passed.
    pub layers: usize,
    /// Maps of the current layer that this run has solved.
    pub solved: Vec<SolvedMap<'a>>,
    pub files: LayerFiles,
    pub watch: Watch<'a>,
}

impl Capture for LayerSolver<'_> {
    type Error = Error;

    fn wants_dense(&self) -> bool {
        self.recipe.needs().dense_stream
    }

    fn begin_layer(&mut self, layer: usize) -> Result<()> {
        let targets = || of_layer(&self.targets, layer);
        let tensors: Vec<&PlannedTensor> = targets().map(|(_, target)| target).collect();
        let kept = self.files.take(layer, &tensors)?;
        self.kept = kept.map(|kept| targets().map(|(site, _)| site.clone()).zip(kept).collect());
        if self.kept.is_none() {
            self.tell_kept_layers();
            return Ok(());
        }
        (self.kept_layers, self.is_resumed) = (self.kept_layers + 1, true);
        tensors.iter().try_for_each(|target| {
            let dead = self.files.stats_of(&target.input.name).dead_inputs;
            self.dead_inputs.check(target, dead, self.is_resumed)
        })
    }

    fn inputs(&mut self, stage: &Stage, shown: Shown<'_>) -> Result<()> {
        self.watch.cancel.check()?;
        let wanted = stage.maps().iter().any(|(site, _)| self.targets.contains_key(site));
        if self.kept.is_none() && wanted {
            let width = stage.maps()[0].1.inputs();
            self.group.add(self.compute, (Summed::of(self.recipe), width), shown);
        }
        (0..shown.windows).for_each(|_| self.watch.progress.event(Event::LayerStep));
        Ok(())
    }

    fn finish_group(&mut self) {
        self.sums.add(self.compute, std::mem::take(&mut self.group));
    }

    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        let statistics = std::mem::take(&mut self.sums).mean(self.compute);
        self.watch.cancel.check()?;
        // Before any target of the stage is solved.
        let dead = statistics.inputs.dead() as u64;
        let of_stage = stage.maps().iter().filter_map(|(site, _)| self.targets.get(site));
        of_stage
            .copied()
            .try_for_each(|target| self.dead_inputs.check(target, dead, self.is_resumed))?;
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
                        let criterion = self.recipe.method.criterion();
                        let statistics = statistics.take().expect("prepared once");
                        none.insert(StageSolver::new(self.compute, criterion, statistics, target)?)
                    }
                };
                let (weights, stats) = solver.solve(Wanted {
                    target,
                    weights: &map.weights(),
                    keep: self.budget.keep(site),
                    output_costs: self.budget.output_costs(site),
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
    /// Reports the layers that were taken from an interrupted run.
    pub fn tell_kept_layers(&mut self) {
        let count = std::mem::take(&mut self.kept_layers);
        if count > 0 {
            self.watch.progress.event(Event::Resumed {
                kept: Kept::Layers,
                count,
                of: self.layers,
            });
        }
    }
}
