//! Runs units of a plan.

use std::path::Path;

use physarium_checkpoint::manifest::FileEntry;
use physarium_checkpoint::{
    Attempt, Error as CheckpointError, LinkPolicy, Published, Stopwatch, UnitRecord, UnitsDir,
    printable,
};
use physarium_model::{Decoder, Residency};
use serde_json::Value;

use super::calibrated::Calibrated;
use super::cost::Costs;
use super::listing;
use super::plan::{Unit, Work, WorkPlan};
use crate::calibration;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::memory_limit::MemoryLimit;
use crate::peak::peak_resident_bytes;
use crate::progress::Progress;
use crate::records::run_record;
use crate::surgery::{CardPlace, Options, Strictness, Surgery};

/// A plan whose inputs are as they were, and the place of its units.
pub struct Workplace {
    pub(super) plan: WorkPlan,
    pub(super) surgery: Surgery,
    pub(super) dir: UnitsDir,
}

/// How a call to run a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The unit is done by this call.
    Done,
    /// It was done before.
    Before,
    /// Another process did the same meanwhile, with the same result.
    Duplicate,
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

    /// Whether a unit is done.
    ///
    /// # Errors
    /// `Checkpoint` if that cannot be found out.
    pub fn is_done(&self, unit: &Unit) -> Result<bool> {
        Ok(self.record(unit)?.is_some())
    }

    /// Runs a unit, unless it is done. Several processes may run the same one.
    ///
    /// # Errors
    /// `Usage` for an id that the plan does not have, and for a unit that needs one which is not done; `NoMemory`; `Checkpoint`
    /// for another attempt with another result, and if `cancel` is raised; otherwise as [`Surgery::prune`]. The unit can
    /// then be run again.
    pub fn run(&self, id: &str, cancel: &Cancel, progress: &mut dyn Progress) -> Result<Ended> {
        let unit = self.plan.unit(id).ok_or_else(|| {
            let (id, units) = (printable(id), self.plan.units.len());
            Error::Usage(format!("{id}: not a unit of this plan, expected one of its {units}"))
        })?;
        if self.is_done(unit)? {
            return Ok(Ended::Before);
        }
        if let Some(needed) = self.missing(unit)? {
            let needed = format!("{id} needs {needed}, expected that to be done, found no result");
            return Err(Error::Usage(needed));
        }
        let stopwatch = Stopwatch::start();
        let attempt = self.dir.begin(&unit.id)?;
        let made = match self.make(unit, &attempt, cancel, progress) {
            // Another attempt was first, and removed what this one was reading.
            Err(_) if self.is_done(unit)? => return Ok(Ended::Before),
            made => made?,
        };
        let took = stopwatch.took(peak_resident_bytes());
        let mut record = UnitRecord::new(&unit.id, self.plan.key, made.did, took);
        record.files.extend(made.shard);
        for name in &made.files {
            record.files.push(attempt.entry(name)?);
        }
        let published = attempt.publish(&record)?;
        self.remove_used(unit)?;
        Ok(match published {
            Published::First => Ended::Done,
            Published::Duplicate => Ended::Duplicate,
        })
    }

    fn make(
        &self,
        unit: &Unit,
        attempt: &Attempt,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Made> {
        let calibrated = || Calibrated::new(self, cancel);
        match &unit.work {
            Work::Threshold => self.threshold(attempt, cancel),
            Work::Shard { shard } => self.shard(shard, attempt, cancel, progress),
            Work::Budget => calibrated()?.budget(attempt, progress),
            Work::Statistics { layer, stage, group } => {
                calibrated()?.statistics((*layer, *stage, *group), attempt, progress)
            }
            Work::Solve { tensor } => calibrated()?.solve(tensor, attempt),
        }
    }

    /// Removes what no unit needs any more once this one is done.
    fn remove_used(&self, unit: &Unit) -> Result<()> {
        let Work::Statistics { layer, stage, group } = &unit.work else { return Ok(()) };
        let decoder = Decoder::open(&self.plan.model, Residency::Streamed)?;
        let stages = decoder.config().stages();
        super::calibrated::used(&stages, (*layer, *stage, *group))
            .into_iter()
            .try_for_each(|(id, name)| Ok(self.dir.remove_file(&id, name)?))
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
                let mismatch = CheckpointError::StagingMismatch {
                    path: self.dir.path().to_owned(),
                    what: "the key of the plan".to_owned(),
                    theirs: found.key.to_string(),
                    ours: self.plan.key.to_string(),
                };
                Err(mismatch.into())
            }
            _ => Ok(record),
        }
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
