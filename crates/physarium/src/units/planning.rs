//! Makes the plan of a run.

use std::path::Path;

use physarium_checkpoint::manifest::Manifest;
use physarium_checkpoint::{
    Error as CheckpointError, InputDigests, LinkPolicy, Overwrite, UnitsDir, printable_path,
};

use super::plan::{SCHEMA, WorkPlan};
use super::workplace::{manifest_at, run_at};
use super::{cost, listing};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};
use crate::records::run_record;
use crate::surgery::{CardPlace, Strictness, Surgery};

impl WorkPlan {
    /// Plans the units of a run into `out`. Reads the whole input if each shard of the output depends on all of it. Writes
    /// nothing. With [`Overwrite::Replace`], a finished output that is at `out` now is replaced when the plan's is published.
    ///
    /// # Errors
    /// `Usage` for an activation-aware method without a calibration text, and for an output of this recipe and input that is
    /// there already; `Checkpoint` for a path that no run would write to, for what is there and is not to be replaced, for an
    /// input that cannot be read, and if `cancel` is raised.
    pub fn new(
        surgery: &Surgery,
        (out, overwrite): (&Path, Overwrite),
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<WorkPlan> {
        surgery.check_card()?;
        UnitsDir::beside(out, surgery.checkpoint.dir())?;
        let input = surgery.checkpoint.dir();
        let replaced = UnitsDir::check_output(out, input, overwrite, &mut |_| cancel.check())?;
        let replaces = replaced.as_ref().and_then(|_| manifest_at(out));
        let absolute = |path: &Path| {
            let io = |e| CheckpointError::io(path, "resolve", e);
            path.canonicalize().map_err(io)
        };
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let out = absolute(parent)?.join(out.file_name().expect("the path was checked"));
        progress.event(Event::Step("hashing the input"));
        let input =
            InputDigests::of(&surgery.checkpoint, &surgery.inputs(), &mut |_| cancel.check())?;
        let run = run_record(&surgery.recipe, &surgery.checkpoint);
        if let Some(manifest) = replaced.filter(|_| run_at(&out).as_ref() == Some(&run)) {
            refuse_same_input(surgery, &manifest, &out, cancel)?;
        }
        progress.event(Event::Step("measuring a second of the work"));
        let costs = cost::Costs::measured(surgery, cancel)?;
        Ok(WorkPlan {
            schema: SCHEMA.to_owned(),
            model: absolute(surgery.checkpoint.dir())?,
            replaces,
            out,
            strict: surgery.strictness == Strictness::Refuse,
            follow_links: surgery.links == LinkPolicy::Follow,
            source: surgery.source.clone(),
            card: surgery.card == CardPlace::InReadme,
            cpus: surgery.memory.workers.max(surgery.memory.threads),
            key: input.key(&run),
            run,
            input,
            units: listing::units(surgery, &costs)?,
            windows: match surgery.recipe.needs().calibration {
                Some(_) => surgery.windows()?.to_vec(),
                None => Vec::new(),
            },
        })
    }
}

/// Fails if an output of the same run was made of these shards: once the plan's output is in its place, nobody could tell
/// them apart.
fn refuse_same_input(
    surgery: &Surgery,
    manifest: &Manifest,
    out: &Path,
    cancel: &Cancel,
) -> Result<()> {
    for shard in surgery.checkpoint.shards() {
        let digest = shard.reopen()?.sha256(&mut |_| cancel.check())?;
        let recorded = manifest.shards.iter().find(|recorded| recorded.name == shard.name);
        if recorded.is_none_or(|recorded| recorded.input_sha256 != digest) {
            return Ok(());
        }
    }
    Err(Error::Usage(format!(
        "{}: an output of this recipe and input is there already; to make it again, move it away",
        printable_path(out)
    )))
}
