/*!
The id of a model on the hub: `org/name`, or `name` alone for the oldest models, with or without `@revision`.

An id becomes part of a path and of a command that the user may copy, so that it has letters, digits and a few marks
only, and no part that leads elsewhere.
*/

use std::path::Path;

use crate::error::{Malformed, Result};
use crate::escape::printable;

/// Longest name that the hub accepts, in bytes.
const MAX_NAME_BYTES: usize = 96;
/// Longest revision that is accepted, in bytes; that of a file's name.
const MAX_REVISION_BYTES: usize = 255;

/// A model of the hub, as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    name: String,
    revision: Option<String>,
}

impl HubId {
    /// Reads `org/name`, `name`, or one of them with `@revision`. `None` for a text of another form.
    ///
    /// # Errors
    /// `Malformed` for a name with a revision that is none.
    pub fn parse(text: &str) -> Result<Option<HubId>> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        if !is_name(name) {
            return Ok(None);
        }
        let id = HubId { name: name.to_owned(), revision: None };
        match revision {
            Some(revision) => id.at(revision).map(Some),
            None => Ok(Some(id)),
        }
    }

    /// The same model at a revision, which it must not have yet.
    ///
    /// # Errors
    /// `Malformed` for a text that is no revision, and for another revision than the id has.
    pub fn at(self, revision: &str) -> Result<HubId> {
        let fault = |what, expected: &str, found: &str| {
            Malformed::new(Path::new(&self.name), what, expected, printable(found))
        };
        if !is_revision(revision) {
            let expected = "a branch, a tag or a commit: letters, digits and ._/+=@-";
            return Err(fault("not a revision", expected, revision).into());
        }
        match self.revision.as_deref() {
            Some(other) if other != revision => Err(fault("two revisions", other, revision).into()),
            _ => Ok(HubId { revision: Some(revision.to_owned()), ..self }),
        }
    }

    /// `org/name`, or `name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The branch, tag or commit, if one was asked for; without, it is `main`.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The name of the model's folder in a cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.name.replace('/', "--"))
    }

    /// The id that belongs to a folder of a cache.
    pub(super) fn of_folder(folder: &str) -> Option<HubId> {
        let name = folder.strip_prefix("models--")?.replacen("--", "/", 1);
        is_name(&name).then_some(HubId { name, revision: None })
    }
}

/// `org/name@revision`, as it is typed.
impl std::fmt::Display for HubId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// Whether the hub accepts a name.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_part = |part: &str| {
        let ends = part.starts_with(['.', '-']) || part.ends_with(['.', '-']);
        !part.is_empty() && !ends && part.chars().all(is_plain)
    };
    let odd = name.contains("--") || name.contains("..") || name.ends_with(".git");
    name.len() <= MAX_NAME_BYTES
        && !odd
        && name.split('/').count() <= 2
        && name.split('/').all(is_part)
}

/// Whether a text can be a branch, a tag or a commit, and as a path stays below the directory of the refs.
fn is_revision(revision: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/+=@-".contains(c);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']);
    revision.len() <= MAX_REVISION_BYTES
        && revision.chars().all(is_plain)
        && !revision.contains("..")
        && revision.split('/').all(is_part)
}

/// Whether a text is the digest of a commit, in full.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether a text has lower-case hex digits only.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
