//! Numbers and names as pages show them.

use physarium::audit::{Share, grouped};
use physarium::checkpoint::printable;
use serde::Serialize;

/// A number in a cell: the value that it is sorted by, and its text.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cell {
    /// `None` for a text, and for what is not known.
    pub(crate) value: Option<f64>,
    pub(crate) text: String,
}

impl Cell {
    pub(crate) fn text(text: &str) -> Cell {
        Cell { value: None, text: printable(text) }
    }

    pub(crate) fn count(count: impl Into<Option<u64>>) -> Cell {
        match count.into() {
            Some(count) => Cell { value: Some(count as f64), text: grouped(count) },
            None => Cell::unknown(),
        }
    }

    /// `part / whole` in percent.
    pub(crate) fn percent(share: impl Into<Option<f64>>) -> Cell {
        match share.into() {
            Some(share) => Cell { value: Some(share), text: percent(share) },
            None => Cell::unknown(),
        }
    }

    /// A number with this many decimals.
    pub(crate) fn decimals(number: impl Into<Option<f64>>, decimals: usize) -> Cell {
        match number.into().filter(|number| number.is_finite()) {
            Some(number) => Cell { value: Some(number), text: format!("{number:.decimals$}") },
            None => Cell::unknown(),
        }
    }

    /// A size in bytes.
    pub(crate) fn bytes(bytes: impl Into<Option<u64>>) -> Cell {
        match bytes.into() {
            Some(bytes) => Cell { value: Some(bytes as f64), text: size(bytes) },
            None => Cell::unknown(),
        }
    }

    pub(crate) fn unknown() -> Cell {
        Cell { value: None, text: "–".to_owned() }
    }
}

/// A table: its header, and rows with a cell for each column.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Table {
    pub(crate) id: String,
    /// What its numbers are.
    pub(crate) caption: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// A share as `22.22 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A count with its share and the name of the whole: `1,450,103,613 = 22.22 % of target`.
pub(crate) fn with_share(share: &Share) -> String {
    format!("{} = {}", grouped(share.part), share.sentence())
}

/// A size in powers of ten.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.2} GB", bytes as f64 / 1e9),
        1_000_000.. => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} kB", bytes as f64 / 1e3),
    }
}

/// `3 claims`, `1 claim`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count as u64))
}

/// A word of a command line, in quotes if a shell would read it otherwise.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match word.is_empty() || !word.chars().all(is_plain) || word.starts_with('-') {
        true => format!("'{}'", printable(word).replace('\'', "'\\''")),
        false => word.to_owned(),
    }
}
