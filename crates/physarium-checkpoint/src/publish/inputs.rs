/*!
What identifies the input of a run: digests, never inodes or times, so that an identical copy is the same input.

The journal's first record holds the recipe, the program's version and the headers of all shards. The marker of an
unfinished output holds the rest of what finished parts of the output depend on: files beside the shards, the shards
if each part depends on all of them, and calibration tokens.
*/

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::durable::write_whole;
use crate::error::{Error, Result};
use crate::open::checkpoint::Checkpoint;
use crate::open::config::CONFIG_NAME;
use crate::open::digest::{Digest, Sha256};
use crate::open::index::INDEX_NAME;
use crate::open::source::Source;
use crate::open::unfinished::{NOTE_START, UNFINISHED_NAME};
use crate::records::journal::RunRecord;
use crate::records::manifest::{self, Manifest};

/// Largest marker that is read, in bytes; one takes some 150 bytes per shard.
const MAX_MARKER_BYTES: u64 = 64 << 20;
/// What follows the beginning of the note.
const ADVICE: &str = "run the same prune command again to finish it";

/// What a run's output depends on, beside its recipe, the headers of the shards, their index and `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Names of files that may decide the output's weights, beside the shards, their index and `config.json`. They
    /// need not exist.
    pub files: &'a [&'a str],
    /// What each shard of the output depends on.
    pub shards: ShardInputs,
    /// Digest of the calibration tokens, for an activation-aware method.
    pub calibration_tokens: Option<Digest>,
}

impl<'a> Inputs<'a> {
    /// Names of all files beside the shards.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        [CONFIG_NAME, INDEX_NAME].into_iter().chain(self.files.iter().copied())
    }
}

/// The shards of the input on which a shard of the output depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardInputs {
    /// On the one of its name only, whose digest its journal record holds.
    Own,
    /// On all of them: they are hashed before the run begins, and before it is resumed.
    All,
}

/// The digests of what [`Inputs`] names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDigests {
    /// For a user who opens the file.
    note: String,
    /// SHA-256 of files beside the shards, by name.
    files: BTreeMap<String, Digest>,
    /// SHA-256 of shards, by name; empty if each shard of the output depends on its own only.
    shards: BTreeMap<String, Digest>,
    calibration_tokens: Option<Digest>,
}

