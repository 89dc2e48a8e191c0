//! Runs one unit of a plan.

use physarium_checkpoint::{Attempt, ErrorKind, Published, Stopwatch, UnitRecord, printable};
use physarium_model::{Decoder, Residency};

use super::calibrated::{Calibrated, used};
use super::plan::{Unit, Work};
use super::workplace::{Made, Workplace};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::peak::peak_resident_bytes;
use crate::progress::Progress;

/// How a call to run a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The unit is done by this call.
    Done,
    /// It was done before.
    Before,
    /// Another process did it meanwhile. A result of this call was the same.
    Elsewhere,
}

impl Workplace {
    /// Runs a unit, unless it is done. Several processes may run the same one.
    ///
    /// # Errors
    /// `Usage` for an id that the plan does not have, and for a unit that needs one which is not done; `NoMemory`; `Checkpoint`
    /// for another attempt with another result, and if `cancel` is raised; otherwise as [`Surgery::prune`](crate::Surgery::prune). The unit can
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
            // What the unit needs may be gone once it is done.
            Err(e) if e.kind() != ErrorKind::Interrupted && self.is_done(unit)? => {
                return Ok(Ended::Elsewhere);
            }
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
            Published::Duplicate => Ended::Elsewhere,
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
            Work::Threshold => self.threshold(cancel),
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
        used(&stages, (*layer, *stage, *group))
            .into_iter()
            .try_for_each(|(id, name)| Ok(self.dir.remove_file(&id, name)?))
    }
}
