/*!
What a comparison has done so far, on disk: `.physarium-compare` in its directory.

In: the key of the comparison, which is everything that its results depend on. Out: the records of its rows. The
directory holds `comparison.json` (the key), a record for each contender that was begun, the dense model's evaluation
and last states, and a lock. Each record names the key by its digest and ends with a check, so that a record of another
comparison, or a damaged one, counts as none. What has no record here was not made by this comparison.
*/

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use physarium_checkpoint::{Digest, Error as Fault, printable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::result::{ComparedRun, PrunedRun};
use crate::error::Result;
use crate::sealed::{KeyedRecords, difference, read_key_of, write_sealed};
use crate::units::Share;

/// Name of the directory of records.
pub(super) const DIR_NAME: &str = ".physarium-compare";
/// Name of the record of the comparison itself.
const KEY_NAME: &str = "comparison.json";
/// Name of the dense model's record.
const DENSE_NAME: &str = "dense.json";
/// Name of the lock, before the share of a worker.
const LOCK_NAME: &str = "lock";
/// Schema of the records.
const SCHEMA: &str = "physarium.comparison/1";
/// Largest record that is read, in bytes.
const MAX_RECORD: u64 = 64 << 20;

/// How far a contender is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub(super) enum Stage {
    /// Its output's path was free, and pruning began.
    Begun,
    /// It is pruned; `manifest` is the SHA-256 of its manifest.
    Pruned { manifest: Digest, run: PrunedRun },
    /// It is measured as well.
    Measured { manifest: Digest, run: Box<ComparedRun> },
}

/// The records of a comparison.
#[derive(Debug)]
pub(super) struct Book {
    records: KeyedRecords,
    key: Value,
    share: Share,
    _lock: File,
}

/// What a directory says of an earlier comparison.
pub(super) enum Earlier {
    /// There was none.
    None,
    /// It is the same.
    Same,
    /// It is another one. This part of the key differs.
    Other(String),
}

impl Earlier {
    /// Looks for records in `dir`. Writes nothing.
    ///
    /// # Errors
    /// `Output` if something else has the name of the records; `Io`.
    pub(super) fn look(dir: &Path, key: &Value) -> Result<Earlier> {
        let records = dir.join(DIR_NAME);
        match records.symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Earlier::None),
            Err(e) => return Err(Fault::io(&records, "look at", e).into()),
            Ok(_) => {}
        }
        // Looked at before the key is read: another worker may be about to write it.
        let is_just_created = is_just_created(&records);
        let theirs = match read_key(&records) {
            Some(theirs) => theirs,
            None if is_just_created => return Ok(Earlier::None),
            None => {
                return Err(in_the_way(&records, "the records of a comparison", "something else"));
            }
        };
        if theirs == *key {
            return Ok(Earlier::Same);
        }
        Ok(Earlier::Other(difference(key, &theirs)))
    }
}

/// Whether `records` is a directory with nothing but what [`Book::open`] creates before the key: another worker is at
/// that point, or was killed there.
fn is_just_created(records: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(records) else { return false };
    entries.all(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_lock = name
                .strip_prefix(LOCK_NAME)
                .is_some_and(|row| row.is_empty() || row.starts_with('-'));
            is_lock || name.starts_with(&format!("{KEY_NAME}.part"))
        })
    })
}

/// The key of the comparison that made `records`.
fn read_key(records: &Path) -> Option<Value> {
    read_key_of(&records.join(KEY_NAME), MAX_RECORD)
}

/// The error when something that is not of this comparison has a name that it needs.
pub(super) fn in_the_way(path: &Path, expected: &str, found: &str) -> crate::error::Error {
    Fault::Output {
        path: path.to_owned(),
        what: "not made by this comparison",
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
    .into()
}

impl Book {
    /// Begins or resumes the records of the comparison with this key, in `dir`, which is created if it is missing.
    ///
    /// # Errors
    /// `Locked` while another process compares in `dir`, or the same share of its rows; `Io`.
    pub(super) fn open(dir: &Path, key: &Value, share: Share) -> Result<Book> {
        let records = dir.join(DIR_NAME);
        fs::create_dir_all(&records).map_err(|e| Fault::io(&records, "create", e))?;
        let lock = lock(&records.join(format!("{LOCK_NAME}{}", share.suffix())))?;
        let body = json!({"schema": SCHEMA, "key": key});
        if read_key(&records).as_ref() != Some(key) {
            write_sealed(&records.join(KEY_NAME), &body)?;
        }
        let records = KeyedRecords::new(records, key);
        Ok(Book { records, key: key.clone(), share, _lock: lock })
    }

    /// The key of the comparison.
    pub(super) fn key(&self) -> &Value {
        &self.key
    }

    /// How far a contender is; `None` if it was not begun.
    pub(super) fn stage(dir: &Path, key: &Value, name: &str) -> Option<Stage> {
        KeyedRecords::new(dir.join(DIR_NAME), key).read(&record_name(name), MAX_RECORD)
    }

    /// Writes down how far a contender is.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn record(&self, name: &str, stage: &Stage) -> Result<()> {
        self.records.write(&record_name(name), stage)
    }

    /// A record of the dense model.
    pub(super) fn dense<T: DeserializeOwned>(&self) -> Option<T> {
        self.records.read(DENSE_NAME, MAX_RECORD)
    }

    /// Writes a record of the dense model.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn record_dense(&self, dense: &impl Serialize) -> Result<()> {
        self.records.write(DENSE_NAME, dense)
    }

    /// The file for the dense model's last states.
    pub(super) fn states_path(&self) -> PathBuf {
        self.records.dir().join(format!("dense{}.states", self.share.suffix()))
    }
}

fn record_name(contender: &str) -> String {
    format!("row-{contender}.json")
}

/// Takes the lock of a comparison; the kernel releases it when the process ends in any way.
fn lock(path: &Path) -> Result<File> {
    let io = |e| Fault::io(path, "lock", e);
    let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = options.map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let holder = printable("another comparison in this directory");
            Err(Fault::Locked { path: path.to_owned(), holder }.into())
        }
        Err(fs::TryLockError::Error(e)) => Err(io(e).into()),
    }
}

/// The contenders of the comparison that was begun in `dir`, and how far each is.
pub(super) fn begun_by_earlier(dir: &Path) -> Vec<(String, Option<Stage>)> {
    let records = dir.join(DIR_NAME);
    let Some(key) = read_key(&records) else { return Vec::new() };
    let contenders = key.get("contenders").and_then(Value::as_array).cloned().unwrap_or_default();
    let name = |contender: &Value| contender.get("name")?.as_str().map(str::to_owned);
    let names = contenders.iter().filter_map(name);
    names.map(|name| (name.clone(), Book::stage(dir, &key, &name))).collect()
}
