//! Why an audit cannot be made.

use std::fmt;
use std::path::PathBuf;

use physarium_checkpoint::{ErrorKind, Fault, printable, printable_path};

/// Result of this crate's functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an audit cannot be made. A *false* number or claim is a result, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint or its journal is invalid or cannot be read, or the machine lacks a resource.
    #[error(transparent)]
    Checkpoint(#[from] physarium_checkpoint::Error),
    /// A claims file is not well-formed.
    #[error("{}: {what}", printable_path(path))]
    Claims {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the id of the claim if there is one.
        what: String,
    },
    /// A claim needs a count that this audit does not have.
    #[error(
        "{}: claim {}: this audit has no count of {count}{lacking}",
        printable_path(path),
        printable(id)
    )]
    Unmeasured {
        /// The file.
        path: PathBuf,
        /// The claim.
        id: String,
        /// What it counts.
        count: String,
        /// Why there is no count.
        lacking: Lacking,
    },
}

/// Why an audit lacks a count.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lacking {
    /// Nothing was compared with the original.
    Original,
    /// No weights were read.
    Weights,
    /// These tensors, as a message names them, cannot be compared with the original.
    Counterparts(String),
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lacking::Original => f.write_str(
                "\nhint: --against ORIGINAL distinguishes pruned weights from weights that were zero before, and \
                 compares the other tensors",
            ),
            Lacking::Weights => f.write_str("\nhint: audit counts it in the weights, without --from-journal"),
            Lacking::Counterparts(names) => write!(
                f,
                "; cannot be compared with the original: {names}\nhint: audit without --claims says why not, and \
                 claims of other projections can be judged"
            ),
        }
    }
}

impl Error {
    /// The parts of this error.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Checkpoint(e) => e.fault(),
            Error::Claims { path, .. } | Error::Unmeasured { path, .. } => Fault::in_file(path),
        }
    }

    /// The reason behind exit code 2.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Checkpoint(e) => e.kind(),
            Error::Claims { .. } | Error::Unmeasured { .. } => ErrorKind::Usage,
        }
    }
}
