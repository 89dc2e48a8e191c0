//! What the output states about itself: its journal and its manifest.

use std::collections::HashMap;
use std::path::Path;

use physarium_checkpoint::journal::{self, Checks, InputShard, Journal, TensorRecord, Totals};
use physarium_checkpoint::manifest::{self, Manifest, TensorEntry};
use physarium_checkpoint::{
    Checkpoint, MatrixView, NonFinite, PlannedTensor, Shard, TargetPlan, printable,
};

use super::findings::Verification;
use super::own::leads_out;
use super::seen::ShardSeen;
use super::weights::Changes;
use crate::count::journal_checks::{agrees, read_journal};
use crate::request::bounds::{Request, Weights, Where};

/// What the output states about itself; a record that cannot be read is absent.
pub(super) struct Records {
    journal: Option<Journal>,
    manifest: Option<Manifest>,
}

impl Records {
    pub fn read(out: &Path, result: &mut Verification) -> Records {
        let mut report = |name, what| {
            // One that is missing is reported with the other files.
            if out.join(name).symlink_metadata().is_ok() {
                result.report(name, None, what);
            }
        };
        let journal = own(out, journal::FILE_NAME, |path| read_journal(path, Checks::Required));
        let journal = journal.map_err(|what| report(journal::FILE_NAME, what));
        let manifest = own(out, manifest::FILE_NAME, Manifest::read);
        let manifest = manifest.map_err(|what| report(manifest::FILE_NAME, what));
        Records { journal: journal.ok(), manifest: manifest.ok() }
    }

    /// What the recipe requests, if its sparsity is fixed in advance.
    pub fn request(&self) -> Option<Request> {
        Request::of(&self.journal.as_ref()?.run.recipe)
    }

    /// Compares the zeros of all targets together with what the recipe requests of the model.
    pub fn verify_sum(&self, seen: Weights, result: &mut Verification) {
        let Some(request) = self.request() else { return };
        let Where::Model(sparsity) = request.place else { return };
        if let Some(missed) = request.check(sparsity.count(seen.elements), seen) {
            let what = format!("zeros do not match the recipe: all targets: {missed}");
            result.report(journal::FILE_NAME, None, what);
        }
    }

    /// The manifest's entries of files that are not shards.
    pub fn files(&self) -> impl Iterator<Item = &manifest::FileEntry> {
        self.manifest.iter().flat_map(|manifest| &manifest.files)
    }

