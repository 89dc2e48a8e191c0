//! Free space on the file system of an output.

use std::path::Path;

use crate::error::{Error, Result};

/// Free space that must be left over, as a share of the output: 1/20 is 5 %.
const SPACE_MARGIN: u64 = 20;

/// Room on the file system of a directory.
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
}

/// The error for an output of which `output` more bytes do not fit.
pub(super) fn no_space(parent: &Path, output: u64, free: u64) -> Error {
    Error::NoSpace { path: parent.to_owned(), needed: with_margin(output), output, free }
}

fn with_margin(output: u64) -> u64 {
    output.saturating_add(output / SPACE_MARGIN)
}

/// Fails if `output` bytes and a margin do not fit below `parent`.
pub(super) fn check_space(parent: &Path, output: u64) -> Result<()> {
    let free = Disk::of(parent)?.free;
    if with_margin(output) > free { Err(no_space(parent, output, free)) } else { Ok(()) }
}
