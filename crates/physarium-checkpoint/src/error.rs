//! Errors of reading and writing checkpoints. Each names the file, and the tensor if the fault is in one.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::escape::{printable, printable_path as show};

/// Result of this crate's functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error; the program ends with exit code 2 for most of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The options are invalid for this checkpoint.
    Usage,
    /// The checkpoint is malformed or incomplete.
    Input,
    /// The output path, or what is at it, is not usable.
    Output,
    /// The operating system refused: I/O error, no space, no threads.
    Environment,
    /// The checkpoint is well-formed, but physarium cannot prune it.
    Unsupported,
    /// The input changed during the run.
    InputChanged,
    /// The user stopped the run.
    Interrupted,
}

/// A fault in a file of the checkpoint. All such faults are reported in this form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The malformed file.
    pub file: PathBuf,
    /// The tensor with the fault, if it is in one.
    pub tensor: Option<String>,
    /// What is wrong, in a few words.
    pub what: &'static str,
    /// What was expected there.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Where in the file, in bytes from its start.
    pub offset: Option<u64>,
    /// What the user can do about it.
    pub hint: Option<Cow<'static, str>>,
}

impl Malformed {
    /// A fault of a whole file. Add a tensor, an offset and a hint with the `with_` methods.
    pub fn new(
        file: &Path,
        what: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Malformed {
            file: file.to_owned(),
            tensor: None,
            what,
            expected,
            found,
            offset: None,
            hint: None,
        }
    }

    /// Adds the name of the tensor with the fault.
    #[must_use]
    pub fn with_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.tensor = Some(tensor.into());
        self
    }

    /// Adds the byte offset in the file.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Adds a line that says what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", show(&self.file))?;
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {}: ", printable(tensor))?;
        }
        write!(f, "{}, expected {}, found {}", self.what, self.expected, self.found)?;
        if let Some(offset) = self.offset {
            write!(f, " (byte offset {offset})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Why a function of this crate failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the checkpoint violates its format.
    #[error("{0}")]
    Malformed(Box<Malformed>),
    /// The operating system refused.
    #[error("{}: cannot {operation}: {source}", show(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The failed operation: a verb with its object.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system cannot start another thread.
    #[error("cannot start a thread: {source}\nhint: try --threads 1")]
    Thread {
        /// The system's reason.
        source: io::Error,
    },
    /// A file became shorter after its header was checked.
    #[error(
        "{}: file shrank while it was read, expected {expected} bytes at offset {offset}, found the end",
        show(path)
    )]
    FileShrank {
        /// The file.
        path: PathBuf,
        /// Where the read began.
        offset: u64,
        /// Bytes to read.
        expected: usize,
    },
    /// A file changed, or was replaced, after the run began.
    #[error(
        "{}: input changed during the run: {what} was {before}, is {after}\nhint: restore the input, or begin again once nothing writes to it: prune and compare with --restart, units with a new plan after .OUT.physarium-units is removed",
        show(path)
    )]
    InputChanged {
        /// The file.
        path: PathBuf,
        /// The property that differs.
        what: &'static str,
        /// Its value when the run began.
        before: String,
        /// Its value when it was checked again.
        after: String,
    },
    /// A glob is not well-formed.
    // globset's own message repeats the pattern as it is.
    #[error(
        "{option} {}: not a valid pattern: {}",
        printable(pattern),
        printable(&source.kind().to_string())
    )]
    Pattern {
        /// The option it was given to.
        option: &'static str,
        /// The pattern.
        pattern: String,
        /// Why it is invalid.
        source: globset::Error,
    },
    /// A glob matches no tensor of the checkpoint.
    #[error(
        "{option} {}: matches no tensor, expected at least one of the {tensors} in {}\nhint: `physarium inspect` lists every tensor name",
        printable(pattern),
        show(dir)
    )]
    PatternMatchesNothing {
        /// The option it was given to.
        option: &'static str,
        /// The pattern.
        pattern: String,
        /// Tensors in the checkpoint.
        tensors: usize,
        /// The checkpoint.
        dir: PathBuf,
    },
    /// No tensor can be pruned.
    #[error("{}: nothing to prune: {why}", show(dir))]
    NothingToPrune {
        /// The checkpoint.
        dir: PathBuf,
        /// Why no tensor is a target.
        why: String,
    },
    /// `--strict`: a tensor that is a target by name cannot be pruned.
    #[error(
        "{}: tensor {}: a target by name, skipped: {reason} (refused under --strict)",
        show(file),
        printable(tensor)
    )]
    Strict {
        /// The shard.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why it is skipped.
        reason: String,
    },
    /// The output path is not usable.
    #[error("{}: {what}, expected {expected}, found {found}", show(path))]
    Output {
        /// The output, or another file or directory that prevents writing it.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Another run holds the lock.
    #[error("{}: another run is writing this output: locked by {holder}", show(path))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, as that process recorded itself.
        holder: String,
    },
    /// Not enough room on the file system.
    #[error(
        "{}: not enough free space, expected {needed} bytes ({} for the output and what is kept beside it meanwhile, + 5 %), found {free} bytes",
        show(path),
        output
    )]
    NoSpace {
        /// A directory on the file system.
        path: PathBuf,
        /// Bytes needed, with the margin.
        needed: u64,
        /// Bytes of the output without the margin.
        output: u64,
        /// Bytes that this user can still write.
        free: u64,
    },
    /// The staging directory was left by a different run, so this one cannot resume it.
    #[error(
        "{}: staging belongs to another run: {what} was {theirs}, this run has {ours}\nhint: use --restart to discard the unfinished run",
        show(path)
    )]
    StagingMismatch {
        /// The staging directory.
        path: PathBuf,
        /// The property that differs.
        what: String,
        /// Its value in the staging directory.
        theirs: String,
        /// Its value in this run.
        ours: String,
    },
    /// The caller requested to stop.
    #[error("interrupted")]
    Interrupted,
    /// A directory is the unfinished output of an interrupted run.
    #[error(
        "{}: unfinished output of an interrupted physarium run, expected a checkpoint\nhint: run the same prune command again to finish it",
        show(path)
    )]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// A record (journal, manifest, marker of an unfinished run) is invalid.
    #[error("{}: {what}, expected {expected}, found {found}", show(path))]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line number in a journal.
        what: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Malformed(_) => ErrorKind::Input,
            Error::Io { .. } | Error::NoSpace { .. } | Error::Thread { .. } => {
                ErrorKind::Environment
            }
            Error::FileShrank { .. } | Error::InputChanged { .. } => ErrorKind::InputChanged,
            Error::Pattern { .. } | Error::PatternMatchesNothing { .. } => ErrorKind::Usage,
            Error::NothingToPrune { .. } | Error::Strict { .. } => ErrorKind::Unsupported,
            Error::Interrupted => ErrorKind::Interrupted,
            Error::Unfinished { .. } => ErrorKind::Input,
            Error::Output { .. }
            | Error::Locked { .. }
            | Error::StagingMismatch { .. }
            | Error::Record { .. } => ErrorKind::Output,
        }
    }

    /// An error of the operating system, with the path and the operation.
    pub fn io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        Error::Io { path: path.to_owned(), operation, source }
    }
}

impl From<Malformed> for Error {
    fn from(fault: Malformed) -> Self {
        Error::Malformed(Box::new(fault))
    }
}
