//! Errors of this crate.

use std::path::PathBuf;

use physarium_checkpoint::{ErrorKind, Fault, printable, printable_path};

use crate::memory_limit::MemoryLimit;
use crate::recipe::error::RecipeError;

/// Result of this crate's functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that stops a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fault of the checkpoint, the output or the machine.
    #[error(transparent)]
    Checkpoint(physarium_checkpoint::Error),
    /// A target holds NaN or infinite weights.
    #[error(
        "{}: tensor {}: NaN or infinite weights, expected finite ones, found {count}, the first at row {row}, column {column}\nhint: --allow-nonfinite keeps them as they are and prunes around them",
        printable_path(file),
        printable(tensor)
    )]
    NonFinite {
        /// The shard.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Number of such weights in the tensor.
        count: u64,
        /// Row of the first.
        row: u64,
        /// Column of the first.
        column: u64,
    },
    /// A checkpoint that the decoder cannot run.
    #[error(transparent)]
    Model(#[from] physarium_model::Error),
    /// The machine cannot start more threads, or does not have the arithmetic or the instruction set that was asked for.
    #[error(transparent)]
    Compute(#[from] physarium_model::ComputeError),
    /// A target whose weights or activations an activation-aware method cannot use.
    #[error("tensor {}: {what}", printable(tensor))]
    Unsolvable {
        /// The tensor.
        tensor: String,
        /// What was expected and what was found.
        what: String,
    },
    /// `--strict`: inputs of a target are always zero, so that the calibration text says nothing about their weights.
    #[error(
        "tensor {}: {dead} of {inputs} inputs are always zero on the calibration text (refused under --strict)",
        printable(tensor)
    )]
    DeadInputs {
        /// The tensor.
        tensor: String,
        /// Inputs that are always zero.
        dead: u64,
        /// All its inputs.
        inputs: u64,
        /// Whether layers of an interrupted run were taken: the same command without `--strict` resumes it.
        resumed: bool,
    },
    /// The model computes NaN, or an infinite logit.
    #[error(
        "{}: logits are NaN or infinite after {tokens} tokens{}: the weights are damaged or overflow float32",
        printable_path(model),
        line.map_or(String::new(), |line| format!(" (the item in line {line})"))
    )]
    NonFiniteLogits {
        /// The model.
        model: PathBuf,
        /// Tokens that it had processed.
        tokens: usize,
        /// The line of the item that was scored.
        line: Option<usize>,
    },
    /// A matrix that was given in memory cannot be used.
    #[error("{what}: expected {expected}, found {found}")]
    Matrix {
        /// The matrix: `weights` or `gram`.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The run was cancelled before it had a result; there is nothing to resume.
    #[error("interrupted before there was a result")]
    Stopped,
    /// The run needs more memory than it may take.
    #[error(
        "not enough memory, expected {} MB, which are enough for this run, found {} MB {}",
        least / 1_000_000,
        limit_bytes / 1_000_000,
        found(limit)
    )]
    NoMemory {
        /// Resident bytes that would do, in whole MB.
        least: u64,
        /// Bytes that the limit allows.
        limit_bytes: u64,
        /// The limit.
        limit: MemoryLimit,
    },
    /// A parameter is out of range.
    #[error("{0}")]
    Usage(String),
    /// Options that cannot be combined into a recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A method that works along the inputs cannot prune a target that is not known to be stored
    /// `[out_features, in_features]`.
    #[error(
        "{}: tensor {}: {found}, expected [out_features, in_features]: this method works along the inputs",
        printable_path(file),
        printable(tensor)
    )]
    Transposed {
        /// The shard.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// How it is stored.
        found: &'static str,
    },
    /// The run was cancelled; it can be resumed.
    #[error("interrupted; what is finished is kept in {}", printable_path(staging))]
    Interrupted {
        /// The directory that holds the finished shards.
        staging: PathBuf,
    },
}

impl Error {
    /// The kind of error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Checkpoint(e) => e.kind(),
            Error::NonFinite { .. } | Error::Matrix { .. } => ErrorKind::Input,
            Error::Model(e) => e.kind(),
            Error::Unsolvable { .. } | Error::DeadInputs { .. } | Error::NonFiniteLogits { .. } => {
                ErrorKind::Input
            }
            Error::Compute(_) | Error::NoMemory { .. } => ErrorKind::Environment,
            Error::Stopped => ErrorKind::Interrupted,
            Error::Usage(_) | Error::Recipe(_) => ErrorKind::Usage,
            Error::Transposed { .. } => ErrorKind::Unsupported,
            Error::Interrupted { .. } => ErrorKind::Interrupted,
        }
    }

    /// The parts of this error.
    pub fn fault(&self) -> Fault {
        let in_tensor = |tensor: &str| Fault::default().with_tensor(tensor);
        match self {
            Error::Checkpoint(e) => e.fault(),
            Error::Model(e) => e.fault(),
            Error::NonFinite { file, tensor, count, .. } => {
                let found = format!("{count} NaN or infinite weights");
                Fault::in_file(file).with_tensor(tensor).with("finite weights", found)
            }
            Error::Unsolvable { tensor, .. } => in_tensor(tensor),
            Error::DeadInputs { tensor, dead, inputs, .. } => in_tensor(tensor)
                .with("no inputs that are always zero", format!("{dead} of {inputs} inputs")),
            Error::NonFiniteLogits { model, .. } => {
                Fault::in_file(model).with("finite logits", "NaN or infinite ones")
            }
            Error::Matrix { what, expected, found } => in_tensor(what).with(expected, found),
            Error::NoMemory { least, limit_bytes, .. } => {
                Fault::default().with(format!("{least} bytes"), format!("{limit_bytes} bytes"))
            }
            Error::Transposed { file, tensor, found } => {
                Fault::in_file(file).with_tensor(tensor).with("[out_features, in_features]", found)
            }
            Error::Interrupted { staging } => Fault::in_file(staging),
            Error::Compute(_) | Error::Stopped | Error::Usage(_) | Error::Recipe(_) => {
                Fault::default()
            }
        }
    }
}

/// What a limit of memory is, after its size, and what to do if it is too low.
fn found(limit: &MemoryLimit) -> &'static str {
    match limit {
        MemoryLimit::Free => {
            "(what is free, less 5 %)\nhint: end other programs, or set another limit by --memory"
        }
        MemoryLimit::Bytes(_) => "(--memory)",
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