    /// Files of the manifest that are not copies of the input's.
    pub fn rewritten(&self) -> &[String] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.rewritten)
    }

    pub fn has_manifest(&self) -> bool {
        self.manifest.is_some()
    }

    /// The journal's tensor records by name.
    pub fn by_name(&self) -> HashMap<&str, &TensorRecord> {
        let records = self.journal.iter().flat_map(|journal| &journal.tensors);
        records.map(|record| (record.name.as_str(), record)).collect()
    }

    /// The tensors that the journal records as processed, each with its matrices by the plan; with none if
    /// there is no plan.
    pub fn targets<'a>(
        &'a self,
        plan: Option<&'a TargetPlan>,
    ) -> HashMap<&'a str, &'a [MatrixView]> {
        let targets = plan.into_iter().flat_map(TargetPlan::targets);
        let views: HashMap<&str, &[MatrixView]> =
            targets.map(|target| (target.input.name.as_str(), &target.views[..])).collect();
        let records = self.by_name().into_iter();
        let processed = records.filter(|(_, record)| record.processed().is_some());
        processed.map(|(name, _)| (name, views.get(name).copied().unwrap_or_default())).collect()
    }

    /// What the recipe may do to weights.
    pub fn changes(&self) -> Changes {
        let recipe = self.journal.as_ref().map(|journal| &journal.run.recipe);
        Changes {
            keeps_non_finite: recipe.is_some_and(|recipe| recipe.non_finite == NonFinite::Keep),
            refits: recipe.is_some_and(|recipe| recipe.needs().refits),
        }
    }

    /// Journal against manifest, and each against its own sums.
    pub fn verify_against_each_other(&self, result: &mut Verification) {
        let Some(journal) = &self.journal else { return };
        let sums = Totals::of(&journal.tensors);
        if journal.totals != Some(sums) {
            let what = "totals: differ from the sums of the tensor records";
            result.report(journal::FILE_NAME, None, what);
        }
        let Some(manifest) = &self.manifest else { return };
        let entries: Option<Vec<TensorEntry>> =
            journal.tensors.iter().map(TensorEntry::of).collect();
        let same = [
            ("tool", manifest.tool == journal.run.tool),
            ("recipe", manifest.recipe == journal.run.recipe),
            ("totals", manifest.totals == sums),
            ("shards", manifest.shards == journal.shards),
            ("tensors", Some(&manifest.tensors) == entries.as_ref()),
        ];
        for (what, _) in same.iter().filter(|(_, same)| !same) {
            result.report(manifest::FILE_NAME, None, format!("{what}: differs from the journal"));
        }
    }

    /// The journal's input and decisions against the model's headers and the plan that its recipe gives on
    /// them. Returns that plan, if there is one.
    pub fn verify_plan(
        &self,
        checkpoint: &Checkpoint,
        result: &mut Verification,
    ) -> Option<TargetPlan> {
        let journal = self.journal.as_ref()?;
        let input = |shard: &Shard| InputShard {
            name: shard.name.clone(),
            size_bytes: shard.size_bytes(),
            header_sha256: shard.header_sha256,
        };
        if !checkpoint.shards().iter().map(input).eq(journal.run.input.iter().cloned()) {
            result.report(journal::FILE_NAME, None, "input: differs from the model's shards");
        }
        match TargetPlan::new(checkpoint, &journal.run.recipe.selection()) {
            Ok(plan) => {
                verify_decisions(journal, &plan, checkpoint.shards(), result);
                Some(plan)
            }
            // The model is valid, so the recipe's patterns belong to another one.
            Err(e) => {
                result.report(journal::FILE_NAME, None, format!("recipe: {e}"));
                None
            }
        }
    }

    /// Size and digests of a shard against its records.
    pub fn verify_digests(&self, shard: &Shard, seen: &ShardSeen, result: &mut Verification) {
        let lists = [
            (journal::FILE_NAME, self.journal.as_ref().map(|journal| &journal.shards)),
            (manifest::FILE_NAME, self.manifest.as_ref().map(|manifest| &manifest.shards)),
        ];
        for (file, shards) in lists {
            let Some(shards) = shards else { continue };
            let Some(record) = shards.iter().find(|record| record.name == shard.name) else {
                result.report(file, None, format!("no record of shard {}", printable(&shard.name)));
                continue;
            };
            if record.size_bytes != shard.size_bytes() {
                let (expected, found) = (record.size_bytes, shard.size_bytes());
                let what = format!("recorded size in bytes, expected {expected}, found {found}");
                result.report(&shard.name, None, what);
            }
            let digests = [
                ("input", &record.input_sha256, Some(&seen.input_sha256)),
                ("output", &record.output_sha256, seen.output_sha256.as_ref()),
            ];
            for (side, stated, computed) in digests {
                // A file without a digest is missing, which is a finding of its own.
                let Some(computed) = computed.filter(|computed| *computed != stated) else {
                    continue;
                };
                let what = format!("SHA-256 of the {side}, expected {stated}, found {computed}");
                result.report(&shard.name, None, what);
            }
        }
    }

    /// Whether the journal records these bytes as a shard of the input; true if it cannot tell.
    pub fn may_be_input(&self, shard: &Shard, seen: &ShardSeen) -> bool {
        self.journal.as_ref().is_none_or(|journal| {
            let mut shards = journal.shards.iter();
            shards.any(|r| r.name == shard.name && r.input_sha256 == seen.input_sha256)
        })
    }

    /// Reports a tensor that the journal does not record; without a journal, its absence is reported once.
    pub fn report_unrecorded(&self, tensor: &str, result: &mut Verification) {
        if self.journal.is_some() {
            result.report(journal::FILE_NAME, Some(tensor), "not in the journal");
        }
    }
}

/// Reads a record that is a file of the output itself.
fn own<T>(
    out: &Path,
    name: &str,
    read: impl FnOnce(&Path) -> Result<T, physarium_checkpoint::Error>,
) -> Result<T, String> {
    match leads_out(out, name) {
        Some(what) => Err(what),
        None => read(&out.join(name)).map_err(|e| e.to_string()),
    }
}

/// The journal's tensor records against the plan.
fn verify_decisions(
    journal: &Journal,
    plan: &TargetPlan,
    shards: &[Shard],
    result: &mut Verification,
) {
    let of_plan: Vec<(&str, bool)> =
        plan.tensors.iter().map(|t| (t.input.name.as_str(), t.is_target())).collect();
    let of_journal: Vec<(&str, bool)> =
        journal.tensors.iter().map(|r| (r.name.as_str(), r.processed().is_some())).collect();
    if of_plan != of_journal {
        let pairs = of_plan.iter().zip(&of_journal);
        let tensor = pairs.into_iter().find(|(a, b)| a != b).map(|(plan, _)| plan.0);
        let what = "journal and recipe select different targets";
        return result.report(journal::FILE_NAME, tensor, what);
    }
    let tile_edge = journal.run.recipe.needs().tile_edge;
    for (planned, record) in plan.tensors.iter().zip(&journal.tensors) {
        let consistent = is_whole(record, planned, tile_edge)
            && agrees(record, planned, tile_edge)
            && record.shard == shards[planned.shard].name;
        if !consistent {
            let what = "record: differs from headers and recipe";
            result.report(journal::FILE_NAME, Some(&record.name), what);
        }
    }
}

/// Whether the record of a target states that all its weights and tiles were processed.
fn is_whole(record: &TensorRecord, planned: &PlannedTensor, tile_edge: Option<u64>) -> bool {
    record.processed().is_none_or(|done| {
        done.processed == planned.input.elements
            && done.tiles.is_some() == tile_edge.is_some()
            && done.tiles.is_none_or(|tiles| tiles.visited == tiles.expected)
    })
}
