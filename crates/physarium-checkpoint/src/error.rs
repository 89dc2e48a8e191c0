//! What can go wrong with bytes on disk, always with the file, and the tensor where there is one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::escape::printable;

/// Result of this crate's functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Which of the reasons behind exit code 2 an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command line asks for something impossible.
    Usage,
    /// The checkpoint is malformed or not what it should be.
    Input,
    /// The output cannot be written there.
    Output,
    /// The machine refused (I/O error, no space).
    Environment,
    /// Well-formed, but not something physarium can prune.
    Unsupported,
    /// The input is no longer what it was when the run began.
    InputChanged,
    /// The user stopped the run.
    Interrupted,
}

/// A fault in a file of the checkpoint, in the one form that all of them are reported in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The file at fault.
    pub file: PathBuf,
    /// The tensor at fault, when the fault belongs to one.
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
    pub hint: Option<&'static str>,
}

impl Malformed {
    /// A fault of a whole file; add the rest with the `with_` methods.
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

    /// Names the tensor at fault.
    #[must_use]
    pub fn with_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.tensor = Some(tensor.into());
        self
    }

    /// Names the byte offset in the file.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Adds a line that tells the user what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
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
        if let Some(hint) = self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// A path as it may be printed.
pub(crate) fn show(path: &Path) -> String {
    // Paths may be longer than tensor names; only their control characters are of concern here.
    path.to_string_lossy().split('/').map(printable).collect::<Vec<_>>().join("/")
}

/// What this crate's functions return when they could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the checkpoint is not what the format says.
    #[error("{0}")]
    Malformed(Box<Malformed>),
    /// The operating system refused.
    #[error("{}: cannot {operation}: {source}", show(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb with its object.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system has no thread to give.
    #[error("cannot start a thread: {source}\nhint: --threads 1 takes the fewest")]
    Thread {
        /// The system's reason.
        source: io::Error,
    },
    /// A file ended before the bytes that its header promised, after it had been checked.
    #[error(
        "{}: file shrank while it was read, expected {expected} bytes at offset {offset}, found the end",
        show(path)
    )]
    FileShrank {
        /// The file.
        path: PathBuf,
        /// Where the read began.
        offset: u64,
        /// How many bytes were wanted.
        expected: usize,
    },
    /// A file is not the one that was checked when the run began.
    #[error(
        "{}: input changed during the run: {what} was {before}, is {after}\nhint: run again with --restart once nothing writes to the input",
        show(path)
    )]
    InputChanged {
        /// The file.
        path: PathBuf,
        /// Which property differs.
        what: &'static str,
        /// Its value when the run began.
        before: String,
        /// Its value on the second look.
        after: String,
    },
    /// A glob is not well-formed.
    #[error("{option} {}: not a valid pattern: {source}", printable(pattern))]
    Pattern {
        /// The option it was given to.
        option: &'static str,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
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
        /// What there is instead.
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
    /// The output cannot be there.
    #[error("{}: {what}, expected {expected}, found {found}", show(path))]
    Output {
        /// The output directory, or the part of it at fault.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Another run holds the lock.
    #[error("{}: another run is writing this output: locked by {holder}", show(path))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as that run wrote it down.
        holder: String,
    },
    /// Not enough room on the file system.
    #[error(
        "{}: not enough free space, expected {needed} bytes ({} output + 5 %), found {free} bytes",
        show(path),
        output
    )]
    NoSpace {
        /// The file system's directory.
        path: PathBuf,
        /// Bytes needed, with the margin.
        needed: u64,
        /// Bytes of the output alone.
        output: u64,
        /// Bytes free for this user.
        free: u64,
    },
    /// The staging directory cannot be continued by this run.
    #[error(
        "{}: staging belongs to another run: {what} was {theirs}, this run has {ours}\nhint: use --restart to throw the unfinished run away",
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
    /// The caller asked to stop.
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
    /// A record (journal, manifest) is not readable.
    #[error("{}: {what}, expected {expected}, found {found}", show(path))]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        what: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
}

impl Error {
    /// Which of the reasons behind exit code 2 this is.
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

    /// An operating system error with its path.
    pub fn io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        Error::Io { path: path.to_owned(), operation, source }
    }
}

impl From<Malformed> for Error {
    fn from(fault: Malformed) -> Self {
        Error::Malformed(Box::new(fault))
    }
}
