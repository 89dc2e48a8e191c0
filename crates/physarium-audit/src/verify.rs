/*!
Verification: an output is its input with only pruned weights changed.

In: the two directories. Out: every difference found, each with its file, tensor and index. Every
file of both is read; every digest in journal and manifest is computed again; every weight of a
target must be as it was or +0.0; every other byte must be as it was.

The headers are read here by the `safetensors` crate, not by the reader that the pruner uses: if one
of the two misunderstands a header, this is where it shows.
*/

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use physarium_checkpoint::journal::{
    self, Checks, InputShard, Journal, Processed, TensorRecord, Totals,
};
use physarium_checkpoint::manifest::{self, Manifest, TensorEntry};
use physarium_checkpoint::{
    Checkpoint, Digest, Disposition, LinkPolicy, NonFinite, Purpose, Sha256, Shard, Sidecar,
    Source, TargetPlan, printable,
};

use crate::Step;
use crate::error::Result;
use crate::journal_checks::{agrees, read_journal};
use crate::verify_shard::{ShardCheck, ShardSeen, verify_shard};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the output.
    pub file: String,
    /// The tensor, where the difference is in one.
    pub tensor: Option<String>,
    /// What is wrong, with the index where there is one.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", printable(&self.file))?;
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {}: ", printable(tensor))?;
        }
        f.write_str(&self.what)
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Differences, in the order in which they were found; empty when the output is proven.
    pub findings: Vec<Finding>,
    /// Files of the output that were read.
    pub files: u64,
    /// Tensors that were compared.
    pub tensors: u64,
    /// Bytes of the output's shards that were compared with the input's.
    pub bytes: u64,
    /// Weights that are +0.0 and were not zero.
    pub pruned: u64,
    /// Weights that are not zero and not what they were, of a method that refits.
    pub refitted: u64,
}

impl Verification {
    pub(crate) fn find(&mut self, file: &str, tensor: Option<&str>, what: impl Into<String>) {
        let tensor = tensor.map(str::to_owned);
        self.findings.push(Finding { file: file.to_owned(), tensor, what: what.into() });
    }
}

/// Verifies `out` against `model`. `on_step` is told of the work and stops it by returning an
/// error.
///
/// # Errors
/// `Checkpoint` when the *model* is malformed or something cannot be read. Whatever is wrong with
/// the output is a finding.
pub fn verify(
    model: &Path,
    out: &Path,
    on_step: &mut dyn FnMut(Step) -> Result<(), physarium_checkpoint::Error>,
) -> Result<Verification> {
    let checkpoint = Checkpoint::open(model)?;
    fs::metadata(out).map_err(|e| physarium_checkpoint::Error::io(out, "open the output", e))?;
    let total = checkpoint.shards().iter().map(|shard| 2 * shard.size_bytes()).sum();
    on_step(Step::Total(total))?;
    let mut result = Verification::default();
    let records = Records::read(out, &mut result);
    verify_file_list(&checkpoint, out, &records, &mut result)?;
    verify_files(&checkpoint, out, &records, &mut result)?;
    records.verify_against_each_other(&mut result);
    records.verify_plan(&checkpoint, &mut result);
    for shard in checkpoint.shards() {
        let mut on_bytes = |bytes| on_step(Step::Read(bytes));
        let keeps = records.recipe_keeps_non_finite();
        let refits = records.recipe_refits();
        let check = ShardCheck { shard, out, processed: &records.processed(), keeps, refits };
        let seen = verify_shard(&check, &mut result, &mut on_bytes)?;
        records.verify_shard_record(shard, &seen, &mut result);
    }
    Ok(result)
}

/// What the output says about itself.
struct Records {
    journal: Option<Journal>,
    manifest: Option<Manifest>,
}

impl Records {
    fn read(out: &Path, result: &mut Verification) -> Records {
        let keep =
            |name: &str, error: Option<physarium_checkpoint::Error>, r: &mut Verification| {
                if let Some(e) = error {
                    r.find(name, None, e.to_string());
                }
            };
        let (journal, error) = split(read_journal(&out.join(journal::FILE_NAME), Checks::Required));
        keep(journal::FILE_NAME, error, result);
        let (manifest, error) = split(Manifest::read(&out.join(manifest::FILE_NAME)));
        keep(manifest::FILE_NAME, error, result);
        Records { journal, manifest }
    }

    fn tensors(&self) -> &[TensorRecord] {
        self.journal.as_ref().map_or(&[], |journal| &journal.tensors)
    }

    /// Journal records of the tensors that were processed, by name.
    fn processed(&self) -> HashMap<&str, &Processed> {
        self.tensors().iter().filter_map(|r| Some((r.name.as_str(), r.processed()?))).collect()
    }

    /// Whether infinite and NaN weights may be there at all.
    fn recipe_keeps_non_finite(&self) -> bool {
        let recipe = self.journal.as_ref().map(|journal| journal.run.recipe.non_finite);
        recipe == Some(NonFinite::Keep)
    }

