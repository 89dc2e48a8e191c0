/*!
Outputs of commands that cannot be resumed: a file, or a directory of files.

Both are written under a temporary name in the same parent directory, under the output's lock, and renamed as the
last step. The next run discards what an interrupted one left.
*/

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::durable::{create_new, rename_to_new, sync_dir};
use super::place::lock::Lock;
use super::place::occupant::Occupant;
use super::place::output_path::OutputPath;
use super::place::working;
use super::request::Overwrite;
use super::space::Disk;
use crate::error::{Error, Result};
use crate::open::source::FileIdentity;

/// Name of an output in its working directory until it is complete.
const INNER_NAME: &str = "output";

/// A file while it is written. Dropping it discards it.
#[derive(Debug)]
pub struct NewFile {
    place: OutputPath,
    part: PathBuf,
    file: File,
    written: u64,
    /// The file that it replaces, as it was at the start.
    replaces: Option<FileIdentity>,
    _lock: Lock,
}

impl NewFile {
    /// Checks the path of an output of about `bytes` that is made from `input`, and creates the file. With
    /// [`Overwrite::Replace`] the caller has made sure that a file there may be replaced.
    ///
    /// # Errors
    /// `Output` when something exists there that may not be replaced, or the path is not usable; `Locked`,
    /// `NoSpace`, `Io`.
    pub fn create(out: &Path, input: &Path, bytes: u64, overwrite: Overwrite) -> Result<NewFile> {
        let place = OutputPath::check(out, input)?;
        let lock = place.lock()?;
        let replaces = file_at(&place.dir())?;
        if replaces.is_some() && overwrite == Overwrite::Refuse {
            return Err(file_exists(&place.dir(), "a file"));
        }
        Disk::check(&place.parent, bytes)?;
        let dir = place.packing();
        working::create(&dir)?;
        let part = dir.join(INNER_NAME);
        let file = create_new(&part)?;
        Ok(NewFile { place, part, file, written: 0, replaces, _lock: lock })
    }

    /// Bytes appended so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.part, "write", e))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Overwrites bytes that were appended before.
    ///
    /// # Errors
    /// `Io`.
    ///
    /// # Panics
    /// If the range ends after the last appended byte.
    pub fn rewrite(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        assert!(offset + bytes.len() as u64 <= self.written);
        self.file.write_all_at(bytes, offset).map_err(|e| Error::io(&self.part, "write", e))
    }

    /// Makes the file durable, then renames it to its own name.
    ///
    /// # Errors
    /// `Output` when something appeared there during the run; `Io`.
    pub fn publish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.part, "sync", e))?;
        let out = self.place.dir();
        match file_at(&out)? {
            None => rename_to_new(&self.part, &out)?,
            there if there == self.replaces => fs::rename(&self.part, &out)
                .map_err(|e| Error::io(&out, "publish the output", e))?,
            Some(_) => return Err(file_exists(&out, "a file that appeared or changed")),
        }
        sync_dir(&self.place.parent)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // If removal fails, the next run does it.
        let _ = working::remove(&self.place.packing());
    }
}

/// The file at the path of an output, if something is there.
fn file_at(out: &Path) -> Result<Option<FileIdentity>> {
    match out.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(out, "look at the output", e)),
        Ok(meta) if meta.is_file() => Ok(Some(FileIdentity::of(&meta))),
        Ok(meta) if meta.is_dir() => Err(file_exists(out, "a directory")),
        Ok(_) => Err(file_exists(out, "something that is not a file")),
    }
}

fn file_exists(out: &Path, found: &str) -> Error {
    Error::Output {
        path: out.to_owned(),
        what: "output exists",
        expected: "a new file (or --force to replace a packed file)".to_owned(),
        found: found.to_owned(),
    }
}

/// A directory while it is filled. Dropping it discards it.
#[derive(Debug)]
pub struct NewDirectory {
    place: OutputPath,
    dir: PathBuf,
    /// Directories created in it, which are synced when it is published.
    inner: Vec<PathBuf>,
    _lock: Lock,
}

impl NewDirectory {
    /// Checks the path of an output of `bytes` that is made from `input`, and creates the directory.
    ///
    /// # Errors
    /// `Output` when anything but an empty directory exists there, or the path is not usable; `Locked`,
    /// `NoSpace`, `Io`.
    pub fn create(out: &Path, input: &Path, bytes: u64) -> Result<NewDirectory> {
        let place = OutputPath::check(out, input)?;
        let lock = place.lock()?;
        refuse_filled(&place)?;
        Disk::check(&place.parent, bytes)?;
        let working = place.unpacking();
        working::create(&working)?;
        let dir = working.join(INNER_NAME);
        fs::create_dir(&dir).map_err(|e| Error::io(&dir, "create the directory", e))?;
        // So that it is no checkpoint either.
        working::mark(&dir)?;
        Ok(NewDirectory { place, dir, inner: Vec::new(), _lock: lock })
    }

    /// Creates a file at a relative path of plain names, with the directories above it.
    ///
    /// # Errors
    /// `Io`.
    pub fn create_file(&mut self, relative: &Path) -> Result<NewInside> {
        let path = self.dir.join(relative);
        if let Some(parent) = relative.parent() {
            for inner in parent.ancestors().filter(|inner| !inner.as_os_str().is_empty()) {
                let inner = self.dir.join(inner);
                if !self.inner.contains(&inner) {
                    self.inner.push(inner);
                }
            }
            let parent = self.dir.join(parent);
            fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, "create", e))?;
        }
        Ok(NewInside { file: create_new(&path)?, path })
    }

    /// Makes all names durable, then renames the directory to its own name.
    ///
    /// # Errors
    /// `Output` when something appeared there during the run; `Io`.
    pub fn publish(self) -> Result<()> {
        for inner in &self.inner {
            sync_dir(inner)?;
        }
        working::unmark(&self.dir)?;
        sync_dir(&self.dir)?;
        let out = self.place.dir();
        match refuse_filled(&self.place)? {
            Occupant::Absent => rename_to_new(&self.dir, &out)?,
            // rename(2) replaces an empty directory atomically.
            _ => {
                fs::rename(&self.dir, &out).map_err(|e| Error::io(&out, "publish the output", e))?
            }
        }
        sync_dir(&self.place.parent)
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        // If removal fails, the next run does it.
        let _ = working::remove(&self.place.unpacking());
    }
}

fn refuse_filled(place: &OutputPath) -> Result<Occupant> {
    match place.occupant()? {
        Occupant::Finished => Err(Error::Output {
            path: place.dir(),
            what: "output exists",
            expected: "a new or empty directory".to_owned(),
            found: "a finished physarium output".to_owned(),
        }),
        occupant => Ok(occupant),
    }
}

/// A file in a [`NewDirectory`] while it is written.
#[derive(Debug)]
pub struct NewInside {
    path: PathBuf,
    file: File,
}

impl NewInside {
    /// Appends bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.path, "write", e))
    }

    /// Makes the bytes durable.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, "sync", e))
    }
}
