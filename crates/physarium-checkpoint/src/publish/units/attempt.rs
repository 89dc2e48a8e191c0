//! An attempt at a unit of work.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{self, UnitRecord};
use crate::error::{Error, Result};
use crate::publish::durable::{sync_dir, write_whole};
use crate::publish::part_file::PartFile;
use crate::publish::staging::file_entry;
use crate::records::manifest::FileEntry;

/// A directory in which a unit is worked on. Dropping it removes it.
#[derive(Debug)]
pub struct Attempt {
    dir: PathBuf,
    /// Where it appears.
    done: PathBuf,
}

/// Whose result a unit has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// That of this attempt.
    First,
    /// That of another attempt, with the same digests.
    Duplicate,
}

impl Attempt {
    pub(super) fn begin(attempts: &Path, unit: &str, done: PathBuf) -> Result<Attempt> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut number = since.as_nanos();
        loop {
            // Processes of any host: `mkdir` takes a name once.
            let dir = attempts.join(format!("{unit}.{}-{number:x}", std::process::id()));
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(Attempt { dir, done }),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(Error::io(&dir, "create the directory", e)),
            }
        }
    }

    /// Where a file of the unit is written.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Creates the file of a shard of exactly `size_bytes`.
    ///
    /// # Errors
    /// `Io`.
    pub fn create_shard(&self, name: &str, size_bytes: u64) -> Result<PartFile> {
        PartFile::create(&self.dir, name, size_bytes)
    }

    /// A file that was written to [`Attempt::path`], made durable, with its digest.
    ///
    /// # Errors
    /// `Io`.
    pub fn entry(&self, name: &str) -> Result<FileEntry> {
        let path = self.path(name);
        let file = fs::File::open(&path).map_err(|e| Error::io(&path, "open", e))?;
        file.sync_all().map_err(|e| Error::io(&path, "sync", e))?;
        file_entry(&self.dir, name)
    }

    /// Makes the unit's directory durable, and lets it appear unless another attempt was first.
    ///
    /// # Errors
    /// `Record` if another attempt was first and its result is another one; `Io`.
    pub fn publish(self, record: &UnitRecord) -> Result<Published> {
        write_whole(&self.path(record::FILE_NAME), record.encode().as_bytes())?;
        match fs::rename(&self.dir, &self.done) {
            Ok(()) => {
                sync_both(self.done.parent().expect("a directory of units"))?;
                Ok(Published::First)
            }
            Err(e) if is_taken(&e) => self.compare(record).map(|()| Published::Duplicate),
            Err(e) => Err(Error::io(&self.done, "publish the unit", e)),
        }
    }

    /// Fails unless the attempt that was first has the same result.
    fn compare(&self, ours: &UnitRecord) -> Result<()> {
        let theirs = UnitRecord::read(&self.done)?;
        if theirs.as_ref().is_some_and(|theirs| theirs.is_same_result(ours)) {
            return Ok(());
        }
        let digests = |record: Option<&UnitRecord>| match record {
            None => "no record".to_owned(),
            Some(record) => {
                let files =
                    record.files.iter().map(|file| format!("{} {}", file.path, file.sha256));
                format!("{} (made on {})", files.collect::<Vec<_>>().join(", "), record.took.host)
            }
        };
        Err(Error::Record {
            path: self.done.clone(),
            what: "two attempts at a unit of work have different results".to_owned(),
            expected: digests(Some(ours)),
            found: digests(theirs.as_ref()),
        })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Best effort: what is left is removed with all units. Once published, it is not there any more.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether a directory could not be renamed because another has the name.
fn is_taken(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists)
}

/// Makes the names in a directory, and in the one above, durable.
pub(super) fn sync_both(dir: &Path) -> Result<()> {
    sync_dir(dir)?;
    dir.parent().map_or(Ok(()), sync_dir)
}
