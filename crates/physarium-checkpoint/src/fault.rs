/*!
An error in parts, for programs that handle it: where the fault is, what was expected and what was found.

In: an [`Error`]. Out: a [`Fault`]; the message of the error says the same in a sentence.
*/

use std::path::PathBuf;

use crate::error::Error;

/// The subject of an error. A part is `None` if the error has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// The file or directory.
    pub file: Option<PathBuf>,
    /// The tensor.
    pub tensor: Option<String>,
    /// What was expected.
    pub expected: Option<String>,
    /// What was found.
    pub found: Option<String>,
}

impl Fault {
    /// A fault of a file or directory.
    pub fn in_file(file: impl Into<PathBuf>) -> Fault {
        Fault { file: Some(file.into()), ..Fault::default() }
    }

    /// Adds the tensor.
    #[must_use]
    pub fn with_tensor(self, tensor: impl Into<String>) -> Fault {
        Fault { tensor: Some(tensor.into()), ..self }
    }

    /// Adds what was expected and what was found.
    #[must_use]
    pub fn with(self, expected: impl ToString, found: impl ToString) -> Fault {
        Fault { expected: Some(expected.to_string()), found: Some(found.to_string()), ..self }
    }
}

impl Error {
    /// The parts of this error.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Malformed(fault) => Fault {
                tensor: fault.tensor.clone(),
                ..Fault::in_file(&fault.file).with(&fault.expected, &fault.found)
            },
            Error::Io { path, .. } | Error::Unfinished { path } | Error::Locked { path, .. } => {
                Fault::in_file(path)
            }
            Error::FileShrank { path, expected, .. } => {
                Fault::in_file(path).with(format!("{expected} bytes"), "the end")
            }
            Error::InputChanged { path, before, after, .. } => {
                Fault::in_file(path).with(before, after)
            }
            Error::PatternMatchesNothing { dir, .. } | Error::NothingToPrune { dir, .. } => {
                Fault::in_file(dir)
            }
            Error::Strict { file, tensor, .. } => Fault::in_file(file).with_tensor(tensor),
            Error::Output { path, expected, found, .. }
            | Error::Record { path, expected, found, .. } => {
                Fault::in_file(path).with(expected, found)
            }
            Error::NoSpace { path, needed, free, .. } => {
                Fault::in_file(path).with(format!("{needed} bytes"), format!("{free} bytes"))
            }
            Error::StagingMismatch { path, theirs, ours, .. } => {
                Fault::in_file(path).with(ours, theirs)
            }
            Error::Thread { .. } | Error::Pattern { .. } | Error::Interrupted => Fault::default(),
        }
    }
}
