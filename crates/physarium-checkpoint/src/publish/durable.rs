//! Steps of the commit protocol on files and names: each is done as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use crate::error::{Error, Result};

/// Writes a file whose name appears only once its bytes are durable, and makes the name durable too. A file of
/// that name is replaced.
///
/// # Errors
/// `Io`; nothing has changed under the name then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole_with(path, |part| {
        let mut file = create_new(part)?;
        file.write_all(bytes).map_err(|e| Error::io(part, "write", e))
    })
}

/// As [`write_whole`], for a file that `write` makes under another name, which it is given.
///
/// # Errors
/// `Io`, or what `write` returns; nothing has changed under the name then.
pub fn write_whole_with<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let part = part_name(path);
    // What an interrupted run left. Whatever it is, it is not written through.
    match fs::remove_file(&part) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(Error::io(&part, "remove what an earlier run left", e).into());
        }
        _ => {}
    }
    write(&part)?;
    let file = File::open(&part).map_err(|e| Error::io(&part, "open", e))?;
    file.sync_all().map_err(|e| Error::io(&part, "sync", e))?;
    fs::rename(&part, path).map_err(|e| Error::io(path, "create", e))?;
    Ok(sync_dir(parent(path))?)
}

/// Where a file is until it is complete.
pub(super) fn part_name(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a file that must not exist.
pub(super) fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|e| Error::io(path, "create", e))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    let io = |e| Error::io(dir, "sync the directory", e);
    File::open(dir).map_err(io)?.sync_all().map_err(io)
}

pub(super) fn remove_if_there(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(dir, "remove", e)),
        _ => Ok(()),
    }
}

/// Renames to a name that must not exist, in one step where the file system can.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> Result<()> {
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems know no flags; the lock and the check before stand in.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(from, to),
        done => done.map_err(Into::into),
    }
    .map_err(|e| Error::io(to, "publish the output", e))
}
