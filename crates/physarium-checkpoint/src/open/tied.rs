//! Whether a checkpoint's head is its embedding, as far as an index without a stored head needs to know.

use std::path::PathBuf;

use serde_json::Value;

use crate::open::source::Source;

/// Largest config that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Whether a tensor is a head by its name.
pub(super) fn is_head(tensor: &str) -> bool {
    tensor == "lm_head.weight" || tensor.ends_with(".lm_head.weight")
}

/// Whether the config at `path` says that the head is the embedding. Of a multimodal model, the whole config
/// decides; if it does not say, the part for the language model does.
pub(super) fn says_tied(path: PathBuf) -> bool {
    let bytes = Source::open(&path).and_then(|source| source.read_all(MAX_CONFIG_BYTES));
    let config: Value = serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default();
    let stated = |config: &Value| config["tie_word_embeddings"].as_bool();
    stated(&config).or_else(|| stated(&config["text_config"])).unwrap_or(false)
}
