//! Texts for calibration and evaluation: plain text, or documents in JSON.

use std::path::{Path, PathBuf};

use physarium_checkpoint::{Digest, Malformed, Sha256, Source};
use serde::{Deserialize, Serialize};

use super::documents::{self, Json};
use super::encoding;
use crate::error::Result;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 30;
/// Separator of documents.
const BETWEEN_DOCUMENTS: &str = "\n\n";

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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TextUsed {
    /// File name.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Bytes of the text.
    pub bytes: usize,
    /// Field of the JSON objects that holds the text, for documents in JSON.
    pub field: Option<String>,
}

/// The name of a file, without its directory.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The characters of a user's file, without a byte-order mark, and the digest of its bytes.
///
/// # Errors
/// `Checkpoint` for a file that cannot be read, is too large, compressed or binary, or has another encoding than UTF-8.
pub(crate) fn read(path: &Path) -> Result<(String, Digest)> {
    let bytes = Source::open(path)?.read_all(MAX_BYTES)?;
    let digest = Sha256::of(&bytes);
    Ok((encoding::decode(path, bytes)?, digest))
}

impl Text {
    /// A text that is not in a file. `name` stands for the file in messages.
    pub(crate) fn of(characters: String, name: &str) -> Text {
        let digest = Sha256::of(characters.as_bytes());
        Text { characters, path: PathBuf::from(name), digest, field: None }
    }

    /// Reads a file: documents in JSON if `field` is given, or by the file's name or beginning; else plain text.
    ///
    /// # Errors
    /// `Checkpoint` for a file that cannot be read; one that is compressed, binary or a table; JSON that is
    /// malformed or lacks the field; and an empty text.
    pub(crate) fn read(path: &Path, field: Option<&str>) -> Result<Text> {
        let (characters, digest) = read(path)?;
        encoding::refuse_table(path)?;
        let (characters, field) = match field.is_some() || documents::is_json(path, &characters) {
            true => {
                let json = Json { path, field };
                let documents = json.documents(&characters)?;
                (documents.texts.join(BETWEEN_DOCUMENTS), documents.field)
            }
            false => (characters, None),
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
        TextUsed {
            file: file_name(&self.path),
            sha256: self.digest.to_string(),
            bytes: self.characters.len(),
            field: self.field.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    /// The characters of a file of this name and content, or the error.
    fn read(name: &str, content: impl AsRef<[u8]>, field: Option<&str>) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let text = Text::read(&path, field).map_err(|e| e.to_string())?;
        Ok(text.characters)
    }

    fn refused(name: &str, content: impl AsRef<[u8]>, needles: &[&str]) {
        let error = read(name, content, None).expect_err("refused");
        for needle in needles.iter().chain(&[name]) {
            assert!(error.contains(needle), "{name}: no {needle:?} in {error}");
        }
    }

    const ROWS: &str =
        "{\"text\": \"One.\", \"url\": \"x\"}\n\n{\"text\": \"Zwei é\", \"url\": \"y\"}\n";
    const BOM: &str = "\u{feff}";

    #[test]
    fn documents_in_json_are_read_under_any_name() {
        let crlf = ROWS.replace('\n', "\r\n");
        let list = "[{\"text\": \"One.\"},\n {\"text\": \"Zwei é\"}]\n";
        let printed = "{\n  \"text\": \"One.\"\n}\n{\n  \"text\": \"Zwei é\"\n}";
        let strings = "[\"One.\", \"Zwei é\"]";
        let marked = format!("{BOM}{ROWS}");
        for content in [ROWS, &crlf, list, printed, strings, &marked] {
            for name in ["a.jsonl", "c4.json", "a.ndjson", "A.JSONL", "a.txt", "noname"] {
                assert_eq!(
                    read(name, content, None).unwrap(),
                    "One.\n\nZwei é",
                    "{name} {content}"
                );
            }
        }
        assert_eq!(read("a.txt", ROWS, Some("url")).unwrap(), "x\n\ny");
        assert_eq!(read("a.jsonl", "\"One.\"\n\"Two.\"\n", None).unwrap(), "One.\n\nTwo.");
    }

    #[test]
    fn plain_text_stays_as_it_is_but_for_a_byte_order_mark() {
        for text in
            ["[1] A citation.\n", "{ x } is a set", "[Music]\n", "{}", "[]", "\"Yes\", she said."]
        {
            assert_eq!(read("a.txt", text, None).unwrap(), text);
            assert_eq!(read("a.txt", format!("{BOM}{text}"), None).unwrap(), text);
        }
    }

    #[test]
    fn json_that_is_not_documents_is_named() {
        refused(
            "a.jsonl",
            "{\"content\": \"x\", \"id\": 3}",
            &["\"text\"", "content, id", "--field"],
        );
        refused("a.json", "{\"text\": \"x\"}\n{\"text\": [1]}", &["line 2", "an array"]);
        refused("a.json", "[{\"text\": \"x\"}, 7]", &["element 2", "a number"]);
        refused("a.txt", "{\"text\": \"x\"}\nThen prose.", &["line 2"]);
        refused("a.jsonl", "Prose.", &["line 1"]);
        refused("a.jsonl", "[]", &["no document"]);
    }

    #[test]
    fn other_formats_are_named() {
        refused("a.txt.gz", [0x1f, 0x8b, 8, 0], &["gzip", "gunzip"]);
        refused("a.jsonl", [0x1f, 0x8b, 8, 0], &["gzip"]);
        refused("a.jsonl.zst", [0x28, 0xb5, 0x2f, 0xfd, 0], &["Zstandard"]);
        refused("a.parquet", b"PAR1\0\0", &["Parquet"]);
        refused("a.txt", b"\xff\xfeA\0b\0", &["UTF-16"]);
        refused("a.txt", b"A\0b\0", &["UTF-8", "zero byte"]);
        refused("a.txt", b"caf\xe9 noir", &["UTF-8", "0xe9"]);
        refused("a.csv", b"id,text\n1,One.\n", &["CSV"]);
        refused("a.txt", b"", &["some text"]);
    }
}
