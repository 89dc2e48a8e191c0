//! The marker of an output that is not complete.

use std::path::Path;

/// Name of the marker in a staging directory; a directory that holds it is not a checkpoint.
pub(crate) const UNFINISHED_NAME: &str = "physarium.unfinished.json";

/// How the note in a marker begins, by which it is told from a file of the user's.
pub(crate) const NOTE_START: &str = "unfinished physarium output";

/// Whether `dir` is an output that has not been published.
pub(crate) fn is_unfinished(dir: &Path) -> bool {
    dir.join(UNFINISHED_NAME).symlink_metadata().is_ok()
}
