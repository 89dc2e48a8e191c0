//! Why a checkpoint cannot be run.

use std::path::PathBuf;

use physarium_checkpoint::{ErrorKind, Fault, printable, printable_path};

/// Result of this crate's functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint violates its format, does not match its config, or cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] physarium_checkpoint::Error),
    /// The checkpoint is valid, but this decoder does not support it.
    #[error(
        "{}: {field} {} is not supported, expected one of: {supported}",
        printable_path(file),
        printable(found)
    )]
    Unsupported {
        /// The file with the unsupported value.
        file: PathBuf,
        /// The field in that file.
        field: &'static str,
        /// Its value.
        found: String,
        /// The values that are supported.
        supported: String,
    },
    /// A token without an embedding.
    #[error(
        "{}: token {token} is outside the vocabulary of {vocabulary}: tokenizer and model do not match",
        printable_path(model)
    )]
    Token {
        /// The model.
        model: PathBuf,
        /// The token's id.
        token: u32,
        /// Number of embeddings.
        vocabulary: usize,
    },
}

impl Error {
    /// The parts of this error.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Checkpoint(e) => e.fault(),
            Error::Unsupported { file, found, supported, .. } => {
                Fault::in_file(file).with(format!("one of: {supported}"), found)
            }
            Error::Token { model, token, vocabulary } => {
                Fault::in_file(model).with(format!("a token below {vocabulary}"), token)
            }
        }
    }

    /// The reason behind exit code 2.
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
