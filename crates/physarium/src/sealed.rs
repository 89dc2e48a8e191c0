//! Records that prove themselves: JSON with a body and its BLAKE3, so that a damaged one counts as none. Records of a key
//! also name what their contents depend on, so that those of other work count as none.

use std::path::{Path, PathBuf};

use physarium_checkpoint::{Blake3, Digest, Source, write_whole};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::error::Result;

#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    check: Digest,
}

/// Writes a record with its check, durably.
///
/// # Errors
/// `Checkpoint` if it cannot be written.
pub(crate) fn write_sealed(path: &Path, body: &impl Serialize) -> Result<()> {
    let body = to_raw_value(body).expect("records hold nothing that JSON cannot");
    let sealed = Sealed { body: &body, check: digest_of(body.get()) };
    let mut text = serde_json::to_string(&sealed).expect("JSON and a digest");
    text.push('\n');
    Ok(write_whole(path, text.as_bytes())?)
}

/// The body of a record of at most `max_bytes`; `None` if there is no such file, its check is wrong, or it is of another form.
pub(crate) fn read_sealed<T: DeserializeOwned>(path: &Path, max_bytes: u64) -> Option<T> {
    let bytes = Source::open(path).ok()?.read_all(max_bytes).ok()?;
    let Sealed { body, check } = serde_json::from_slice(&bytes).ok()?;
    if digest_of(body.get()) != check {
        return None;
    }
    serde_json::from_str(body.get()).ok()
}

/// The digest of a text of JSON.
pub(crate) fn digest_of(json: &str) -> Digest {
    let mut hasher = Blake3::default();
    hasher.update(json.as_bytes());
    hasher.finish()
}

/// Records in a directory whose contents depend on one key.
#[derive(Debug)]
pub(crate) struct KeyedRecords {
    dir: PathBuf,
    key: Digest,
}

impl KeyedRecords {
    /// The records of a key in `dir`.
    pub(crate) fn new(dir: PathBuf, key: &Value) -> KeyedRecords {
        KeyedRecords { dir, key: digest_of(&key.to_string()) }
    }

    /// Their directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The value of the record of this name, of at most `max_bytes`; `None` if there is none of this key.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str, max_bytes: u64) -> Option<T> {
        let body: Value = read_sealed(&self.dir.join(name), max_bytes)?;
        let matches = body.get("key") == Some(&json!(self.key));
        matches.then(|| serde_json::from_value(body.get("value")?.clone()).ok())?
    }

    /// Writes a record.
    ///
    /// # Errors
    /// `Checkpoint` if it cannot be written.
    pub(crate) fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let value = serde_json::to_value(value).expect("records hold nothing that JSON cannot");
        write_sealed(&self.dir.join(name), &json!({"key": self.key, "value": value}))
    }
}

/// The key in the record that says what the others in its directory depend on.
pub(crate) fn read_key_of(path: &Path, max_bytes: u64) -> Option<Value> {
    let body: Value = read_sealed(path, max_bytes)?;
    Some(body.get("key")?.clone())
}

/// The names of the parts in which two keys differ.
pub(crate) fn difference(ours: &Value, theirs: &Value) -> String {
    let parts = ours.as_object().into_iter().flatten();
    let other = parts.filter(|(part, value)| theirs.get(part) != Some(value));
    other.map(|(part, _)| part.as_str()).collect::<Vec<_>>().join(", ")
}
