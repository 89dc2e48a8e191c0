//! Whether a checkpoint's head is its embedding, as far as an index without a stored head needs to know.

use std::path::Path;

use serde_json::Value;

use crate::open::config::config_json;

/// Whether a tensor is a head by its name.
pub(super) fn is_head(tensor: &str) -> bool {
    tensor == "lm_head.weight" || tensor.ends_with(".lm_head.weight")
}

/// Whether the config in `dir` says that the head is the embedding.
pub(super) fn says_tied(dir: &Path) -> bool {
    is_tied(&config_json(dir))
}

/// Whether a config says that the head is the embedding. Of a multimodal model, the whole config decides; if it does
/// not say, the part for the language model does.
pub(super) fn is_tied(config: &Value) -> bool {
    let stated = |config: &Value| config["tie_word_embeddings"].as_bool();
    stated(config).or_else(|| stated(&config["text_config"])).unwrap_or(false)
}
