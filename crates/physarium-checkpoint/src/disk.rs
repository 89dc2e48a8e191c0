//! Small facts about directories and file systems that the commit protocol rests on.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::staging::UNFINISHED_NAME;

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

/// Whether `dir` is the staging directory of a run that has not been published.
pub(crate) fn is_unfinished(dir: &Path) -> bool {
    dir.join(UNFINISHED_NAME).symlink_metadata().is_ok()
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    let io = |e| Error::io(dir, "sync the directory", e);
    File::open(dir).map_err(io)?.sync_all().map_err(io)
}
