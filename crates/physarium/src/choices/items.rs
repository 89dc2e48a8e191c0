//! Multiple-choice items of a file in JSON Lines.

use std::path::{Path, PathBuf};

use physarium_checkpoint::{Digest, Malformed, printable};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::eval::read_text;

const EXPECTED: &str =
    "one object in each line: {\"context\": \"…\", \"choices\": [\"…\", \"…\"], \"answer\": 0}";

/// An item.
#[derive(Debug, PartialEq)]
pub(super) struct Item {
    /// Its line in the file, from 1.
    pub(super) line: usize,
    /// The text before a choice.
    pub(super) context: String,
    /// The choices, at least two.
    pub(super) choices: Vec<String>,
    /// Index of the right choice.
    pub(super) answer: usize,
}

/// A file of items.
#[derive(Debug)]
pub(super) struct Items {
    pub(super) path: PathBuf,
    /// Digest of its bytes.
    pub(super) digest: Digest,
    /// At least one.
    pub(super) items: Vec<Item>,
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    context: String,
    choices: Vec<String>,
    answer: Value,
}

impl Items {
    /// Reads a file. Empty lines are skipped.
    ///
    /// # Errors
    /// `Checkpoint` naming the file and the line: for a file that is no text or too large, a line that is not an item,
    /// and no item.
    pub(super) fn read(path: &Path) -> Result<Items> {
        let (text, digest) = read_text(path)?;
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let items = lines.map(|(line, text)| Item::of(path, line, text));
        let items = items.collect::<Result<Vec<_>>>()?;
        if items.is_empty() {
            return Err(Malformed::new(path, "no item", EXPECTED, "none").into());
        }
        Ok(Items { path: path.to_owned(), digest, items })
    }
}

impl Item {
    fn of(path: &Path, line: usize, text: &str) -> Result<Item> {
        let Line { context, choices, answer } = serde_json::from_str(text).map_err(|e| {
            let (message, place) = (e.to_string(), format!(" at line 1 column {}", e.column()));
            let message = printable(message.strip_suffix(&place).unwrap_or(&message));
            let found = format!("line {line}, column {}: {message}", e.column());
            Malformed::new(path, "not a multiple-choice item", EXPECTED, found)
        })?;
        let fault = |expected: &str, found: String| {
            let found = format!("line {line}: {found}");
            Malformed::new(path, "not a multiple-choice item", expected, found)
        };
        if choices.len() < 2 {
            return Err(fault("at least 2 choices", format!("{} of them", choices.len())).into());
        }
        if let Some(empty) = choices.iter().position(String::is_empty) {
            return Err(fault("choices with a text", format!("choice {empty} is empty")).into());
        }
        let index = answer.as_u64().and_then(|index| usize::try_from(index).ok());
        let Some(answer) = index.filter(|index| *index < choices.len()) else {
            let expected =
                format!("the index of a choice as \"answer\", 0 to {}", choices.len() - 1);
            let found = printable(&answer.to_string());
            let hint = "choices are counted from 0; write \"answer\": 0 for the first one";
            return Err(fault(&expected, found).with_hint(hint).into());
        };
        Ok(Item { line, context, choices, answer })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    fn read(content: impl AsRef<[u8]>) -> Result<Vec<Item>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, content).unwrap();
        Items::read(&path).map(|items| items.items).map_err(|e| e.to_string())
    }

    const GOOD: &str = r#"{"context": "A é", "choices": ["b", "c\n"], "answer": 1}"#;

    #[test]
    fn items_are_read_with_their_lines() {
        let items = read(format!("\u{feff}{GOOD}\r\n\n  \n{GOOD}")).unwrap();
        let item = |line| Item {
            line,
            context: "A é".into(),
            choices: vec!["b".into(), "c\n".into()],
            answer: 1,
        };
        assert_eq!(items, [item(1), item(4)]);
    }

    #[test]
    fn what_is_not_an_item_is_refused_with_its_line() {
        for (line, needle) in [
            ("{", "EOF"),
            ("[1]", "invalid type"),
            ("{} {}", "missing field `context`"),
            (r#"{"context": 3, "choices": ["a", "b"], "answer": 0}"#, "integer `3`"),
            (r#"{"context": "", "choices": ["a", 2], "answer": 0}"#, "integer `2`"),
            (r#"{"context": "", "choices": "ab", "answer": 0}"#, "string \"ab\""),
            (r#"{"context": "", "choices": ["a", "b"]}"#, "missing field `answer`"),
            (r#"{"choices": ["a", "b"], "answer": 0}"#, "missing field `context`"),
            (r#"{"context": "", "answer": 0}"#, "missing field `choices`"),
            (r#"{"context": "", "choices": ["a", "b"], "answer": 0, "id": 1}"#, "field `id`"),
            (
                r#"{"context": "", "context": "", "choices": ["a", "b"], "answer": 0}"#,
                "duplicate field `context`",
            ),
            (r#"{"context": "\ud800", "choices": ["a", "b"], "answer": 0}"#, "hex escape"),
            (
                r#"{"context": "", "choices": [], "answer": 0}"#,
                "at least 2 choices, found line 3: 0",
            ),
            (
                r#"{"context": "", "choices": ["a"], "answer": 0}"#,
                "at least 2 choices, found line 3: 1",
            ),
            (r#"{"context": "", "choices": ["a", ""], "answer": 0}"#, "choice 1 is empty"),
            (r#"{"context": "", "choices": ["a", "b"], "answer": 2}"#, "0 to 1, found line 3: 2"),
            (r#"{"context": "", "choices": ["a", "b"], "answer": -1}"#, "found line 3: -1"),
            (r#"{"context": "", "choices": ["a", "b"], "answer": 0.0}"#, "found line 3: 0.0"),
            (r#"{"context": "", "choices": ["a", "b"], "answer": "A"}"#, "counted from 0"),
            (r#"{"context": "", "choices": ["a", "b"], "answer": null}"#, "found line 3: null"),
        ] {
            let error = read(format!("{GOOD}\n\n{line}\n")).unwrap_err();
            for needle in ["a.jsonl", "line 3", needle] {
                assert!(error.contains(needle), "{line}: no {needle:?} in {error}");
            }
            assert!(!error.contains("line 1"), "{line}: {error}");
        }
    }

    #[test]
    fn files_without_items_are_refused() {
        for (content, needle) in [
            (&b""[..], "no item"),
            (b"\n \n", "no item"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\xff\xfea\0", "UTF-16"),
            (b"{\xe9", "0xe9"),
        ] {
            let error = read(content).unwrap_err();
            assert!(error.contains("a.jsonl") && error.contains(needle), "{error}");
        }
    }
}
