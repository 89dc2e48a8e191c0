//! The files of the output beside the shards: which there are, and that their bytes equal the input's.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use physarium_checkpoint::{
    Checkpoint, Digest, Disposition, LinkPolicy, Purpose, Sha256, Sidecar, Source, journal,
    manifest, readme,
};

use super::findings::Verification;
use super::own::open_output;
use super::readme::Rewritten;
use super::records::Records;
use crate::error::{Error, Result};

/// The files of an output beside its shards.
pub(super) struct Files<'a> {
    /// The input.
    pub checkpoint: &'a Checkpoint,
    pub out: &'a Path,
    pub records: &'a Records,
}

impl Files<'_> {
    /// Verifies that the output contains exactly the files that a copy has, and the two records, and no directory but
    /// those that hold them.
    pub fn verify_list(&self, result: &mut Verification) -> Result<()> {
        let mut expected: BTreeSet<PathBuf> =
            self.checkpoint.shards().iter().map(|shard| PathBuf::from(&shard.name)).collect();
        expected.extend([journal::FILE_NAME, manifest::FILE_NAME].map(PathBuf::from));
        expected.extend(copied_files(self.checkpoint)?);
        // The manifest also lists files copied with --follow-links; their bytes are compared like all others.
        expected.extend(self.records.files().map(|entry| PathBuf::from(&entry.path)));
        let mut entries = Entries::default();
        entries.list(self.out, Path::new(""))?;
        let there = &entries.files;
        result.files = there.len() as u64;
        for path in expected.difference(there) {
            result.report(&path.to_string_lossy(), None, "file is missing from the output");
        }
        for path in there.difference(&expected) {
            let what = match self.out.join(path).is_dir() {
                true => "link to a directory, which no output has",
                false => "file is in the output and not in the input",
            };
            result.report(&path.to_string_lossy(), None, what);
        }
        // Of an added directory and those below it, the first is named.
        let needed: BTreeSet<&Path> = expected.iter().flat_map(|path| path.ancestors()).collect();
        let is_added = |path: &Path| !needed.contains(path);
        for path in entries.directories.iter().filter(|path| is_added(path)) {
            if !path.parent().is_some_and(is_added) {
                let what = "directory is in the output and not in the input";
                result.report(&path.to_string_lossy(), None, what);
            }
        }
        Ok(())
    }

    /// Verifies that the files have the input's bytes and the manifest's digests.
    pub fn verify_contents(&self, result: &mut Verification) -> Result<()> {
        let (checkpoint, out, paths) = (self.checkpoint, self.out, self.records.rewritten());
        let rewritten = Rewritten { checkpoint, out, paths };
        let mut listed = BTreeSet::new();
        for entry in self.records.files() {
            if !listed.insert(PathBuf::from(&entry.path)) {
                result.report(&entry.path, None, "listed twice in the manifest");
            }
            let Some(there) = open_output(self.out, &entry.path, result) else { continue };
            if entry.size_bytes != there.len() {
                let what = format!("expected {} bytes, found {}", entry.size_bytes, there.len());
                result.report(&entry.path, None, what);
            }
            let is_record = [journal::FILE_NAME, manifest::CARD_NAME].contains(&&*entry.path);
            let digest = if is_record || rewritten.has(&entry.path) {
                there.sha256::<Error>(&mut |_| Ok(()))?
            } else {
                compare_with_input(self.checkpoint, Path::new(&entry.path), &there, result)?
            };
            if digest != entry.sha256 {
                let what = format!("SHA-256, expected {}, found {digest}", entry.sha256);
                result.report(&entry.path, None, what);
            }
        }
        if !listed.contains(Path::new(journal::FILE_NAME)) {
            self.report_unlisted(journal::FILE_NAME, result);
        }
        let copied: Vec<PathBuf> = copied_files(self.checkpoint)?.collect();
        let has_readme = copied.iter().any(|path| path == Path::new(readme::FILE_NAME));
        rewritten.verify(has_readme, result);
        for path in copied.into_iter().filter(|path| !listed.contains(path)) {
            let name = path.to_string_lossy();
            self.report_unlisted(&name, result);
            if let Some(there) = open_output(self.out, &name, result) {
                compare_with_input(self.checkpoint, &path, &there, result)?;
            }
        }
        Ok(())
    }

    /// Reports a file that the manifest does not list; without a manifest, its absence is reported once.
    fn report_unlisted(&self, name: &str, result: &mut Verification) {
        if self.records.has_manifest() {
            result.report(name, None, "not in the manifest");
        }
    }
}

/// Files beside the shards that every copy has.
fn copied_files(checkpoint: &Checkpoint) -> Result<impl Iterator<Item = PathBuf>> {
    let sidecars = Sidecar::list(checkpoint, Purpose::NewWeights, LinkPolicy::LeaveOut)?;
    let copied = sidecars.into_iter().filter(|sidecar| sidecar.disposition == Disposition::Copy);
    Ok(copied.map(|sidecar| sidecar.path))
}

/// What is below a directory. Links are not followed.
#[derive(Default)]
struct Entries {
    directories: BTreeSet<PathBuf>,
    /// Everything else.
    files: BTreeSet<PathBuf>,
}

impl Entries {
    fn list(&mut self, root: &Path, relative: &Path) -> Result<()> {
        let dir = root.join(relative);
        let io = |e| physarium_checkpoint::Error::io(&dir, "list", e);
        for entry in fs::read_dir(&dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let path = relative.join(entry.file_name());
            if entry.file_type().map_err(io)?.is_dir() {
                self.list(root, &path)?;
                self.directories.insert(path);
            } else {
                self.files.insert(path);
            }
        }
        Ok(())
    }
}

/// Compares a copied file with its original, a piece at a time; returns the copy's digest.
fn compare_with_input(
    checkpoint: &Checkpoint,
    path: &Path,
    there: &Source,
    result: &mut Verification,
) -> Result<Digest> {
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
                differs.map(|i| format!("differs from the input, first at byte {}", at + i as u64));
        }
        at += piece.len() as u64;
        Ok(())
    })?;
    if let Some(what) = what {
        result.report(&path.to_string_lossy(), None, what);
    }
    Ok(hasher.finish())
}
