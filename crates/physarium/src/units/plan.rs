//! A run as a list of units of work, in a file.

use std::path::{Path, PathBuf};

use physarium_checkpoint::journal::RunRecord;
use physarium_checkpoint::{
    Digest, Error as CheckpointError, InputDigests, ModelSource, Source, printable,
};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Schema of the plan.
pub(super) const SCHEMA: &str = "physarium.units/1";
/// Beginning of the schema of plans of all versions.
const ANY_SCHEMA: &str = "physarium.units/";
/// Largest plan that is read, in bytes: a unit has some 300 bytes, a calibration token six.
const MAX_PLAN_BYTES: u64 = 256 << 20;

/// A run as a list of units of work. The same plan is given to every unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkPlan {
    pub(super) schema: String,
    /// The input, an absolute path on every host.
    pub model: PathBuf,
    /// The output, an absolute path on every host. What units exchange is beside it.
    pub out: PathBuf,
    /// The SHA-256 of the manifest of a finished output that was at `out` when the plan was made: it is not that of the plan,
    /// and is replaced by it.
    pub(super) replaces: Option<Digest>,
    /// Whether projections that cannot be pruned, and inputs that are always zero, are refused.
    pub(super) strict: bool,
    /// Whether files that links out of the checkpoint point to are copied.
    pub(super) follow_links: bool,
    /// Where the input is on the hub or in a store, for the manifest.
    pub(super) source: Option<ModelSource>,
    /// Whether the model card goes to the head of README.md.
    pub(super) card: bool,
    /// Processors for each unit.
    pub cpus: usize,
    /// A digest of everything that decides the output.
    pub key: Digest,
    /// What the journal of the output begins with: program, recipe and headers of the input.
    pub run: RunRecord,
    /// Digests of the input.
    pub(super) input: InputDigests,
    /// The units, each after those that it needs.
    pub units: Vec<Unit>,
    /// The windows of calibration tokens, for an activation-aware method.
    pub(super) windows: Vec<Vec<u32>>,
}

/// A unit of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name in the plan: letters, digits and hyphens.
    pub id: String,
    /// What it does.
    #[serde(flatten)]
    pub work: Work,
    /// The ids of units that must be done before.
    pub needs: Vec<String>,
    /// What it is expected to take.
    pub cost: Cost,
}

/// What a unit does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// Finds one threshold over the model.
    Threshold,
    /// Measures gradients, and decides how many weights of each target are pruned.
    Budget,
    /// Carries a group of windows up to a stage of a layer, and sums the statistics of its inputs.
    Statistics {
        /// The layer; the first is 0.
        layer: usize,
        /// The stage of the layer; the first is 0.
        stage: usize,
        /// The group of windows; the first is 0.
        group: usize,
    },
    /// Solves a projection from the statistics of its stage.
    Solve {
        /// Its tensor.
        tensor: String,
    },
    /// Writes a shard of the output.
    Shard {
        /// Its file name.
        shard: String,
    },
}

/// What a unit is expected to take, from a measured second of the work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Seconds on the processors of the plan, of the kind that it was made on.
    pub seconds: f64,
    /// Most resident memory in bytes.
    pub memory_bytes: u64,
}

impl WorkPlan {
    /// Reads a plan.
    ///
    /// # Errors
    /// `Checkpoint` for a file that cannot be read or is no plan of this program's version.
    pub fn read(path: &Path) -> Result<WorkPlan> {
        let bytes = Source::open(path)?.read_all(MAX_PLAN_BYTES)?;
        let fault = |expected: &str, found: String| CheckpointError::Record {
            path: path.to_owned(),
            what: "plan of units of work".to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let plan: WorkPlan = serde_json::from_slice(&bytes)
            .map_err(|e| fault("what `physarium plan` printed", printable(&e.to_string())))?;
        if plan.schema != SCHEMA {
            return Err(fault(SCHEMA, printable(&plan.schema)).into());
        }
        if plan.run.tool != crate::records::TOOL {
            let hint = "\nhint: make the plan again, or use the version that made it on every host";
            let found = printable(&plan.run.tool) + hint;
            return Err(fault(&format!("a plan of {}", crate::records::TOOL), found).into());
        }
        if plan.key != plan.input.key(&plan.run) {
            let found = "other recipe or digests".to_owned();
            return Err(fault(&format!("what has the key {}", plan.key), found).into());
        }
        Ok(plan)
    }

    /// Whether a file is a plan, which may be of another version of the program.
    pub fn is_at(path: &Path) -> bool {
        #[derive(Deserialize)]
        struct Schema {
            schema: String,
        }
        let bytes = Source::open(path).and_then(|file| file.read_all(MAX_PLAN_BYTES));
        let schema = bytes.ok().and_then(|bytes| serde_json::from_slice::<Schema>(&bytes).ok());
        schema.is_some_and(|found| found.schema.starts_with(ANY_SCHEMA))
    }

    /// The plan as JSON with a line for each unit.
    pub fn encode(&self) -> String {
        let mut plan = serde_json::to_value(self).expect("a plan is plain JSON");
        let units = std::mem::take(&mut plan["units"]);
        let windows = std::mem::take(&mut plan["windows"]);
        let lines = |list: &serde_json::Value| {
            let items = list.as_array().into_iter().flatten();
            let items: Vec<String> = items.map(|item| format!("    {item}")).collect();
            if items.is_empty() {
                "[]".to_owned()
            } else {
                format!("[\n{}\n  ]", items.join(",\n"))
            }
        };
        let text = serde_json::to_string_pretty(&plan).expect("plain JSON");
        let text = text.replacen("\"units\": null", &format!("\"units\": {}", lines(&units)), 1);
        text.replacen("\"windows\": null", &format!("\"windows\": {}", lines(&windows)), 1) + "\n"
    }

    /// The unit of an id.
    pub fn unit(&self, id: &str) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.id == id)
    }

    /// For each unit, the length of the longest chain of units that it needs. Units of the same number can run side by side.
    pub fn waves(&self) -> Vec<usize> {
        let mut of_id = std::collections::HashMap::new();
        let mut waves = Vec::with_capacity(self.units.len());
        for unit in &self.units {
            let before = unit.needs.iter().filter_map(|id| of_id.get(id.as_str()));
            let wave = before.max().map_or(0, |last: &usize| last + 1);
            of_id.insert(&unit.id[..], wave);
            waves.push(wave);
        }
        waves
    }
}
