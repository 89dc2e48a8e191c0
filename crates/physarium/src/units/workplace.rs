//! Runs units of a plan.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use physarium_checkpoint::journal::{self, Record, RunRecord};
use physarium_checkpoint::manifest::{self, FileEntry};
use physarium_checkpoint::{
    Digest, Error as CheckpointError, LinkPolicy, Source, UnitRecord, UnitsDir,
};
use serde_json::Value;

use super::cost::Costs;
use super::listing;
use super::plan::{Unit, WorkPlan};
use crate::calibration;
use crate::error::{Error, Result};
use crate::memory_limit::MemoryLimit;
use crate::records::run_record;
use crate::surgery::{CardPlace, Options, Strictness, Surgery};

/// Most bytes of a journal's first line that are read: one takes some 200 bytes per shard.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// A plan whose inputs are as they were, and the place of its units.
pub struct Workplace {
    pub(super) plan: WorkPlan,
    pub(super) surgery: Surgery,
    pub(super) dir: UnitsDir,
}

/// What a unit has written, and what there is to say of it.
pub(super) struct Made {
    /// Names of its files.
    pub files: Vec<String>,
    /// The shard among them, whose digest is known.
    pub shard: Option<FileEntry>,
    pub did: Value,
}

impl Workplace {
    /// Checks that the input, the program and the machine's arithmetic are those of the plan. `path`: where the plan is, which
    /// errors name.
    ///
    /// # Errors
    /// `Checkpoint` for inputs that changed and for a plan that is not of this input; `Compute` for an arithmetic that this
    /// machine does not have; those of [`Surgery::plan`].
    pub fn open(
        plan: WorkPlan,
        path: &Path,
        threads: usize,
        memory: MemoryLimit,
    ) -> Result<Workplace> {
        let strictness = if plan.strict { Strictness::Refuse } else { Strictness::Skip };
        let links = if plan.follow_links { LinkPolicy::Follow } else { LinkPolicy::LeaveOut };
        let options = Options { threads, strictness, links, memory };
        let mut surgery = Surgery::plan(&plan.model, plan.run.recipe.clone(), options)?;
        surgery.source = plan.source.clone();
        surgery.card = if plan.card { CardPlace::InReadme } else { CardPlace::Beside };
        refuse_other_headers(&plan, &surgery, path)?;
        plan.input.refuse_changed_files(&surgery.checkpoint)?;
        if surgery.recipe.needs().calibration.is_some() {
            let found = calibration::digest_of(&plan.windows);
            if plan.input.calibration_tokens() != Some(found) {
                return Err(of_another_run(path, "calibration tokens"));
            }
            surgery.take_windows(plan.windows.clone());
        }
        let same = |a: &Unit, b: &Unit| (&a.id, &a.work, &a.needs) == (&b.id, &b.work, &b.needs);
        let expected = listing::units(&surgery, &Costs::Unasked)?;
        let is_same = expected.len() == plan.units.len()
            && expected.iter().zip(&plan.units).all(|(a, b)| same(a, b));
        if !is_same {
            return Err(of_another_run(path, "list of units"));
        }
        let dir = UnitsDir::beside(&plan.out, &plan.model)?;
        Ok(Workplace { plan, surgery, dir })
    }

    /// The plan.
    pub fn plan(&self) -> &WorkPlan {
        &self.plan
    }

    /// The run as it is planned on this host.
    pub fn surgery(&self) -> &Surgery {
        &self.surgery
    }

    /// Whether the output of this plan is published, so that nothing is left to do. An output that was there before the plan
    /// is not it.
    pub(super) fn is_published(&self) -> bool {
        if manifest_at(&self.plan.out).is_none() || self.would_replace() {
            return false;
        }
        run_at(&self.plan.out).as_ref() == Some(&self.plan.run)
    }

    /// Whether the output is there that was to be replaced when the plan was made.
    pub(super) fn would_replace(&self) -> bool {
        self.plan.replaces.is_some() && manifest_at(&self.plan.out) == self.plan.replaces
    }

    /// Whether a unit is done.
    ///
    /// # Errors
    /// `Checkpoint` if that cannot be found out.
    pub fn is_done(&self, unit: &Unit) -> Result<bool> {
        Ok(self.record(unit)?.is_some())
    }

    /// The first unit that one needs and that is not done.
    pub(super) fn missing<'a>(&self, unit: &'a Unit) -> Result<Option<&'a str>> {
        for id in &unit.needs {
            let needed = self.plan.unit(id).expect("the list was checked");
            if !self.is_done(needed)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The record of a unit, if it is done.
    pub(super) fn record(&self, unit: &Unit) -> Result<Option<UnitRecord>> {
        let record = self.dir.record(&unit.id)?;
        match &record {
            Some(found) if found.key != self.plan.key => {
                let other = CheckpointError::Output {
                    path: self.dir.path().to_owned(),
                    what: "units of another plan",
                    expected: format!("those of the plan with key {}", self.plan.key),
                    found: format!(
                        "key {}\nhint: finish that plan, or remove this directory",
                        found.key
                    ),
                };
                Err(other.into())
            }
            _ => Ok(record),
        }
    }
}

/// The SHA-256 of the manifest of a finished output, if there is one.
pub(super) fn manifest_at(out: &Path) -> Option<Digest> {
    let file = Source::open(&out.join(manifest::FILE_NAME)).ok()?;
    file.sha256::<CheckpointError>(&mut |_| Ok(())).ok()
}

/// The run of the output that is there.
pub(super) fn run_at(out: &Path) -> Option<RunRecord> {
    let file = File::open(out.join(journal::FILE_NAME)).ok()?;
    let mut line = String::new();
    BufReader::new(file.take(MAX_LINE_BYTES)).read_line(&mut line).ok()?;
    match serde_json::from_str(&line).ok()? {
        Record::Run(run) => Some(run),
        _ => None,
    }
}

/// Fails unless the headers of the input are those of the plan.
fn refuse_other_headers(plan: &WorkPlan, surgery: &Surgery, path: &Path) -> Result<()> {
    let now = run_record(&surgery.recipe, &surgery.checkpoint);
    for (before, shard) in plan.run.input.iter().zip(surgery.checkpoint.shards()) {
        let (before, after) = (before.header_sha256, shard.header_sha256);
        if before != after {
            return Err(CheckpointError::InputChanged {
                path: shard.path.clone(),
                what: "SHA-256 of the header",
                before: before.to_string(),
                after: after.to_string(),
            }
            .into());
        }
    }
    if now == plan.run { Ok(()) } else { Err(of_another_run(path, "recipe or list of shards")) }
}

fn of_another_run(path: &Path, what: &str) -> Error {
    CheckpointError::Record {
        path: path.to_owned(),
        what: "plan of units of work".to_owned(),
        expected: format!("the {what} of this input and recipe"),
        found: "another one\nhint: make the plan again".to_owned(),
    }
    .into()
}
