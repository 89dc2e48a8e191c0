/*!
Outputs of commands that cannot be resumed: a file, or a directory of files.

Both are written under a temporary name in the same parent directory, under the output's lock, and renamed as the
last step. The next run discards what an interrupted one left.
*/

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::durable::{
    create_new, remove_dir_if_exists, remove_file_if_exists, rename_to_new, sync_dir,
};
use super::output_path::{Lock, Occupant, OutputPath};
use super::request::Overwrite;
use super::space::check_space;
use crate::error::{Error, Result};
use crate::open::unfinished::UNFINISHED_NAME;

/// A file while it is written. Dropping it discards it.
#[derive(Debug)]
pub struct NewFile {
    place: OutputPath,
    part: PathBuf,
    file: File,
    written: u64,
    overwrite: Overwrite,
    _lock: Lock,
}

impl NewFile {
    /// Checks the path of an output of about `bytes` that is made from `input`, and creates the file.
    ///
    /// # Errors
    /// `Output` when something exists there that may not be replaced, or the path is not usable; `Locked`,
    /// `NoSpace`, `Io`.
    pub fn create(out: &Path, input: &Path, bytes: u64, overwrite: Overwrite) -> Result<NewFile> {
        let place = OutputPath::check(out, input)?;
        let lock = place.lock()?;
        refuse_occupied(&place.dir(), overwrite)?;
        check_space(&place.parent, bytes)?;
        let part = place.staging();
        remove_file_if_exists(&part)?;
        let file = create_new(&part)?;
        Ok(NewFile { place, part, file, written: 0, overwrite, _lock: lock })
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
        refuse_occupied(&out, self.overwrite)?;
        match self.overwrite {
            Overwrite::Refuse => rename_to_new(&self.part, &out)?,
            Overwrite::Replace => fs::rename(&self.part, &out)
                .map_err(|e| Error::io(&out, "publish the output", e))?,
        }
        sync_dir(&self.place.parent)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After publication nothing has this name. If removal fails, the next run removes it.
        let _ = fs::remove_file(&self.part);
    }
}

fn refuse_occupied(out: &Path, overwrite: Overwrite) -> Result<()> {
    let found = match out.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(out, "look at the output", e)),
        Ok(meta) if meta.is_file() && overwrite == Overwrite::Replace => return Ok(()),
        Ok(meta) if meta.is_file() => "a file",
        Ok(meta) if meta.is_dir() => "a directory",
        Ok(_) => "something that is not a file",
    };
    Err(Error::Output {
        path: out.to_owned(),
        what: "output exists",
        expected: "a new file (or --force to replace a file)".to_owned(),
        found: found.to_owned(),
    })
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
        check_space(&place.parent, bytes)?;
        let dir = place.unpacking();
        remove_dir_if_exists(&dir)?;
        fs::create_dir(&dir).map_err(|e| Error::io(&dir, "create the directory", e))?;
        create_new(&dir.join(UNFINISHED_NAME))?;
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
        let marker = self.dir.join(UNFINISHED_NAME);
        fs::remove_file(&marker).map_err(|e| Error::io(&marker, "remove", e))?;
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
        // After publication nothing has this name. If removal fails, the next run removes it.
        let _ = fs::remove_dir_all(&self.dir);
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
