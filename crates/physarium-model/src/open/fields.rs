//! Fields of a JSON object, read strictly.

use std::path::PathBuf;

use physarium_checkpoint::{Malformed, printable};
use serde_json::{Map, Value};

use super::files::ModelFiles;
use crate::error::{Error, Result};

/// Maximum size of a config in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Maximum size that a config may state; products of three of them do not overflow.
const MAX_SIZE: u64 = 1 << 20;

/// A JSON object of a file, with the file's path for error messages.
pub(crate) struct Fields {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads a file that is one JSON object.
    pub(crate) fn read(files: &ModelFiles, name: &str) -> Result<Fields> {
        let (bytes, path) = (files.read(name, MAX_BYTES)?, files.path_of(name));
        let fault = |found: String| Malformed::new(&path, "config", "a JSON object", found);
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(map)) => Ok(Fields { path, map }),
            Ok(other) => Err(fault(show(&other)).into()),
            Err(e) => Err(fault(printable(&e.to_string())).into()),
        }
    }

    /// The value of a field; `null` counts as absent.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// Whether there are no fields.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// A copy of all fields.
    pub(crate) fn all(&self) -> Fields {
        Fields { path: self.path.clone(), map: self.map.clone() }
    }

    /// An object without fields, of the same file.
    pub(crate) fn nothing(&self) -> Fields {
        Fields { path: self.path.clone(), map: Map::new() }
    }

    /// Name of the first field that holds an object, escaped.
    pub(crate) fn nested(&self) -> Option<String> {
        let nested = self.map.iter().find(|(_, value)| value.is_object());
        nested.map(|(name, _)| printable(name))
    }

    /// Name of the first field that is none of these, escaped.
    pub(crate) fn other_than(&self, fields: &[&str]) -> Option<String> {
        self.map.keys().find(|name| !fields.contains(&name.as_str())).map(|name| printable(name))
    }

    /// Whether the field is present, `null` or not.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    /// A nested object, with the path of the same file.
    pub(crate) fn object(&self, field: &'static str) -> Result<Option<Fields>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Fields { path: self.path.clone(), map: map.clone() }))
            }
            Some(other) => Err(self.fault(field, "an object", Some(other))),
        }
    }

    /// A size: a positive integer, at most 2²⁰.
    pub(crate) fn size(&self, field: &'static str) -> Result<Option<usize>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(size @ 1..=MAX_SIZE) => Ok(Some(size as usize)),
                _ => Err(self.fault(field, "an integer of 1 to 1048576", Some(value))),
            },
        }
    }

    /// A number of positions: a positive integer. Nothing may be allocated by it.
    pub(crate) fn positions(&self, field: &'static str) -> Result<Option<usize>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(positions @ 1..) => Ok(Some(usize::try_from(positions).unwrap_or(usize::MAX))),
                _ => Err(self.fault(field, "a positive integer", Some(value))),
            },
        }
    }

    /// A required size.
    pub(crate) fn required_size(&self, field: &'static str) -> Result<usize> {
        self.size(field)?.ok_or_else(|| self.fault(field, "an integer of 1 to 1048576", None))
    }

    /// A positive finite number.
    pub(crate) fn number(&self, field: &'static str) -> Result<Option<f64>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
                _ => Err(self.fault(field, "a positive number", Some(value))),
            },
        }
    }

    /// A required positive finite number.
    pub(crate) fn required_number(&self, field: &'static str) -> Result<f64> {
        self.number(field)?.ok_or_else(|| self.fault(field, "a positive number", None))
    }

    /// A boolean.
    pub(crate) fn flag(&self, field: &'static str) -> Result<Option<bool>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.fault(field, "true or false", Some(other))),
        }
    }

    /// A string.
    pub(crate) fn text(&self, field: &'static str) -> Result<Option<&str>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.fault(field, "a string", Some(other))),
        }
    }

    /// The error for a field that is missing or has a wrong value.
    pub(crate) fn fault(
        &self,
        field: &'static str,
        expected: &str,
        found: Option<&Value>,
    ) -> Error {
        let found = found.map_or("nothing".to_owned(), show);
        Malformed::new(&self.path, field, expected, found).into()
    }

    /// The error for a field that is stated in several places with different values.
    pub(crate) fn conflict(&self, field: &'static str, expected: &str, found: String) -> Error {
        Malformed::new(&self.path, field, expected, found).into()
    }

    /// The error for a valid value that is not supported.
    pub(crate) fn unsupported(&self, field: &'static str, found: &str, supported: &str) -> Error {
        Error::Unsupported {
            file: self.path.clone(),
            field,
            found: found.to_owned(),
            supported: supported.to_owned(),
        }
    }
}

/// A value as messages show it.
fn show(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => printable(&other.to_string()),
    }
}
