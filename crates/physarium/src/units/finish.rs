//! Publishes the output of a plan whose units are done.

use physarium_checkpoint::{Overwrite, Staging, StagingRequest, printable_path};

use super::listing::shard_id;
use super::worker::WAIT;
use super::workplace::Workplace;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};
use crate::records::Records;
use crate::surgery::{Output, Summary, resumable};

impl Workplace {
    /// Proves every shard by its digest, records all in the order of the plan, publishes the output, and removes what the
    /// units have left. A finished output that the plan replaces is replaced, another one only with [`Overwrite::Replace`].
    /// `output.dir` is not used: the plan names it.
    ///
    /// # Errors
    /// `Usage` for units that are not done, and if the output is published already and not to be replaced; otherwise as
    /// [`Surgery::prune`](crate::Surgery::prune), and the call can be made again.
    pub fn finish(
        &self,
        output: Output<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Summary> {
        if output.overwrite == Overwrite::Refuse && self.is_published() {
            // A call that was killed after it had published has left them.
            self.dir.remove()?;
            let out = printable_path(&self.plan.out);
            let what = format!("{out}: the output of this plan is published already");
            return Err(Error::Usage(what));
        }
        self.refuse_undone()?;
        let surgery = &self.surgery;
        let request = StagingRequest {
            out: &self.plan.out,
            checkpoint: &surgery.checkpoint,
            run: self.plan.run.clone(),
            inputs: surgery.inputs(),
            output_bytes: surgery.output_bytes(),
            // What is solved is beside the output already.
            solved_bytes: 0,
            overwrite: if self.would_replace() { Overwrite::Replace } else { output.overwrite },
            resume: output.resume,
        };
        let mut staging = Staging::begin(request, &mut |_| cancel.check())?;
        let dir = staging.dir().to_owned();
        let records = self.adopt(&mut staging, cancel, progress);
        let records = records.map_err(|e| resumable(e, &dir))?;
        let summary = surgery.publish(staging, &records, cancel);
        let summary = summary.map_err(|e| resumable(e, &dir))?;
        self.dir.remove()?;
        progress.event(Event::Finished);
        Ok(summary)
    }

    /// Waits until all units are done, or the output is published.
    ///
    /// # Errors
    /// `Checkpoint` if that cannot be found out, and if `cancel` is raised.
    pub fn wait(&self, cancel: &Cancel) -> Result<()> {
        let mut left = self.plan.units.iter().peekable();
        while let Some(unit) = left.peek() {
            cancel.check()?;
            match self.is_done(unit)? {
                true => drop(left.next()),
                false if self.is_published() => return Ok(()),
                false => std::thread::sleep(WAIT),
            }
        }
        Ok(())
    }

    /// Takes over the shards of all units.
    fn adopt(
        &self,
        staging: &mut Staging,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Records> {
        let mut records = Records::of_resumed(staging.finished());
        let (shards, first) = (self.surgery.checkpoint.shards(), records.resumed);
        let bytes = shards[first..].iter().map(|shard| shard.size_bytes()).sum();
        let tensors = shards[first..].iter().map(|shard| shard.tensors.len() as u64).sum();
        progress.event(Event::Started { task: "finish", bytes, tensors });
        for (index, shard) in shards.iter().enumerate().skip(first) {
            let unit = self.plan.unit(&shard_id(index)).expect("the list was checked");
            let record = self.record(unit)?.expect("all units are done");
            let done = self.shard_done(&unit.id, record.did)?;
            let path = self.dir.file(&unit.id, &shard.name);
            staging.adopt_shard(
                (&path, shard),
                &done.tensors,
                done.shard.clone(),
                &mut |bytes| {
                    progress.event(Event::Bytes(bytes));
                    cancel.check()
                },
            )?;
            records.tensors.extend(done.tensors);
            records.shards.push(done.shard);
            progress.event(Event::Shard(&shard.name));
        }
        Ok(records)
    }

    fn refuse_undone(&self) -> Result<()> {
        let units = &self.plan.units;
        let mut undone = Vec::new();
        for unit in units {
            if !self.is_done(unit)? {
                undone.push(&unit.id[..]);
            }
        }
        let Some(first) = undone.first() else { return Ok(()) };
        let (count, of) = (undone.len(), units.len());
        Err(Error::Usage(format!(
            "{count} of {of} units are not done, expected all, the first is {first}"
        )))
    }
}
