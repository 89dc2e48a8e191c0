/*!
The manifest: the recipe and the digests of everything in an output directory, written last.

One JSON object. Its `check` field is the BLAKE3 of the same text with an empty `check`, so that any change to
the manifest is detected.
*/

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::open::digest::{Blake3, Digest};
use crate::open::source::Source;
use crate::open::store::source::ModelSource;
use crate::records::from_json;
use crate::records::journal::{ShardRecord, TensorRecord, Totals};
use crate::records::recipe::Recipe;

/// Name of the manifest in an output directory.
pub const FILE_NAME: &str = "physarium.manifest.json";
/// Name of the section for the model card in an output directory.
pub const CARD_NAME: &str = "physarium.card.md";
/// Schema of the manifest.
pub const SCHEMA: &str = "physarium.manifest/1";

/// Largest manifest that is read, in bytes; one takes some 150 bytes per tensor, so 400,000 fit.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// The contents of an output directory, and the recipe that produced them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// Program and version.
    pub tool: String,
    /// What determined the output's bytes.
    pub recipe: Recipe,
    /// Where the input is on the hub or in a store; absent if it was given by its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ModelSource>,
    /// Sums over all tensors.
    pub totals: Totals,
    /// The shards, with digests of input and output.
    pub shards: Vec<ShardRecord>,
    /// All other files, including the journal.
    pub files: Vec<FileEntry>,
    /// Those of `files` that are rewritten instead of copied: README.md by `--card`, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<String>,
    /// Files of the input that are not in the output.
    pub left_out: Vec<LeftOut>,
    /// Every tensor, with the digest of its bytes in the output.
    pub tensors: Vec<TensorEntry>,
    /// BLAKE3 of the manifest with this field empty, in hex.
    pub check: String,
}

/// A file that is not a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to the output directory.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Digest of its bytes.
    pub sha256: Digest,
}

/// A file of the input that was not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Path relative to the input directory; lossy where it is not UTF-8.
    pub path: String,
    /// Why it was not copied.
    pub reason: String,
}

/// A tensor's digest and counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Elements set to +0.0; absent when it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<u64>,
    /// Digest of its bytes in the output.
    pub blake3: Digest,
}

impl TensorEntry {
    /// The entry of a tensor in the journal; `None` when its record has no digest.
    pub fn of(record: &TensorRecord) -> Option<TensorEntry> {
        let pruned = record.processed().map(|done| done.pruned);
        Some(TensorEntry { name: record.name.clone(), pruned, blake3: record.output_blake3? })
    }
}

impl Manifest {
    /// The manifest as text, with its `check` computed.
    pub fn encode(&self) -> String {
        let mut sealed = self.clone();
        sealed.check = String::new();
        sealed.check = check_of(&sealed);
        text(&sealed)
    }

    /// Reads a manifest and verifies its check.
    ///
    /// # Errors
    /// `Record` when the text is not exactly what physarium writes; `Malformed` when it is not a regular file, or
    /// larger than 64 MiB; `Io`.
    pub fn read(path: &Path) -> Result<Manifest> {
        let bytes = Source::open(path)?.read_all(MAX_MANIFEST_BYTES)?;
        let fault = |expected: &str, found: String| Error::Record {
            path: path.to_owned(),
            what: "manifest".to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let manifest: Manifest = from_json(&bytes)
            .map_err(|e| fault("a physarium manifest", crate::escape::printable(&e)))?;
        if manifest.schema != SCHEMA {
            return Err(fault(SCHEMA, crate::escape::printable(&manifest.schema)));
        }
        let encoded = manifest.encode();
        if encoded.as_bytes() != bytes {
            let found = "a manifest that was changed after it was written".to_owned();
            return Err(fault("the text that its check covers", found));
        }
        Ok(manifest)
    }
}

fn check_of(unsealed: &Manifest) -> String {
    let mut hasher = Blake3::default();
    hasher.update(text(unsealed).as_bytes());
    hasher.finish().to_string()
}

fn text(manifest: &Manifest) -> String {
    let json = serde_json::to_string_pretty(manifest).expect("a manifest is plain JSON");
    json + "\n"
}