impl InputDigests {
    /// Hashes the input. `on_bytes` is called with the number of bytes of shards hashed.
    ///
    /// # Errors
    /// `Io`, and what `on_bytes` returns.
    pub fn of(
        checkpoint: &Checkpoint,
        inputs: &Inputs<'_>,
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<InputDigests> {
        let mut files = BTreeMap::new();
        for name in inputs.names() {
            let path = checkpoint.dir().join(name);
            if path.symlink_metadata().is_ok() {
                let digest = Source::open(&path)?.sha256(&mut |_| on_bytes(0))?;
                files.insert(name.to_owned(), digest);
            }
        }
        let mut shards = BTreeMap::new();
        if inputs.shards == ShardInputs::All {
            for shard in checkpoint.shards() {
                shards.insert(shard.name.clone(), shard.reopen()?.sha256(on_bytes)?);
            }
        }
        let calibration_tokens = inputs.calibration_tokens;
        Ok(InputDigests { note: note(), files, shards, calibration_tokens })
    }

    /// What an unfinished output was made from.
    ///
    /// A run that was killed in its last steps has a manifest in place of the marker. Every part of its output is
    /// then finished, and nothing is made from calibration tokens any more.
    pub(super) fn of_unfinished(dir: &Path, wanted: &Inputs<'_>) -> Result<InputDigests> {
        let path = dir.join(UNFINISHED_NAME);
        if path.symlink_metadata().is_ok() || !dir.join(manifest::FILE_NAME).is_file() {
            let text = Source::open(&path)?.read_all(MAX_MARKER_BYTES)?;
            return serde_json::from_slice(&text).map_err(|e| {
                let why = crate::escape::printable(&e.to_string());
                Error::Record {
                    path,
                    what: "marker of the unfinished run".to_owned(),
                    expected: "what physarium wrote".to_owned(),
                    found: format!("{why}\nhint: use --restart to discard the unfinished run"),
                }
            });
        }
        let manifest = Manifest::read(&dir.join(manifest::FILE_NAME))?;
        let files = manifest.files.into_iter().map(|file| (file.path, file.sha256));
        let files = files.filter(|(name, _)| wanted.names().any(|wanted| wanted == name)).collect();
        let shards = manifest.shards.into_iter().map(|shard| (shard.name, shard.input_sha256));
        let shards = shards.filter(|_| wanted.shards == ShardInputs::All).collect();
        let calibration_tokens = wanted.calibration_tokens;
        Ok(InputDigests { note: note(), files, shards, calibration_tokens })
    }

    /// Fails on the first difference from what an unfinished output in `dir` was made from.
    pub(super) fn refuse_difference(&self, dir: &Path, theirs: &InputDigests) -> Result<()> {
        let differing = |theirs: &BTreeMap<String, Digest>, ours: &BTreeMap<String, Digest>| {
            let names = theirs.keys().chain(ours.keys());
            let differs = |name: &&String| theirs.get(*name) != ours.get(*name);
            let name = names.into_iter().find(differs)?.clone();
            let (a, b) = (theirs.get(&name).copied(), ours.get(&name).copied());
            Some((format!("the SHA-256 of {}", crate::escape::printable(&name)), a, b))
        };
        let tokens = (theirs.calibration_tokens, self.calibration_tokens);
        let tokens = (tokens.0 != tokens.1)
            .then(|| ("the SHA-256 of the calibration tokens".to_owned(), tokens.0, tokens.1));
        let difference = differing(&theirs.files, &self.files)
            .or_else(|| differing(&theirs.shards, &self.shards))
            .or(tokens);
        let Some((what, theirs, ours)) = difference else { return Ok(()) };
        let [theirs, ours] =
            [theirs, ours].map(|digest| digest.map_or("none".to_owned(), |d| d.to_string()));
        Err(Error::StagingMismatch { path: dir.to_owned(), what, theirs, ours })
    }

    /// The digest of the calibration tokens, for an activation-aware method.
    pub fn calibration_tokens(&self) -> Option<Digest> {
        self.calibration_tokens
    }

    /// The digest of a shard, if all of them were hashed.
    pub fn of_shard(&self, name: &str) -> Option<Digest> {
        self.shards.get(name).copied()
    }

    /// Fails if a file beside the shards, read again as `found`, is not what it was.
    pub(super) fn check_file(&self, path: &Path, name: &str, found: Digest) -> Result<()> {
        refuse_change(path, self.files.get(name).copied(), found)
    }

    /// Fails if one of the files beside the shards is another now.
    ///
    /// # Errors
    /// `InputChanged`; `Io`.
    pub fn refuse_changed_files(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.files.iter().try_for_each(|(name, before)| {
            let path = checkpoint.dir().join(name);
            let now = Source::open(&path)?.sha256::<Error>(&mut |_| Ok(()))?;
            refuse_change(&path, Some(*before), now)
        })
    }

    /// Fails if a shard that was hashed, read again as `found`, is another one now.
    ///
    /// # Errors
    /// `InputChanged`.
    pub fn refuse_changed_shard(&self, path: &Path, name: &str, found: Digest) -> Result<()> {
        refuse_change(path, self.of_shard(name), found)
    }

    /// A digest of everything that the output depends on: equal keys mean equal outputs.
    pub fn key(&self, run: &RunRecord) -> Digest {
        let text = serde_json::to_string(&(run, self)).expect("records are plain JSON");
        Sha256::of(text.as_bytes())
    }
}

fn note() -> String {
    format!("{NOTE_START}: {ADVICE}")
}

/// Fails if the digest of an input file was known and is another now.
pub(super) fn refuse_change(path: &Path, before: Option<Digest>, after: Digest) -> Result<()> {
    match before {
        Some(before) if before != after => Err(Error::InputChanged {
            path: path.to_owned(),
            what: "SHA-256",
            before: before.to_string(),
            after: after.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Writes the marker into a staging directory.
pub(super) fn mark_unfinished(dir: &Path, digests: &InputDigests) -> Result<()> {
    let text = serde_json::to_string_pretty(digests).expect("digests are plain JSON");
    write_whole(&dir.join(UNFINISHED_NAME), (text + "\n").as_bytes())
}
