/*!
The path of an output: checked before anything is written, and locked while it is written.

The parent directory must exist. The output must not be the input, inside it or around it (by resolved path, and by
device and inode because of bind mounts), and must not be a link.
*/

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::escape::printable;
use crate::records::manifest;

/// How the note in a lock file begins.
const LOCK_NOTE: &str = "pid ";

/// The path of an output: its resolved parent directory and its name.
#[derive(Debug, Clone)]
pub(crate) struct OutputPath {
    /// Resolved parent directory.
    pub parent: PathBuf,
    /// Name of the output in it.
    name: String,
}

/// What exists at the output's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// Nothing exists.
    Absent,
    /// An empty directory.
    Empty,
    /// A finished physarium output.
    Finished,
}

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
        let place = OutputPath::check(out, input)?;
        let staging = place.staging();
        let unfinished = staging.symlink_metadata().is_ok().then_some(staging);
        Ok(Found { output: place.occupant()?, unfinished })
    }
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

    /// Where it is unpacked: another path than [`staging`](Self::staging), where a run that can be resumed may be.
    pub fn unpacking(&self) -> PathBuf {
        self.parent.join(format!(".{}.physarium-unpacking", self.name))
    }

    /// Where an earlier output is moved while it is replaced.
    pub fn replaced(&self) -> PathBuf {
        self.parent.join(format!(".{}.physarium-replaced", self.name))
    }

    /// What exists at the output's path. A link, a file, and a directory that is neither empty nor a physarium
    /// output are errors.
    pub fn occupant(&self) -> Result<Occupant> {
        let dir = self.dir();
        let fault = |what, expected: &str, found: &str| Error::Output {
            path: dir.clone(),
            what,
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        let meta = match dir.symlink_metadata() {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Occupant::Absent),
            Err(e) => return Err(Error::io(&dir, "look at the output", e)),
            Ok(meta) => meta,
        };
        if meta.is_symlink() {
            return Err(fault("output is a link", "a new or empty directory", "a symbolic link"));
        }
        if !meta.is_dir() {
            return Err(fault("output exists", "a new or empty directory", "a file"));
        }
        let empty =
            fs::read_dir(&dir).map_err(|e| Error::io(&dir, "list the output", e))?.next().is_none();
        if empty {
            Ok(Occupant::Empty)
        } else if dir.join(manifest::FILE_NAME).is_file() {
            Ok(Occupant::Finished)
        } else {
            let found = "a directory with other files in it (not a physarium output)";
            Err(fault("output exists and is not empty", "a new or empty directory", found))
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
        Ok(())
    }

    /// Takes the lock of this output; if it is held, the error names the holder.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.parent.join(format!("{}.lock", self.name));
        let io = |operation| move |e| (operation, e);
        let fail = |(operation, e)| Error::io(&path, operation, e);
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
                .open(&path)
                .map_err(io("create the output's lock"))
                .map_err(fail)?;
            let held = file.metadata().map_err(io("stat")).map_err(fail)?;
            if !held.is_file() {
                return Err(not_a_lock(path));
            }
            let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            if taken == Err(Errno::WOULDBLOCK) {
                let mut holder = String::new();
                // The holder is only for display; the kernel keeps the lock.
                let _ = file.read_to_string(&mut holder);
                let holder = printable(holder.trim_end());
                return Err(Error::Locked { path, holder });
            }
            taken.map_err(|e| Error::io(&path, "lock", e.into()))?;
            // A finished run removes its lock file: check that this file still has the name.
            if fs::metadata(&path).is_ok_and(|there| identity(&there) == identity(&held)) {
                let mut start = Vec::new();
                file.by_ref()
                    .take(LOCK_NOTE.len() as u64)
                    .read_to_end(&mut start)
                    .map_err(io("read"))
                    .map_err(fail)?;
                // A killed run leaves an empty or torn note. Any other file is the user's own `NAME.lock`.
                if !LOCK_NOTE.as_bytes().starts_with(&start) {
                    return Err(not_a_lock(path));
                }
                let note = format!("{LOCK_NOTE}{} since {} UTC\n", std::process::id(), clock());
                // A full disk is reported by the check of free space that follows.
                let _ = file.set_len(0).and_then(|()| file.write_all_at(note.as_bytes(), 0));
                return Ok(Lock { path, _file: file });
            }
        }
    }
}

/// The lock of an output; the kernel releases it when the process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held, so that no other run can take it in between. If that fails, an unlocked
        // file remains, which the next run reuses.
        let _ = fs::remove_file(&self.path);
    }
}

fn not_a_lock(path: PathBuf) -> Error {
    Error::Output {
        path,
        what: "a file has the name of the output's lock",
        expected: "nothing there, or the lock of a run".to_owned(),
        found: "a file that physarium did not write".to_owned(),
    }
}

fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn same(a: &Path, b: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).ok().map(|meta| identity(&meta));
    a == b || inode(a).is_some_and(|id| Some(id) == inode(b))
}

/// Time of day (UTC), for display only.
fn clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", now / 3600, now / 60 % 60, now % 60)
}
