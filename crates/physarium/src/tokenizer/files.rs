//! The files of a tokenizer.

use std::path::Path;

use physarium_checkpoint::{Malformed, printable};
use physarium_model::ModelFiles;
use serde_json::Value;

use crate::error::{Error, Result};

/// Largest tokenizer file that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 512 << 20;
/// File name of the tokenizer.
pub(crate) const FILE_NAME: &str = "tokenizer.json";

/// A JSON file of the model; null if it has none of this name.
///
/// # Errors
/// `Checkpoint` if it is not JSON.
pub(super) fn json(files: &ModelFiles, name: &str) -> Result<Value> {
    let Some(bytes) = files.find(name, MAX_BYTES)? else { return Ok(Value::Null) };
    serde_json::from_slice(&bytes).map_err(|e| {
        let found = printable(&e.to_string());
        Malformed::new(&files.path_of(name), "tokenizer config", "a JSON object", found).into()
    })
}

/// An error about a tokenizer.
pub(super) fn fault(path: &Path, found: &str) -> Error {
    let expected = "a tokenizer in the tokenizers library's format";
    Malformed::new(path, "tokenizer", expected, printable(found)).into()
}
