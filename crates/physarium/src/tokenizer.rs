//! A model's own tokenizer, and what its files say of special tokens.

use std::path::PathBuf;

use physarium_checkpoint::{Digest, Malformed, Sha256, printable};
use physarium_model::ModelFiles;
use serde::Serialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};

/// Largest tokenizer file that is read, in bytes.
const MAX_BYTES: u64 = 512 << 20;
/// The file that holds a tokenizer.
pub(crate) const FILE_NAME: &str = "tokenizer.json";
/// The file that says how it is used.
pub(crate) const CONFIG_NAME: &str = "tokenizer_config.json";

/// Reads a model's tokenizer, and the digest of its file.
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

/// What is wrong with a model's tokenizer.
pub(crate) fn fault(files: &ModelFiles, found: &str) -> Error {
    let expected = "a tokenizer in the tokenizers library's format";
    Malformed::new(&files.path_of(FILE_NAME), "tokenizer", expected, printable(found)).into()
}

/// `tokenizer_config.json`; null where there is none.
pub(crate) struct TokenizerConfig {
    path: PathBuf,
    config: Value,
}

impl TokenizerConfig {
    /// Reads it.
    ///
    /// # Errors
    /// `Checkpoint` when it is there and is not JSON.
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

    /// A field; null where there is none.
    pub(crate) fn get(&self, field: &str) -> &Value {
        &self.config[field]
    }

    /// A special token by its field, `bos_token` say, in either spelling.
    pub(crate) fn token(&self, field: &str) -> Option<&str> {
        let token = self.get(field);
        token.as_str().or(token["content"].as_str())
    }
}

/// Whether the text begins with a special token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BosRule {
    /// Whether one was added at the beginning of the text; none is added at other windows.
    pub added: bool,
    /// The file that says so.
    pub said_by: &'static str,
    /// The token.
    pub token: Option<String>,
}

/// Whether a text begins with a special token, and which.
pub(crate) fn bos(
    config: &TokenizerConfig,
    tokenizer: &Tokenizer,
) -> Result<(BosRule, Option<u32>)> {
    let added = |said_by, token: String, id| {
        (BosRule { added: true, said_by, token: Some(token) }, Some(id))
    };
    match config.get("add_bos_token").as_bool() {
        Some(false) => {
            Ok((BosRule { added: false, said_by: "tokenizer_config.json", token: None }, None))
        }
        Some(true) => {
            let token = config.token("bos_token").unwrap_or_default();
            match tokenizer.token_to_id(token) {
                Some(id) => Ok(added("tokenizer_config.json", token.to_owned(), id)),
                None => {
                    let expected = "a bos_token of the vocabulary, as add_bos_token is true";
                    let found = printable(&config.get("bos_token").to_string());
                    Err(Malformed::new(&config.path, "bos_token", expected, found).into())
                }
            }
        }
        None => {
            // What the post-processor puts before a text.
            let with = tokenizer.encode("a", true).ok();
            let without = tokenizer.encode("a", false).ok();
            let first = with.zip(without).and_then(|(with, without)| {
                let (id, plain) = (*with.get_ids().first()?, without.get_ids().first());
                (Some(&id) != plain).then_some(id)
            });
            Ok(match first {
                Some(id) => {
                    added("tokenizer.json", tokenizer.id_to_token(id).unwrap_or_default(), id)
                }
                None => (BosRule { added: false, said_by: "tokenizer.json", token: None }, None),
            })
        }
    }
}
