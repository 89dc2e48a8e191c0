//! The tokenizer in a model's directory, and its special tokens.

use std::path::PathBuf;

use physarium_checkpoint::{Digest, Malformed, Sha256, printable};
use physarium_model::ModelFiles;
use serde::Serialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};

/// Largest tokenizer file that is read, in bytes.
const MAX_BYTES: u64 = 512 << 20;
/// File name of the tokenizer.
pub(crate) const FILE_NAME: &str = "tokenizer.json";
/// File name of the tokenizer's configuration.
pub(crate) const CONFIG_NAME: &str = "tokenizer_config.json";

/// Reads a model's tokenizer. Returns it with the digest of its file.
///
/// # Errors
/// `Checkpoint` when it is missing or cannot be read.
pub(crate) fn read(files: &ModelFiles) -> Result<(Tokenizer, Digest)> {
    let bytes = files.read(FILE_NAME, MAX_BYTES)?;
    let fault = |e: tokenizers::Error| fault(files, &e.to_string());
    let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(fault)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(fault)?;
    Ok((tokenizer, Sha256::of(&bytes)))
}

/// The digest of a model's tokenizer, if it has one.
pub(crate) fn digest(files: &ModelFiles) -> Result<Option<Digest>> {
    Ok(files.find(FILE_NAME, MAX_BYTES)?.map(|bytes| Sha256::of(&bytes)))
}

/// An error about a model's tokenizer.
pub(crate) fn fault(files: &ModelFiles, found: &str) -> Error {
    let expected = "a tokenizer in the tokenizers library's format";
    Malformed::new(&files.path_of(FILE_NAME), "tokenizer", expected, printable(found)).into()
}

/// `tokenizer_config.json`; null if there is none.
pub(crate) struct TokenizerConfig {
    path: PathBuf,
    config: Value,
}

impl TokenizerConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// `Checkpoint` if it exists and is not JSON.
    pub(crate) fn read(files: &ModelFiles) -> Result<TokenizerConfig> {
        let path = files.path_of(CONFIG_NAME);
        let config = match files.find(CONFIG_NAME, MAX_BYTES)? {
            None => Value::Null,
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                let found = printable(&e.to_string());
                Malformed::new(&path, "tokenizer config", "a JSON object", found)
            })?,
        };
        Ok(TokenizerConfig { path, config })
    }

    /// A field; null if there is none.
    pub(crate) fn get(&self, field: &str) -> &Value {
        &self.config[field]
    }

    /// A special token by its field, such as `bos_token`: a string, or an object with `content`.
    pub(crate) fn token(&self, field: &str) -> Option<&str> {
        let token = self.get(field);
        token.as_str().or(token["content"].as_str())
    }
}

/// Whether a text begins with a special token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BosRule {
    /// Whether one was added at the beginning of the text. None is added at the beginning of later windows.
    pub added: bool,
    /// The file that decides this.
    pub said_by: &'static str,
    /// The token.
    pub token: Option<String>,
}

/// The rule of a model, and the id of the token that it adds.
///
/// # Errors
/// `Checkpoint` if the config asks for a token that the vocabulary does not have.
pub(crate) fn bos(
    config: &TokenizerConfig,
    tokenizer: &Tokenizer,
) -> Result<(BosRule, Option<u32>)> {
    let none = |said_by| (BosRule { added: false, said_by, token: None }, None);
    let added = |said_by, token: String, id| {
        (BosRule { added: true, said_by, token: Some(token) }, Some(id))
    };
    match config.get("add_bos_token").as_bool() {
        Some(false) => Ok(none(CONFIG_NAME)),
        Some(true) => {
            let token = config.token("bos_token").unwrap_or_default();
            let id = tokenizer.token_to_id(token).ok_or_else(|| {
                let expected = "a bos_token of the vocabulary, as add_bos_token is true";
                let found = printable(&config.get("bos_token").to_string());
                Malformed::new(&config.path, "bos_token", expected, found)
            })?;
            Ok(added(CONFIG_NAME, token.to_owned(), id))
        }
        None => Ok(match added_by_post_processor(tokenizer) {
            Some(id) => added(FILE_NAME, tokenizer.id_to_token(id).unwrap_or_default(), id),
            None => none(FILE_NAME),
        }),
    }
}

/// The token that the tokenizer's post-processor adds before a text.
fn added_by_post_processor(tokenizer: &Tokenizer) -> Option<u32> {
    let with = tokenizer.encode("a", true).ok()?;
    let without = tokenizer.encode("a", false).ok()?;
    let (first, plain) = (with.get_ids().first()?, without.get_ids().first());
    (Some(first) != plain).then_some(*first)
}
