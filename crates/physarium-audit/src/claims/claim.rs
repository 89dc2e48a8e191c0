//! Claims as they are written in a file.

use std::fmt;
use std::path::{Path, PathBuf};

use physarium_checkpoint::{Source, excerpt, printable};
use serde::Deserialize;

use super::value::Value;
use crate::error::{Error, Result};

/// Largest file of claims that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The claims of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub(super) path: PathBuf,
    pub(super) claims: Vec<Claim>,
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its name in the report.
    pub id: String,
    /// Where the claim is made.
    pub source: String,
    /// The sentence.
    pub sentence: String,
    /// What it counts.
    pub(super) count: Countable,
    /// The claimed number.
    pub(super) value: Value,
    /// The denominator, if the sentence names one.
    pub(super) of: Option<String>,
}

/// What a claim can count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Countable {
    Pruned,
    Processed,
    Target,
    Untouched,
    AlreadyZero,
    Zero,
    Tensors,
}

impl fmt::Display for Countable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Countable::Pruned => "pruned",
            Countable::Processed => "processed",
            Countable::Target => "target",
            Countable::Untouched => "untouched",
            Countable::AlreadyZero => "already_zero",
            Countable::Zero => "zero",
            Countable::Tensors => "tensors",
        })
    }
}

impl Claims {
    /// Reads a claims file.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be read or has more than 1 MiB, `Claims` if a claim is not well-formed.
    pub fn read(path: &Path) -> Result<Claims> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(default)]
            claim: Vec<Claim>,
        }
        let fault = |what: String| Error::Claims { path: path.to_owned(), what };
        let bytes = Source::open(path)?.read_all(MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|e| fault(format!("not UTF-8: {e}")))?;
        let hint = |e: &toml::de::Error| match e.message().contains("expected a sequence") {
            true => "\nhint: each claim begins with [[claim]], in double brackets",
            false => "",
        };
        let File { claim: claims } =
            toml::from_str(&text).map_err(|e| fault(excerpt(&e.to_string()) + hint(&e)))?;
        if claims.is_empty() {
            return Err(fault("no claims, expected at least one [[claim]]".to_owned()));
        }
        for (i, claim) in claims.iter().enumerate() {
            if claims[..i].iter().any(|other| other.id == claim.id) {
                return Err(fault(format!("claim {}: duplicate id", printable(&claim.id))));
            }
        }
        Ok(Claims { path: path.to_owned(), claims })
    }
}
