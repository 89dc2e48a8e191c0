//! Units that read weights only: a threshold over the model, and a shard of the output.

use std::collections::BTreeMap;

use physarium_checkpoint::journal::{ShardRecord, TensorRecord};
use physarium_checkpoint::manifest::FileEntry;
use physarium_checkpoint::{Attempt, PlannedTensor, printable};
use physarium_flow::Cut;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::listing::{THRESHOLD, solve_id};
use super::workplace::{Made, Workplace};
use crate::cancel::Cancel;
use crate::engine::{Engine, Found, ModelCuts, ShardRun, SolvedWeights, Stored};
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};
use crate::records::tensor_record;

/// Name of the file of solved weights of a unit.
pub(super) const SOLVED: &str = "solved.safetensors";

/// What a unit that wrote a shard says.
#[derive(Serialize, Deserialize)]
pub(super) struct ShardDone {
    pub shard: ShardRecord,
    pub tensors: Vec<TensorRecord>,
}

impl Workplace {
    /// Finds the threshold over the model.
    pub(super) fn threshold(&self, cancel: &Cancel) -> Result<Made> {
        let cuts = self.surgery.model_cuts(cancel)?;
        let of_target = |cuts: &Vec<Cut>| -> Vec<(u32, u64)> {
            cuts.iter().map(|cut| (cut.below, cut.ties_end)).collect()
        };
        let cuts: BTreeMap<_, _> =
            cuts.iter().map(|(name, cuts)| (name, of_target(cuts))).collect();
        Ok(Made { files: Vec::new(), shard: None, did: json!({ "cuts": cuts }) })
    }

    /// Writes a shard of the output.
    pub(super) fn shard(
        &self,
        name: &str,
        attempt: &Attempt,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Made> {
        let shards = self.surgery.checkpoint.shards();
        let index = shards.iter().position(|shard| shard.name == name);
        let index = index.expect("the list of units was checked");
        let (shard, tensors) = (&shards[index], self.surgery.tensors_of(index));
        let engine = Engine::prepare(self.surgery.preparation(self.found(tensors)?), cancel)?;
        let (bytes, count) = (shard.size_bytes(), tensors.len() as u64);
        progress.event(Event::Started { task: "prune", bytes, tensors: count });
        let mut part = attempt.create_shard(name, bytes)?;
        let mut records = Vec::new();
        let run = ShardRun { engine: &engine, shard, tensors };
        let (input_sha256, output_sha256) = run.run(&mut part, &mut |bytes, complete| {
            progress.event(Event::Bytes(bytes));
            if let Some(tensor) = complete {
                progress.event(Event::Tensor(&tensor.planned.input.name));
                records.push(tensor_record(&engine, shard, &tensor));
            }
            Ok(())
        })?;
        self.plan.input.refuse_changed_shard(&shard.path, name, input_sha256)?;
        part.finish()?;
        let (name, size_bytes) = (name.to_owned(), bytes);
        let entry = FileEntry { path: name.clone(), size_bytes, sha256: output_sha256 };
        let shard = ShardRecord { name, size_bytes, input_sha256, output_sha256 };
        let did = serde_json::to_value(ShardDone { shard, tensors: records });
        let did = did.expect("records are plain JSON");
        progress.event(Event::Finished);
        Ok(Made { files: Vec::new(), shard: Some(entry), did })
    }

    /// What other units have found out for these tensors.
    fn found(&self, tensors: &[PlannedTensor]) -> Result<Found> {
        if self.surgery.recipe.needs().calibration.is_some() {
            let mut solved = SolvedWeights::default();
            for target in tensors.iter().filter(|tensor| tensor.is_target()) {
                // Only their places are kept.
                drop(solved.remember(self.stored(target)?));
            }
            return Ok(Found::Solved(solved));
        }
        if self.surgery.is_over_model() {
            return Ok(Found::Cuts(self.cuts()?));
        }
        Ok(Found::Nothing)
    }

    /// The solved weights of a target.
    pub(super) fn stored(&self, target: &PlannedTensor) -> Result<Stored> {
        let id = solve_id(&target.views[0].site);
        let path = self.dir.file(&id, SOLVED);
        Stored::read(&path, self.plan.key, &[target])?.ok_or_else(|| {
            physarium_checkpoint::Error::Record {
                path,
                what: format!("solved weights of {}", printable(&target.input.name)),
                expected: "those that the unit's record names".to_owned(),
                found: "none, or damaged ones".to_owned(),
            }
            .into()
        })
    }

    /// The threshold over the model.
    fn cuts(&self) -> Result<ModelCuts> {
        let unit = self.plan.unit(THRESHOLD).expect("the list of units was checked");
        let record = self.record(unit)?.expect("what a unit needs is done");
        let cuts: Option<BTreeMap<String, Vec<(u32, u64)>>> =
            serde_json::from_value(record.did["cuts"].clone()).ok();
        let cuts = cuts.ok_or_else(|| self.malformed(THRESHOLD))?;
        let cut = |(below, ties_end)| Cut { below, ties_end };
        let of_target = |cuts: Vec<_>| cuts.into_iter().map(cut).collect();
        let cuts: ModelCuts = cuts.into_iter().map(|(n, cuts)| (n, of_target(cuts))).collect();
        let is_whole = |target: &PlannedTensor| {
            cuts.get(&target.input.name).is_some_and(|cuts| cuts.len() == target.views.len())
        };
        match self.surgery.plan.targets().all(is_whole) {
            true => Ok(cuts),
            false => Err(self.malformed(THRESHOLD)),
        }
    }

    /// The error for a record that has not what a unit of its kind says.
    pub(super) fn malformed(&self, unit: &str) -> Error {
        physarium_checkpoint::Error::Record {
            path: self.dir.file(unit, ""),
            what: "record of a unit of work".to_owned(),
            expected: "what a unit of its kind says".to_owned(),
            found: "something else".to_owned(),
        }
        .into()
    }

    /// What the unit of a shard says.
    pub(super) fn shard_done(&self, unit: &str, did: Value) -> Result<ShardDone> {
        serde_json::from_value(did).map_err(|_| self.malformed(unit))
    }
}
