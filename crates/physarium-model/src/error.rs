//! What keeps a checkpoint from being run.

use std::path::PathBuf;

use physarium_checkpoint::{ErrorKind, printable};

/// Result of this crate's functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What keeps a checkpoint from being run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint is not as its format or its own config say, or cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] physarium_checkpoint::Error),
    /// The checkpoint is sound, but of a kind that this decoder does not know.
    #[error("{}: {field} {} is not supported, expected one of: {known}", file.display(), printable(found))]
    Unsupported {
        /// The file that says so.
        file: PathBuf,
        /// The field in it.
        field: &'static str,
        /// Its value.
        found: String,
        /// The values that are known.
        known: String,
    },
    /// A token that the model has no embedding for.
    #[error(
        "token {token} is outside the vocabulary of {vocabulary}: tokenizer and model do not belong together"
    )]
    Token {
        /// The token's id.
        token: u32,
        /// Number of embeddings.
        vocabulary: usize,
    },
}

impl Error {
    /// Which of the reasons behind exit code 2 this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Checkpoint(e) => e.kind(),
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::Token { .. } => ErrorKind::Input,
        }
    }
}

impl From<physarium_checkpoint::Malformed> for Error {
    fn from(fault: physarium_checkpoint::Malformed) -> Self {
        Error::Checkpoint(fault.into())
    }
}
