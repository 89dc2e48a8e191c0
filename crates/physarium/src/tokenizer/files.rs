//! The files of a tokenizer.

use std::path::Path;

use physarium_checkpoint::{Digest, Malformed, Sha256, printable};
use physarium_model::ModelFiles;
use serde_json::Value;

use crate::error::{Error, Result};

/// Largest `tokenizer.json` that is read, in bytes. Gemma's, with 262,144 tokens, has 33 MB.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// Largest file beside it that is read, in bytes. Gemma's have 1.2 MB.
const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// File name of the tokenizer.
pub(crate) const FILE_NAME: &str = "tokenizer.json";
/// File name of the tokenizer's configuration.
pub(crate) const CONFIG_NAME: &str = "tokenizer_config.json";
/// File name of the special tokens by role, which older versions of transformers write.
pub(super) const MAP_NAME: &str = "special_tokens_map.json";
/// File name of the added tokens, which older versions of transformers write.
pub(super) const ADDED_NAME: &str = "added_tokens.json";

/// Names of all files that decide the tokens of a text.
pub(crate) const TOKENIZER_FILES: [&str; 4] = [FILE_NAME, CONFIG_NAME, MAP_NAME, ADDED_NAME];

/// The bytes of all files that decide the tokens of a text, as digests; none without `tokenizer.json`.
///
/// # Errors
/// `Checkpoint` if a file cannot be read.
pub(crate) fn digests(files: &ModelFiles) -> Result<Option<[Option<Digest>; 4]>> {
    let mut digests = [None; 4];
    for (digest, name) in digests.iter_mut().zip(TOKENIZER_FILES) {
        let limit = if name == FILE_NAME { MAX_BYTES } else { MAX_CONFIG_BYTES };
        *digest = files.find(name, limit)?.map(|bytes| Sha256::of(&bytes));
    }
    Ok(digests[0].map(|_| digests))
}

/// A JSON file of the model; null if it has none of this name.
///
/// # Errors
/// `Checkpoint` if it is not JSON.
pub(super) fn json(files: &ModelFiles, name: &str) -> Result<Value> {
    let Some(bytes) = files.find(name, MAX_CONFIG_BYTES)? else { return Ok(Value::Null) };
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
