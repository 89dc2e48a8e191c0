/*!
The lock of an output: a file `OUT.lock` that the kernel locks, with a note that says who holds it.

The file appears with its note, locked, in one step. So a file without a whole note is the user's own, such as
`Cargo.lock` beside an output `Cargo`; it is neither written nor removed.
*/

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::escape::printable;
use crate::publish::durable::create_new;

/// How the note in a lock file begins, what is before the time of day, and how it ends.
const NOTE: [&str; 3] = ["pid ", " since ", " UTC\n"];
/// More bytes than a note can have.
const MAX_NOTE_BYTES: u64 = 64;

/// The lock of an output; the kernel releases it when the process ends in any way.
#[derive(Debug)]
pub(in crate::publish) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes a lock; if it is held, the error names the holder.
    pub fn take(path: PathBuf) -> Result<Lock> {
        loop {
            match create(&path) {
                Ok(file) => return Ok(Lock { path, file }),
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
            // If it was left by a killed run, it is removed under its lock, so that no other run takes it in between.
            if let Some(file) = left_behind(&path)? {
                drop(Lock { path: path.clone(), file });
            }
        }
    }

    /// Fails as [`take`](Self::take) does if the lock is held, or is none. Writes nothing.
    pub fn probe(path: &Path) -> Result<()> {
        left_behind(path).map(drop)
    }
}

/// The lock at a path, taken, that nobody holds; `None` if there is nothing.
fn left_behind(path: &Path) -> Result<Option<File>> {
    let io = |operation| move |e| Error::io(path, operation, e);
    match path.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(meta) if meta.is_file() && meta.nlink() == 1 => {}
        _ => return Err(not_a_lock(path.to_owned())),
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).custom_flags(flags.bits() as i32).open(path);
    let file = match opened {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io("open the output's lock"))?,
    };
    let mut note = String::new();
    let read = (&file).take(MAX_NOTE_BYTES).read_to_string(&mut note);
    if read.is_err() || !is_note(&note) {
        return Err(not_a_lock(path.to_owned()));
    }
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            // The holder is only for display; the kernel keeps the lock.
            let (path, holder) = (path.to_owned(), printable(note.trim_end()));
            Err(Error::Locked { path, holder })
        }
        taken => taken.map(|()| Some(file)).map_err(|e| io("lock")(e.into())),
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held, so that no other run can take it in between, and only if it still has the name.
        // If that fails, an unlocked file remains, which the next run removes.
        let has_the_name = |held: Metadata| {
            self.path.symlink_metadata().is_ok_and(|there| identity(&there) == identity(&held))
        };
        if self.file.metadata().is_ok_and(has_the_name) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates the locked file with its note; `AlreadyExists` if anything has the name.
fn create(path: &Path) -> Result<File> {
    let io = |e: Errno| Error::io(path, "create the output's lock", e.into());
    let mode = Mode::from_raw_mode(0o666);
    let parent = path.parent().unwrap_or(Path::new("."));
    let unnamed = rustix::fs::open(parent, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode);
    if let Ok(unnamed) = unnamed {
        let mut file = File::from(unnamed);
        write_note(&mut file, path)?;
        let by_descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        match rustix::fs::linkat(CWD, &by_descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => return Ok(file),
            Err(e @ (Errno::EXIST | Errno::ACCESS | Errno::ROFS | Errno::NOSPC)) => {
                return Err(io(e));
            }
            // No /proc, or a file system without such links.
            Err(_) => {}
        }
    }
    // Not in one step: a run that is killed just here leaves an empty file, which the next one refuses.
    let mut file = create_new(path).map_err(|e| match e {
        Error::Io { source, path, .. } => Error::io(&path, "create the output's lock", source),
        other => other,
    })?;
    write_note(&mut file, path)?;
    Ok(file)
}

/// Locks a new file and writes the note.
fn write_note(file: &mut File, path: &Path) -> Result<()> {
    rustix::fs::flock(&*file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| Error::io(path, "lock", e.into()))?;
    let [begin, since, end] = NOTE;
    let note = format!("{begin}{}{since}{}{end}", std::process::id(), clock());
    match file.write_all(note.as_bytes()) {
        // A full disk is reported by the check of free space that follows.
        Err(e) if e.kind() == ErrorKind::StorageFull => Ok(()),
        written => written.map_err(|e| Error::io(path, "write", e)),
    }
}

/// Whether a file's text is a whole note.
fn is_note(text: &str) -> bool {
    let [begin, since, end] = NOTE;
    let rest = text.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    rest.and_then(|rest| rest.split_once(since)).is_some_and(|(pid, time)| {
        is_digits(pid) && time.len() == 8 && time.split(':').all(is_digits)
    })
}

fn not_a_lock(path: PathBuf) -> Error {
    Error::Output {
        path,
        what: "something has the name of the output's lock",
        expected: "nothing there, or the lock of a run".to_owned(),
        found: "a file that physarium did not write\n\
                hint: choose another name for the output, or move this away"
            .to_owned(),
    }
}

/// What two names of one file have in common.
pub(super) fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Time of day (UTC), for display only.
fn clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", now / 3600, now / 60 % 60, now % 60)
}
