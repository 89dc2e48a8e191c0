//! Documents in JSON: JSON Lines, objects one after another, or an array.

use std::path::Path;

use physarium_checkpoint::{Malformed, printable};
use serde_json::{Deserializer, Value};

use crate::error::Result;

/// Default field of the text in an object.
const DEFAULT_FIELD: &str = "text";
/// Endings of the names of JSON files.
const EXTENSIONS: [&str; 4] = ["json", "jsonl", "ndjson", "jsonlines"];
/// Fields of an object that a message lists at most.
const LISTED_FIELDS: usize = 8;

/// Whether a file holds JSON: by its name, or because it begins with an object, or with an array of objects or
/// strings.
pub(super) fn is_json(path: &Path, text: &str) -> bool {
    let extension = path.extension().unwrap_or_default();
    if EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)) {
        return true;
    }
    if !text.trim_start().starts_with(['{', '[', '"']) {
        return false;
    }
    let mut values = Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(Value::Object(fields))) => !fields.is_empty(),
        Some(Ok(Value::Array(elements))) => {
            matches!(elements.first(), Some(Value::Object(_) | Value::String(_)))
        }
        // A string and nothing but strings after it: prose may begin with a quotation.
        Some(Ok(Value::String(_))) => {
            let mut rest = values.peekable();
            rest.peek().is_some() && rest.all(|value| matches!(value, Ok(Value::String(_))))
        }
        _ => false,
    }
}

/// How to read a file of documents.
pub(super) struct Json<'a> {
    pub path: &'a Path,
    /// The field with the text. Default: `text`.
    pub field: Option<&'a str>,
}

/// The documents of a file.
pub(super) struct Documents {
    pub texts: Vec<String>,
    /// The field that they are from; none if all of them are plain strings.
    pub field: Option<String>,
}

impl Json<'_> {
    /// The documents of a file with these characters.
    ///
    /// # Errors
    /// `Malformed` for JSON that is not well-formed, values that are not documents, and no document.
    pub(super) fn documents(&self, text: &str) -> Result<Documents> {
        let mut documents = Documents { texts: Vec::new(), field: None };
        let mut values = Deserializer::from_str(text).into_iter::<Value>();
        loop {
            let rest = &text[values.byte_offset()..];
            let begin = text.len() - rest.trim_start().len();
            let line = || 1 + text[..begin].bytes().filter(|byte| *byte == b'\n').count();
            match values.next() {
                None => break,
                Some(Err(e)) => {
                    let found = printable(&e.to_string());
                    return Err(self.fault("documents in JSON, such as JSON Lines", found).into());
                }
                Some(Ok(Value::Array(elements))) => {
                    for (index, element) in elements.into_iter().enumerate() {
                        let place = || format!("element {} of the array", index + 1);
                        self.add(element, &mut documents, &place)?;
                    }
                }
                Some(Ok(value)) => {
                    self.add(value, &mut documents, &|| format!("line {}", line()))?;
                }
            }
        }
        if documents.texts.is_empty() {
            return Err(self.fault("documents in JSON", "no document".to_owned()).into());
        }
        Ok(documents)
    }

    /// Adds one document: a string, or an object with the field.
    fn add(
        &self,
        value: Value,
        documents: &mut Documents,
        place: &dyn Fn() -> String,
    ) -> Result<()> {
        let name = self.field.unwrap_or(DEFAULT_FIELD);
        let text = match value {
            Value::String(text) if self.field.is_none() => text,
            Value::Object(mut fields) => match fields.get_mut(name).map(Value::take) {
                Some(Value::String(text)) => {
                    documents.field = Some(name.to_owned());
                    text
                }
                Some(other) => {
                    let expected = format!("a string in field \"{name}\"");
                    let found = format!("{}: {}", place(), kind(&other));
                    return Err(self.fault(&expected, found).into());
                }
                None => {
                    let names: Vec<&str> =
                        fields.keys().take(LISTED_FIELDS).map(String::as_str).collect();
                    let expected = format!("a string in field \"{name}\" of each document");
                    let found =
                        format!("{}: only fields {}", place(), printable(&names.join(", ")));
                    let hint = "eval --field NAME reads another field; a --calibration text needs \"text\"";
                    return Err(self.fault(&expected, found).with_hint(hint).into());
                }
            },
            other => {
                let found = format!("{}: {}", place(), kind(&other));
                return Err(self.fault("an object for each document", found).into());
            }
        };
        documents.texts.push(text);
        Ok(())
    }

    fn fault(&self, expected: &str, found: String) -> Malformed {
        Malformed::new(self.path, "text", expected, found)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
