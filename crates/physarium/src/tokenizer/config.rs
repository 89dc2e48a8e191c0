//! What `tokenizer_config.json` and `special_tokens_map.json` say.

use std::path::{Path, PathBuf};

use physarium_model::ModelFiles;
use serde_json::Value;

use super::files::{CONFIG_NAME, MAP_NAME, json};
use crate::error::Result;

/// The configuration of a tokenizer.
pub(crate) struct TokenizerConfig {
    path: PathBuf,
    /// Null without the file.
    config: Value,
    /// `special_tokens_map.json`, which older versions of transformers write beside it; null without the file.
    map: Value,
}

impl TokenizerConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// `Checkpoint` if one exists and is not JSON.
    pub(crate) fn read(files: &ModelFiles) -> Result<TokenizerConfig> {
        Ok(TokenizerConfig {
            path: files.path_of(CONFIG_NAME),
            config: json(files, CONFIG_NAME)?,
            map: json(files, MAP_NAME)?,
        })
    }

    /// The path of `tokenizer_config.json`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A field; of the special tokens' map if the configuration has none; null if neither has it.
    pub(crate) fn get(&self, field: &str) -> &Value {
        match &self.config[field] {
            Value::Null => &self.map[field],
            there => there,
        }
    }

    /// A special token by its field, such as `bos_token`: a string, or an object with `content`.
    pub(crate) fn token(&self, field: &str) -> Option<&str> {
        let token = self.get(field);
        token.as_str().or(token["content"].as_str())
    }
}
