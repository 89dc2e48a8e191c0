/*!
The results of units of work, shared by several hosts on one file system.

A directory `.OUT.physarium-units` beside the output holds, for each unit that is done, a directory `done/UNIT` with its
files and a record. A unit is worked on in `attempts/`, under a name of its own, and appears as a whole by one `rename`
of its directory, which fails if another attempt was first. So any number of hosts may run the same unit, and only
atomic rename is needed: no locks, no inodes, no flags.
*/

mod attempt;
mod record;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use attempt::sync_both;
pub use attempt::{Attempt, Published};
pub use record::{Stopwatch, Took, UnitRecord};

use super::durable::remove_file_if_exists;
use super::place::occupant::{Occupant, Replaceable};
use super::place::output_path::OutputPath;
use super::place::working;
use super::request::Overwrite;
use crate::error::{Error, Result};
use crate::open::source::Source;
use crate::records::manifest::{self, FileEntry, Manifest};

/// Units that are done, and attempts.
const DONE: &str = "done";
const ATTEMPTS: &str = "attempts";

/// The directory of the units of one output.
#[derive(Debug, Clone)]
pub struct UnitsDir {
    dir: PathBuf,
}

impl UnitsDir {
    /// The directory beside the output `out` of the checkpoint in `input`. Nothing is created.
    ///
    /// # Errors
    /// `Output` for a path that no run would write to, or something else of the directory's name; `Io`.
    pub fn beside(out: &Path, input: &Path) -> Result<UnitsDir> {
        let dir = OutputPath::check(out, input)?.units();
        working::refuse_foreign(&dir)?;
        Ok(UnitsDir { dir })
    }

    /// Checks that the units' output can be published at `out` as long as nothing changes there. Returns the manifest of the
    /// finished output that is to be replaced, if there is one; `on_bytes` is called with the number of its bytes hashed.
    ///
    /// # Errors
    /// `Output` for a path that no run would write to, and for what is there unless it is a finished output that `overwrite`
    /// replaces, with the files that it was published with; what `on_bytes` returns.
    pub fn check_output(
        out: &Path,
        input: &Path,
        overwrite: Overwrite,
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Option<Manifest>> {
        let place = OutputPath::check(out, input)?;
        match place.refuse_finished(overwrite)? {
            Occupant::Absent | Occupant::Empty => Ok(None),
            Occupant::Finished => {
                Replaceable::check(&place.dir(), on_bytes)?;
                Manifest::read(&place.dir().join(manifest::FILE_NAME)).map(Some)
            }
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The record of a unit that is done; `None` if it is not.
    ///
    /// # Errors
    /// `Record` for one that physarium did not write; `Io`.
    pub fn record(&self, unit: &str) -> Result<Option<UnitRecord>> {
        UnitRecord::read(&self.done(unit))
    }

    /// A file of a unit that is done.
    pub fn file(&self, unit: &str, name: &str) -> PathBuf {
        self.done(unit).join(name)
    }

    /// A file of a unit that is done, proven by the digest in its record.
    ///
    /// # Errors
    /// `Record` if the unit is not done, has no such file, or has another one than its record says; `Io`.
    pub fn proven(&self, unit: &str, name: &str) -> Result<Source> {
        let path = self.file(unit, name);
        let fault = |expected: String, found: String| {
            let what = "file of a unit of work".to_owned();
            Error::Record { path: path.clone(), what, expected, found }
        };
        let record = self.record(unit)?;
        let entry: Option<FileEntry> =
            record.and_then(|record| record.files.into_iter().find(|file| file.path == name));
        let Some(entry) = entry else {
            return Err(fault("one that the unit's record names".to_owned(), "none".to_owned()));
        };
        let file = Source::open(&path)?;
        let found = file.sha256::<Error>(&mut |_| Ok(()))?;
        if found != entry.sha256 {
            return Err(fault(format!("SHA-256 {}", entry.sha256), found.to_string()));
        }
        Ok(file)
    }

    /// Begins an attempt at a unit.
    ///
    /// # Errors
    /// `Output` for something else of the directory's name; `Io`.
    pub fn begin(&self, unit: &str) -> Result<Attempt> {
        if !self.dir.join(DONE).is_dir() {
            self.create()?;
        }
        Attempt::begin(&self.dir.join(ATTEMPTS), unit, self.done(unit))
    }

    /// Creates the directory, as several processes may at the same time: until it has its marker, it is empty.
    fn create(&self) -> Result<()> {
        let create = |dir: &Path| match fs::create_dir(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                Err(Error::io(dir, "create the directory", e))
            }
            _ => Ok(()),
        };
        create(&self.dir)?;
        working::mark(&self.dir)?;
        create(&self.dir.join(ATTEMPTS))?;
        create(&self.dir.join(DONE))?;
        sync_both(&self.dir)
    }

    /// Removes a file of a unit that is done and that no unit needs any more. It need not exist.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_file(&self, unit: &str, name: &str) -> Result<()> {
        remove_file_if_exists(&self.file(unit, name))
    }

    /// Removes everything, once the output is published.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(&self) -> Result<()> {
        working::remove(&self.dir)
    }

    fn done(&self, unit: &str) -> PathBuf {
        self.dir.join(DONE).join(unit)
    }
}
