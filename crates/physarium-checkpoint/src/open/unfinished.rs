//! The mark of an output that is not complete, and names that an output needs for itself.

use std::path::Path;

/// The marker of a staging directory; a directory that holds it is not a checkpoint.
pub(crate) const UNFINISHED_NAME: &str = "physarium.unfinished.json";

/// Whether `dir` is the staging directory of a run that has not been published.
pub(crate) fn is_unfinished(dir: &Path) -> bool {
    dir.join(UNFINISHED_NAME).symlink_metadata().is_ok()
}
