//! What can go wrong with documents and pages.

use std::path::PathBuf;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is no page of physarium.
    #[error("expected a page of physarium with its data, found {found}")]
    Page {
        /// What is there.
        found: String,
    },
    /// A text is no audit, comparison or evaluation.
    #[error("expected an audit, a comparison or an evaluation in JSON, found {found}")]
    Document {
        /// What is there.
        found: String,
    },
    /// The numbers of an audit contradict one another.
    #[error("an audit that was changed: {what}")]
    Changed {
        /// Which numbers.
        what: String,
    },
    /// A file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Box<Error>,
    },
    /// A directory has no such file.
    #[error(
        "{}: expected physarium.audit.json, physarium.compare.json or other JSON of an audit, a comparison or an \
         evaluation, found none", path.display()
    )]
    NoDocument {
        /// The directory.
        path: PathBuf,
    },
}
