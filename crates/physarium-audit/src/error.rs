//! What keeps an audit from being made.

use std::path::PathBuf;

use physarium_checkpoint::ErrorKind;

/// Result of this crate's functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What keeps an audit from being made. That something is *false* is not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint, its journal, or the machine.
    #[error(transparent)]
    Checkpoint(#[from] physarium_checkpoint::Error),
    /// A file of claims is not well-formed.
    #[error("{}: {what}", path.display())]
    Claims {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the claim's id where there is one.
        what: String,
    },
    /// A claim is about something that this audit could not count.
    #[error(
        "{}: claim {id}: counts {count}, which this audit does not know\nhint: --against ORIGINAL tells pruned weights from weights that were zero before",
        path.display()
    )]
    Unmeasured {
        /// The file.
        path: PathBuf,
        /// The claim.
        id: String,
        /// What it counts.
        count: String,
    },
}

impl Error {
    /// Which of the reasons behind exit code 2 this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Checkpoint(e) => e.kind(),
            Error::Claims { .. } => ErrorKind::Usage,
            Error::Unmeasured { .. } => ErrorKind::Usage,
        }
    }
}
