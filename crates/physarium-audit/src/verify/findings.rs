//! The differences that a verification finds.

use std::fmt;

use physarium_checkpoint::printable;

/// A difference between an output and its input or its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the output.
    pub file: String,
    /// The tensor, if the difference is in one.
    pub tensor: Option<String>,
    /// What is wrong, with the index of the first weight or byte if there is one.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", printable(&self.file))?;
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {}: ", printable(tensor))?;
        }
        f.write_str(&self.what)
    }
}

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Why the model is not the output's input, in one sentence; the differences are then its consequences.
    pub unrelated: Option<String>,
    /// Differences in the order in which they were found; empty if the output is proven.
    pub findings: Vec<Finding>,
    /// Number of files in the output.
    pub files: u64,
    /// Number of compared tensors.
    pub tensors: u64,
    /// Bytes of the output's shards that were compared with the input's.
    pub bytes: u64,
    /// Weights that are +0.0 and were not zero.
    pub pruned: u64,
    /// Nonzero weights that differ from the input, after a method that refits.
    pub refitted: u64,
    /// Files that are not the input's, as the manifest says: README.md, if it has the model card.
    pub rewritten: Vec<String>,
}

impl Verification {
    /// Whether no difference was found.
    pub fn is_proven(&self) -> bool {
        self.findings.is_empty() && self.unrelated.is_none()
    }

    /// Adds a finding.
    pub(super) fn report(&mut self, file: &str, tensor: Option<&str>, what: impl Into<String>) {
        let tensor = tensor.map(str::to_owned);
        self.findings.push(Finding { file: file.to_owned(), tensor, what: what.into() });
    }
}
