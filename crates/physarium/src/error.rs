//! What stops a run, with its kind.

use std::path::PathBuf;

use physarium_checkpoint::{ErrorKind, printable};

use crate::recipe_error::RecipeError;

/// Result of this crate's functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What stops a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint, the output or the machine.
    #[error(transparent)]
    Checkpoint(physarium_checkpoint::Error),
    /// A target holds weights that are no numbers.
    #[error(
        "{}: tensor {}: NaN or infinite weights, expected finite ones, found {count}, the first at row {row}, column {column}\nhint: --allow-nonfinite keeps them as they are and prunes around them",
        file.display(), printable(tensor)
    )]
    NonFinite {
        /// The shard.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// How many there are in the tensor.
        count: u64,
        /// Row of the first.
        row: u64,
        /// Column of the first.
        column: u64,
    },
    /// A checkpoint that cannot be run.
    #[error(transparent)]
    Model(#[from] physarium_model::Error),
    /// The operating system has no threads to give.
    #[error(transparent)]
    Threads(#[from] physarium_model::ThreadsUnavailable),
    /// A projection cannot be solved by what passes through it.
    #[error("tensor {}: {what}", printable(tensor))]
    Unsolvable {
        /// The tensor.
        tensor: String,
        /// What is in the way.
        what: String,
    },
    /// A model whose logits are NaN.
    #[error("{}: logits are NaN after {tokens} tokens: the weights are damaged, or overflow float32", model.display())]
    NonFiniteLogits {
        /// The model.
        model: PathBuf,
        /// Tokens that it had seen.
        tokens: usize,
    },
    /// The user stopped a run that keeps nothing.
    #[error("interrupted before there was a result")]
    Stopped,
    /// A parameter is out of range.
    #[error("{0}")]
    Usage(String),
    /// Options that do not make a recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A pattern along the inputs was asked of a tensor stored the other way round.
    #[error(
        "{}: tensor {}: {found}, expected [out_features, in_features]: this method works along the inputs",
        file.display(), printable(tensor)
    )]
    Transposed {
        /// The shard.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// How it is stored.
        found: &'static str,
    },
    /// The user stopped the run; it can be resumed.
    #[error("interrupted; the finished shards are kept in {}", staging.display())]
    Interrupted {
        /// Where they are kept.
        staging: PathBuf,
    },
}

impl Error {
    /// Which of the reasons behind exit code 2 this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Checkpoint(e) => e.kind(),
            Error::NonFinite { .. } => ErrorKind::Input,
            Error::Model(e) => e.kind(),
            Error::Unsolvable { .. } | Error::NonFiniteLogits { .. } => ErrorKind::Input,
            Error::Threads(_) => ErrorKind::Environment,
            Error::Stopped => ErrorKind::Interrupted,
            Error::Usage(_) | Error::Recipe(_) => ErrorKind::Usage,
            Error::Transposed { .. } => ErrorKind::Unsupported,
            Error::Interrupted { .. } => ErrorKind::Interrupted,
        }
    }
}

impl From<physarium_checkpoint::Error> for Error {
    fn from(e: physarium_checkpoint::Error) -> Self {
        Error::Checkpoint(e)
    }
}

impl From<physarium_checkpoint::Malformed> for Error {
    fn from(fault: physarium_checkpoint::Malformed) -> Self {
        Error::Checkpoint(fault.into())
    }
}
