//! The tokens that end a text.

use physarium_checkpoint::{Malformed, printable};
use physarium_model::ModelFiles;
use serde_json::Value;

use crate::error::Result;
use crate::tokenizer::ModelTokenizer;

/// Largest config that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The `eos_token_id` of `generation_config.json`, or else of `config.json`, and the tokenizer's `eos_token`.
///
/// # Errors
/// `Checkpoint` for a file or a field that is malformed.
pub(crate) fn tokens(files: &ModelFiles, tokenizer: &ModelTokenizer) -> Result<Vec<u32>> {
    let mut tokens = match ids(files, "generation_config.json")? {
        Some(ids) => ids,
        None => ids(files, "config.json")?.unwrap_or_default(),
    };
    let ModelTokenizer { tokenizer, config, .. } = tokenizer;
    tokens.extend(config.token("eos_token").and_then(|token| tokenizer.token_to_id(token)));
    Ok(tokens)
}

/// The `eos_token_id` of a file: a number, or a list of numbers. `None` without file or field.
fn ids(files: &ModelFiles, name: &str) -> Result<Option<Vec<u32>>> {
    let Some(bytes) = files.find(name, MAX_BYTES)? else { return Ok(None) };
    let fault = |expected, found: &str| {
        Malformed::new(&files.path_of(name), "eos_token_id", expected, printable(found))
    };
    let config: Value =
        serde_json::from_slice(&bytes).map_err(|e| fault("a JSON object", &e.to_string()))?;
    let field = &config["eos_token_id"];
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match field {
        Value::Null => return Ok(None),
        Value::Array(all) => all.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    let expected = "a token id, or a list of token ids";
    Ok(Some(ids.ok_or_else(|| fault(expected, &field.to_string()))?))
}