    /// Whether weights that survive may have changed.
    fn recipe_refits(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.run.recipe.needs().refits)
    }

    /// Journal against manifest, and both against their own sums.
    fn verify_against_each_other(&self, result: &mut Verification) {
        let Some(journal) = &self.journal else { return };
        let sums = Totals::of(&journal.tensors);
        if journal.totals != Some(sums) {
            let what = format!("totals, expected {sums:?}, found {:?}", journal.totals);
            result.find(journal::FILE_NAME, None, what);
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
            result.find(manifest::FILE_NAME, None, format!("{what}: not as in the journal"));
        }
    }

    /// The journal's input and decisions against the model's headers and what its recipe gives on
    /// them.
    fn verify_plan(&self, checkpoint: &Checkpoint, result: &mut Verification) {
        let Some(journal) = &self.journal else { return };
        let input = |shard: &Shard| InputShard {
            name: shard.name.clone(),
            size_bytes: shard.size_bytes(),
            header_sha256: shard.header_sha256,
        };
        let shards: Vec<InputShard> = checkpoint.shards().iter().map(input).collect();
        if journal.run.input != shards {
            result.find(journal::FILE_NAME, None, "input: not the shards of the model");
        }
        let plan = match TargetPlan::new(checkpoint, &journal.run.recipe.selection()) {
            Ok(plan) => plan,
            // The model is sound: the journal's patterns are not made for it.
            Err(e) => return result.find(journal::FILE_NAME, None, format!("recipe: {e}")),
        };
        let of_plan: Vec<(&str, bool)> = plan
            .tensors
            .iter()
            .map(|tensor| (tensor.input.name.as_str(), tensor.is_target()))
            .collect();
        let of_journal: Vec<(&str, bool)> =
            journal.tensors.iter().map(|r| (r.name.as_str(), r.processed().is_some())).collect();
        if of_plan != of_journal {
            let pairs = of_plan.iter().zip(&of_journal);
            let tensor = pairs.into_iter().find(|(a, b)| a != b).map(|(plan, _)| plan.0);
            let what = "journal and recipe disagree on what is a target";
            return result.find(journal::FILE_NAME, tensor, what);
        }
        let tile_edge = journal.run.recipe.needs().tile_edge;
        for (planned, record) in plan.tensors.iter().zip(&journal.tensors) {
            let whole = record.processed().is_none_or(|done| {
                let visited = done.tiles.is_none_or(|tiles| tiles.visited == tiles.expected);
                done.processed == planned.input.elements
                    && done.tiles.is_some() == tile_edge.is_some()
                    && visited
            });
            let shard = &checkpoint.shards()[planned.shard].name;
            if !(whole && agrees(record, planned, tile_edge) && record.shard == *shard) {
                let what = "record: not as headers and recipe say";
                result.find(journal::FILE_NAME, Some(&record.name), what);
            }
        }
    }

    /// A shard's records against what was computed from its bytes.
    fn verify_shard_record(&self, shard: &Shard, seen: &ShardSeen, result: &mut Verification) {
        let ShardSeen { input_sha256, output_sha256, tensors } = seen;
        let lists = [
            (journal::FILE_NAME, self.journal.as_ref().map(|journal| &journal.shards)),
            (manifest::FILE_NAME, self.manifest.as_ref().map(|manifest| &manifest.shards)),
        ];
        for (file, shards) in lists {
            let Some(shards) = shards else { continue };
            let Some(record) = shards.iter().find(|record| record.name == shard.name) else {
                result.find(file, None, format!("no record of shard {}", printable(&shard.name)));
                continue;
            };
            if record.size_bytes != shard.size_bytes() {
                let (expected, found) = (record.size_bytes, shard.size_bytes());
                let what = format!("stated size in bytes, expected {expected}, found {found}");
                result.find(&shard.name, None, what);
            }
            let digests = [
                ("input", &record.input_sha256, input_sha256),
                ("output", &record.output_sha256, output_sha256),
            ];
            for (side, stated, computed) in digests {
                if stated != computed {
                    let what =
                        format!("SHA-256 of the {side}, expected {stated}, found {computed}");
                    result.find(&shard.name, None, what);
                }
            }
        }
        let by_name: HashMap<&str, &TensorRecord> =
            self.tensors().iter().map(|record| (record.name.as_str(), record)).collect();
        for tensor in tensors {
            let Some(record) = by_name.get(tensor.name.as_str()) else {
                if self.journal.is_some() {
                    result.find(journal::FILE_NAME, Some(&tensor.name), "not in the journal");
                }
                continue;
            };
            tensor.compare(record, &shard.name, result);
        }
    }
}

fn split<T, E>(result: Result<T, E>) -> (Option<T>, Option<E>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error)),
    }
}

