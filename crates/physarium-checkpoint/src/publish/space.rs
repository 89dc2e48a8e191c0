//! Free space on the file system of an output.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// The free space must exceed the output by one part in this many: 5 %.
const MARGIN_DIVISOR: u64 = 20;

/// Space on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that this user can still write.
    pub free: u64,
}

impl Disk {
    /// Asks the file system that holds `path`.
    ///
    /// # Errors
    /// `Io`.
    pub fn of(path: &Path) -> Result<Disk> {
        let stat = rustix::fs::statvfs(path).map_err(|e| Error::io(path, "statvfs", e.into()))?;
        Ok(Disk { free: stat.f_bavail.saturating_mul(stat.f_frsize) })
    }

    /// Bytes that must be free for `output` bytes to be written: 5 % more.
    pub fn needed(output: u64) -> u64 {
        output.saturating_add(output / MARGIN_DIVISOR)
    }

    /// Checks that `output` more bytes and a margin of 5 % fit on the file system of `parent`.
    ///
    /// # Errors
    /// `NoSpace` if they do not; `Io`.
    pub fn check(parent: &Path, output: u64) -> Result<()> {
        let free = Disk::of(parent)?.free;
        if Disk::needed(output) > free { Err(no_space(parent, output, free)) } else { Ok(()) }
    }
}

/// The error when `output` more bytes and the margin do not fit into `free` bytes.
pub(super) fn no_space(parent: &Path, output: u64, free: u64) -> Error {
    Error::NoSpace { path: parent.to_owned(), needed: Disk::needed(output), output, free }
}

/// Bytes of the files below a directory, if there is one. Links are not followed.
pub(super) fn bytes_below(dir: &Path) -> Result<u64> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(|e| Error::io(dir, "list", e))?,
    };
    let mut bytes = 0u64;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(dir, "list", e))?;
        let meta = entry.metadata().map_err(|e| Error::io(&entry.path(), "look at", e))?;
        bytes = bytes.saturating_add(match meta.is_dir() {
            true => bytes_below(&entry.path())?,
            false => meta.len(),
        });
    }
    Ok(bytes)
}
