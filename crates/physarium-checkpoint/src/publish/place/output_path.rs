/*!
The path of an output: checked before anything is written, and locked while it is written.

The parent directory must exist. The output must not be the input, inside it or around it (by resolved path, and by
device and inode because of bind mounts), nor in the hub cache that the input is in, and must not be a link.
*/

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::lock::{Lock, identity};
use super::occupant::Occupant;
use crate::error::{Error, Result};
use crate::escape::printable;
use crate::open::hub::cache::inside_cache;
use crate::open::hub::snapshot::cache_of;
use crate::publish::request::Overwrite;

/// What a run would find at the path of its output and beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What exists at the path itself.
    pub output: Occupant,
    /// The directory of an unfinished run of the same output.
    pub unfinished: Option<PathBuf>,
}

impl Found {
    /// Checks the path of an output of the checkpoint in `input`, and looks what is there. Writes nothing.
    ///
    /// # Errors
    /// `Output` for a path that no run would write to; `Io`.
    pub fn at(out: &Path, input: &Path) -> Result<Found> {
        Found::of(&OutputPath::check(out, input)?)
    }

    /// What is at a path that was checked.
    pub(in crate::publish) fn of(place: &OutputPath) -> Result<Found> {
        let staging = place.staging();
        let unfinished = staging.symlink_metadata().is_ok().then_some(staging);
        Ok(Found { output: place.occupant()?, unfinished })
    }
}

/// The path of an output: its resolved parent directory and its name.
#[derive(Debug, Clone)]
pub(in crate::publish) struct OutputPath {
    /// Resolved parent directory.
    pub parent: PathBuf,
    /// Name of the output in it.
    name: String,
}

impl OutputPath {
    /// Checks `out` against the input directory.
    pub fn check(out: &Path, input: &Path) -> Result<OutputPath> {
        let fault = |what, expected: &str, found: String| Error::Output {
            path: out.to_owned(),
            what,
            expected: expected.to_owned(),
            found,
        };
        let Some(name) = out.file_name() else {
            let found = format!("{}", out.display());
            return Err(fault("not a name for an output", "a path that ends in a name", found));
        };
        let Some(name) = name.to_str().map(str::to_owned) else {
            let found = "other bytes".to_owned();
            return Err(fault("output name is not UTF-8", "a name in UTF-8", found));
        };
        if name.len() > 200 {
            let found = format!("{} bytes", name.len());
            return Err(fault("output name is too long", "at most 200 bytes", found));
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = fs::canonicalize(parent).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                let found = printable(&e.to_string());
                fault("output's parent directory does not exist", "an existing directory", found)
            }
            _ => Error::io(parent, "find the output's parent directory", e),
        })?;
        if !parent.is_dir() {
            return Err(fault(
                "output's parent is not a directory",
                "a directory",
                "a file".into(),
            ));
        }
        let place = OutputPath { parent, name };
        place.refuse_input(out, input)?;
        Ok(place)
    }

    /// The path of the output itself.
    pub fn dir(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// Where it is written.
    pub fn staging(&self) -> PathBuf {
        self.parent.join(format!(".{}.physarium-partial", self.name))
    }

    /// Where units of work leave their results.
    pub fn units(&self) -> PathBuf {
        self.parent.join(format!(".{}.physarium-units", self.name))
    }

    /// Where it is unpacked: another path than [`staging`](Self::staging), where a run that can be resumed may be.
    pub fn unpacking(&self) -> PathBuf {
        self.parent.join(format!(".{}.physarium-unpacking", self.name))
    }

    /// Where a packed file is written; another path for the same reason.
    pub fn packing(&self) -> PathBuf {
        self.parent.join(format!(".{}.physarium-packing", self.name))
    }

    /// Where an earlier output is moved while it is replaced.
    pub fn replaced(&self) -> PathBuf {
        self.parent.join(format!(".{}.physarium-replaced", self.name))
    }

    /// What exists at the output's path, see [`Occupant::of`].
    pub fn occupant(&self) -> Result<Occupant> {
        Occupant::of(&self.dir())
    }

    /// What exists at the output's path, unless it is a finished output that is not to be overwritten.
    pub fn refuse_finished(&self, overwrite: Overwrite) -> Result<Occupant> {
        match (self.occupant()?, overwrite) {
            (Occupant::Finished, Overwrite::Refuse) => Err(Error::Output {
                path: self.dir(),
                what: "output exists",
                expected: "a new or empty directory (or --force to replace this one)".to_owned(),
                found: "a finished physarium output".to_owned(),
            }),
            (occupant, _) => Ok(occupant),
        }
    }

    fn refuse_input(&self, out: &Path, input: &Path) -> Result<()> {
        let real_input = fs::canonicalize(input).map_err(|e| Error::io(input, "resolve", e))?;
        let dir = self.dir();
        let real_out = fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
        let fault = |what| {
            Err(Error::Output {
                path: out.to_owned(),
                what,
                expected: "a path outside the checkpoint".to_owned(),
                found: format!("{}", real_input.display()),
            })
        };
        if same(&real_out, &real_input) {
            return fault("output is the input");
        }
        if real_out.ancestors().skip(1).any(|above| same(above, &real_input)) {
            return fault("output is inside the input");
        }
        if real_input.ancestors().skip(1).any(|above| same(above, &real_out)) {
            return fault("input is inside the output");
        }
        match cache_of(&real_input) {
            Some(cache) if real_out.starts_with(&cache) => Err(inside_cache(out, &cache)),
            _ => Ok(()),
        }
    }

    /// Takes the lock of this output; if it is held, the error names the holder.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(self.lock_file())
    }

    /// Fails if the lock is held, or if this process may not write beside the output. Writes nothing.
    pub fn refuse_locked(&self) -> Result<()> {
        Lock::probe(&self.lock_file())?;
        rustix::fs::access(&self.parent, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|e| Error::io(&self.parent, "write to", e.into()))
    }

    fn lock_file(&self) -> PathBuf {
        self.parent.join(format!("{}.lock", self.name))
    }
}

fn same(a: &Path, b: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).ok().map(|meta| identity(&meta));
    a == b || inode(a).is_some_and(|id| Some(id) == inode(b))
}