/// Which files are there: exactly those that a copy has, and the two records.
fn verify_file_list(
    checkpoint: &Checkpoint,
    out: &Path,
    records: &Records,
    result: &mut Verification,
) -> Result<()> {
    let mut expected: BTreeSet<PathBuf> =
        checkpoint.shards().iter().map(|shard| PathBuf::from(&shard.name)).collect();
    expected.extend([journal::FILE_NAME, manifest::FILE_NAME].map(PathBuf::from));
    for sidecar in Sidecar::list(checkpoint, Purpose::NewWeights, LinkPolicy::LeaveOut)? {
        if sidecar.disposition == Disposition::Copy {
            expected.insert(sidecar.path);
        }
    }
    // What --follow-links took along is in the manifest; its bytes are compared like any other's.
    let listed = records.manifest.iter().flat_map(|manifest| &manifest.files);
    expected.extend(listed.map(|entry| PathBuf::from(&entry.path)));
    let mut there = BTreeSet::new();
    list_files(out, Path::new(""), &mut there)?;
    result.files = there.len() as u64;
    for path in expected.difference(&there) {
        result.find(&path.to_string_lossy(), None, "file is missing from the output");
    }
    for path in there.difference(&expected) {
        let what = "file is in the output and not in the input";
        result.find(&path.to_string_lossy(), None, what);
    }
    Ok(())
}

/// Every entry below a directory that is not itself a directory, links not followed.
fn list_files(root: &Path, relative: &Path, into: &mut BTreeSet<PathBuf>) -> Result<()> {
    let dir = root.join(relative);
    let io = |e| physarium_checkpoint::Error::io(&dir, "list", e);
    for entry in fs::read_dir(&dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = relative.join(entry.file_name());
        if entry.file_type().map_err(io)?.is_dir() {
            list_files(root, &path, into)?;
        } else {
            into.insert(path);
        }
    }
    Ok(())
}

/// The files beside the shards: equal bytes, and digests as the manifest says.
fn verify_files(
    checkpoint: &Checkpoint,
    out: &Path,
    records: &Records,
    result: &mut Verification,
) -> Result<()> {
    let mut listed = BTreeSet::new();
    for entry in records.manifest.iter().flat_map(|manifest| &manifest.files) {
        if !listed.insert(PathBuf::from(&entry.path)) {
            result.find(&entry.path, None, "listed twice in the manifest");
        }
        let Some(there) = open_output(out, &entry.path, result) else { continue };
        if entry.size_bytes != there.len() {
            let what = format!("expected {} bytes, found {}", entry.size_bytes, there.len());
            result.find(&entry.path, None, what);
        }
        let digest = if entry.path == journal::FILE_NAME {
            Sha256::of(&there.read_all(u64::MAX)?)
        } else {
            compare_with_input(checkpoint, Path::new(&entry.path), &there, result)?
        };
        if digest != entry.sha256 {
            let what = format!("SHA-256, expected {}, found {digest}", entry.sha256);
            result.find(&entry.path, None, what);
        }
    }
    if records.manifest.is_some() && !listed.contains(Path::new(journal::FILE_NAME)) {
        result.find(journal::FILE_NAME, None, "not in the manifest");
    }
    // Files that a copy has but the manifest does not list: their bytes count all the same.
    for sidecar in Sidecar::list(checkpoint, Purpose::NewWeights, LinkPolicy::LeaveOut)? {
        if sidecar.disposition != Disposition::Copy || listed.contains(&sidecar.path) {
            continue;
        }
        if records.manifest.is_some() {
            let what = "not in the manifest";
            result.find(&sidecar.path.to_string_lossy(), None, what);
        }
        if let Some(there) = open_output(out, &sidecar.path.to_string_lossy(), result) {
            compare_with_input(checkpoint, &sidecar.path, &there, result)?;
        }
    }
    Ok(())
}

/// Opens a file of the output. What is there and cannot be opened (a dangling link, a FIFO, no
/// permission) is a finding; that it is missing is said by the file list.
pub(crate) fn open_output(out: &Path, name: &str, result: &mut Verification) -> Option<Source> {
    let path = out.join(name);
    match Source::open(&path) {
        Ok(source) => Some(source),
        Err(e) => {
            if path.symlink_metadata().is_ok() {
                result.find(name, None, format!("cannot be read: {e}"));
            }
            None
        }
    }
}

/// Compares a copied file with its original, a piece at a time; returns the copy's digest.
fn compare_with_input(
    checkpoint: &Checkpoint,
    path: &Path,
    there: &Source,
    result: &mut Verification,
) -> Result<Digest> {
    let name = path.to_string_lossy();
    let original = Source::open(&checkpoint.dir().join(path)).ok();
    let mut what = match &original {
        None => Some("file is in the output and not in the input".to_owned()),
        Some(file) if file.len() != there.len() => {
            Some(format!("expected {} bytes, found {}", file.len(), there.len()))
        }
        Some(_) => None,
    };
    let mut hasher = Sha256::default();
    let (mut at, mut before) = (0, Vec::new());
    there.read_pieces(0..there.len(), |piece| -> Result<()> {
        hasher.update(piece);
        if let (None, Some(original)) = (&what, &original) {
            before.resize(piece.len(), 0);
            original.read_exact_at(&mut before, at)?;
            let differs = before.iter().zip(piece).position(|(a, b)| a != b);
            what =
                differs.map(|i| format!("differs from the input first at byte {}", at + i as u64));
        }
        at += piece.len() as u64;
        Ok(())
    })?;
    if let Some(what) = what {
        result.find(&name, None, what);
    }
    Ok(hasher.finish())
}
