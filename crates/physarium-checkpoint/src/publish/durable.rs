//! Steps of the commit protocol on files and directories.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use crate::error::{Error, Result};

/// Most temporary names that are tried.
const MAX_PART_NAMES: u32 = 1000;

/// Writes a file durably: under a temporary name until its bytes are on disk, then under its own. A file or link
/// of that name is replaced. What has the temporary name `NAME.part` already is kept: the next free one is taken.
///
/// # Errors
/// `Io`. The name then has its old file or, if only the directory could not be synced, the whole new one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = part_name(path);
    let mut created = create_new(&part);
    for number in 2..=MAX_PART_NAMES {
        match &created {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                part = part_name(path).with_extension(format!("part{number}"));
                created = create_new(&part);
            }
            _ => break,
        }
    }
    let mut file = created?;
    let written = file.write_all(bytes).map_err(|e| Error::io(&part, "write", e));
    publish_part(&part, path, written)
}

/// As [`write_whole`], for a file that `write` creates in a directory of a run's own. It is called with the temporary
/// name, at which nothing exists: what an interrupted run left there is removed.
///
/// # Errors
/// As [`write_whole`], and what `write` returns.
pub fn write_whole_with<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let part = part_name(path);
    // It may be a link, which must not be written through.
    remove_file_if_exists(&part)?;
    let written = write(&part);
    publish_part(&part, path, written)
}

/// Makes a written file durable under its own name, or removes it.
pub(super) fn publish_part<E: From<Error>>(
    part: &Path,
    path: &Path,
    written: Result<(), E>,
) -> Result<(), E> {
    let renamed = written.and_then(|()| Ok(sync_and_rename(part, path)?));
    if renamed.is_err() {
        // Best effort.
        let _ = fs::remove_file(part);
    }
    renamed?;
    Ok(sync_dir(parent(path))?)
}

fn sync_and_rename(part: &Path, path: &Path) -> Result<()> {
    let file = File::open(part).map_err(|e| Error::io(part, "open", e))?;
    file.sync_all().map_err(|e| Error::io(part, "sync", e))?;
    fs::rename(part, path).map_err(|e| Error::io(path, "create", e))
}

/// The temporary name of a file until it is complete.
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

/// Removes a file, or a link without following it.
pub(super) fn remove_file_if_exists(path: &Path) -> Result<()> {
    unless_not_found(path, fs::remove_file(path))
}

fn unless_not_found(path: &Path, removed: std::io::Result<()>) -> Result<()> {
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(path, "remove", e)),
        _ => Ok(()),
    }
}

/// Renames to a name that must not exist; atomically if the file system supports that.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> Result<()> {
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems do not support flags. The output's lock and the checks before this call
        // leave only a process that ignores the lock.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(from, to),
        done => done.map_err(Into::into),
    }
    .map_err(|e| Error::io(to, "publish the output", e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The names in a directory, sorted.
    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("an entry").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_created_and_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        for bytes in [&b"old"[..], b"", b"new and longer"] {
            write_whole(&path, bytes).expect("written");
            assert_eq!(fs::read(&path).expect("the file"), bytes);
            assert_eq!(names(dir.path()), ["record"]);
        }
    }

    #[test]
    fn links_are_replaced_and_never_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("record"), dir.path().join("other"));
        fs::write(&other, "kept").expect("a file");
        let write = |part: &Path| {
            create_new(part)?.write_all(b"new").map_err(|e| Error::io(part, "write", e))
        };
        for link in ["record.part", "record"] {
            symlink(&other, dir.path().join(link)).expect("a link");
            write_whole_with(&path, write).expect("written");
            assert!(path.symlink_metadata().expect("the file").is_file(), "{link}");
            assert_eq!(fs::read(&path).expect("the file"), b"new");
            assert_eq!(fs::read(&other).expect("the link's target"), b"kept", "{link}");
            assert_eq!(names(dir.path()), ["other", "record"]);
            fs::remove_file(&path).expect("removed");
        }
    }

    #[test]
    fn what_has_the_temporary_name_is_kept_outside_of_a_runs_own_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("record"), dir.path().join("other"));
        fs::write(&other, "kept").expect("a file");
        fs::write(dir.path().join("record.part"), "a user's").expect("a file");
        symlink(&other, dir.path().join("record.part2")).expect("a link");
        fs::create_dir(dir.path().join("record.part3")).expect("a directory");
        write_whole(&path, b"whole").expect("written");
        assert_eq!(fs::read(&path).expect("the file"), b"whole");
        assert_eq!(fs::read(dir.path().join("record.part")).expect("the file"), b"a user's");
        assert_eq!(fs::read(&other).expect("the file"), b"kept");
        let all = ["other", "record", "record.part", "record.part2", "record.part3"];
        assert_eq!(names(dir.path()), all);
    }

    #[test]
    fn a_part_of_an_interrupted_run_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("record.part"), "torn and longer").expect("a file");
        let write = |part: &Path| {
            create_new(part)?.write_all(b"whole").map_err(|e| Error::io(part, "write", e))
        };
        write_whole_with(&dir.path().join("record"), write).expect("written");
        assert_eq!(fs::read(dir.path().join("record")).expect("the file"), b"whole");
        assert_eq!(names(dir.path()), ["record"]);
    }

    #[test]
    fn the_old_file_remains_when_writing_fails() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        fs::write(&path, "old").expect("a file");
        let failed = write_whole_with(&path, |part| -> Result<()> {
            fs::write(part, "half of the ne").expect("a file");
            Err(Error::Interrupted)
        });
        assert!(matches!(failed, Err(Error::Interrupted)));
        assert_eq!(names(dir.path()), ["record"]);
        // A directory of the temporary name cannot be removed as a file.
        fs::create_dir(dir.path().join("record.part")).expect("a directory");
        let failed = write_whole_with(&path, |_| Ok::<(), Error>(()));
        let failed = failed.expect_err("a directory is in the way").to_string();
        assert!(failed.contains("record.part: cannot remove"), "{failed}");
        assert_eq!(fs::read(&path).expect("the file"), b"old");
    }

    #[test]
    fn a_name_that_cannot_be_taken_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        fs::create_dir(&path).expect("a directory");
        let failed = write_whole(&path, b"new").expect_err("a directory is there").to_string();
        assert!(failed.contains("record: cannot create"), "{failed}");
        assert_eq!(names(dir.path()), ["record"]);
        assert!(write_whole(&dir.path().join("none/record"), b"new").is_err());
        assert_eq!(names(dir.path()), ["record"]);
    }

    #[test]
    fn renaming_to_a_new_name_keeps_what_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::write(&from, "new").expect("a file");
        rename_to_new(&from, &to).expect("renamed");
        fs::write(&from, "newer").expect("a file");
        assert!(rename_to_new(&from, &to).is_err());
        assert_eq!(fs::read(&to).expect("the file"), b"new");
    }
}
