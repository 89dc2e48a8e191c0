//! Texts for calibration and evaluation: plain text, or the documents of a JSON Lines file.

use std::path::{Path, PathBuf};

use physarium_checkpoint::{Digest, Malformed, Sha256, Source};
use serde::Serialize;
use serde_json::Value;

use crate::error::Result;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 30;
/// Separator of documents.
const BETWEEN_DOCUMENTS: &str = "\n\n";
/// Default field of the text in a JSON Lines file.
const DEFAULT_FIELD: &str = "text";

/// A text in memory.
#[derive(Debug)]
pub(crate) struct Text {
    /// Its characters. An empty line separates documents.
    pub(crate) characters: String,
    path: PathBuf,
    digest: Digest,
    field: Option<String>,
}

/// The text of an evaluation, as reports name it.
#[derive(Debug, Clone, Serialize)]
pub struct TextUsed {
    /// File name.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Bytes of the text.
    pub bytes: usize,
    /// Field of the JSON objects that holds the text, for JSON Lines.
    pub field: Option<String>,
}

impl Text {
    /// A text that is not in a file. `name` stands for the file in messages.
    pub(crate) fn of(characters: String, name: &str) -> Text {
        let digest = Sha256::of(characters.as_bytes());
        Text { characters, path: PathBuf::from(name), digest, field: None }
    }

    /// Reads a file: JSON Lines if `field` is given or the name ends in `.jsonl`, else plain text.
    ///
    /// # Errors
    /// `Checkpoint` for a file that cannot be read, bytes that are not UTF-8, lines without the field, and an empty
    /// text.
    pub(crate) fn read(path: &Path, field: Option<&str>) -> Result<Text> {
        let bytes = Source::open(path)?.read_all(MAX_BYTES)?;
        let digest = Sha256::of(&bytes);
        let characters = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            let found = format!("byte {:#04x}", e.as_bytes()[at]);
            Malformed::new(path, "text", "UTF-8", found).with_offset(at as u64)
        })?;
        let by_name = path.extension().is_some_and(|extension| extension == "jsonl");
        let field = field.or(by_name.then_some(DEFAULT_FIELD)).map(str::to_owned);
        let characters = match &field {
            Some(field) => documents(path, &characters, field)?.join(BETWEEN_DOCUMENTS),
            None => characters,
        };
        if characters.is_empty() {
            return Err(Malformed::new(path, "text", "some text", "none").into());
        }
        Ok(Text { characters, path: path.to_owned(), digest, field })
    }

    /// Digest of the file.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The text as reports name it.
    pub(crate) fn describe(&self) -> TextUsed {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        TextUsed {
            file: name.to_string_lossy().into_owned(),
            sha256: self.digest.to_string(),
            bytes: self.characters.len(),
            field: self.field.clone(),
        }
    }
}

/// The texts of a JSON Lines file. Empty lines are skipped.
fn documents(path: &Path, lines: &str, field: &str) -> Result<Vec<String>> {
    let mut documents = Vec::new();
    for (number, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut value: Value = serde_json::from_str(line).map_err(|e| {
            let found = format!("line {}: {e}", number + 1);
            Malformed::new(path, "JSON Lines", "a JSON object per line", found)
        })?;
        match value.get_mut(field).map(Value::take) {
            Some(Value::String(text)) => documents.push(text),
            other => {
                let expected = format!("a string in field \"{field}\" of each line");
                let kind = if other.is_some() { "another type" } else { "no such field" };
                let found = format!("line {}: {kind}", number + 1);
                return Err(Malformed::new(path, "JSON Lines", expected, found).into());
            }
        }
    }
    Ok(documents)
}
