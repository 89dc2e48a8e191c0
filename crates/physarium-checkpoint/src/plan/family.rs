/*!
What `config.json` says about the layout of fused and stacked weights.

Shapes come from tensors, never from the config; where a shape is ambiguous, the config decides. Without a
well-formed config a fused `qkv_proj` is one matrix, and the orientation of stacked experts is unknown.
*/

use std::path::Path;

use serde_json::Value;

use crate::open::config::config_json;

/// `model_type`s that store stacked experts `[experts, in_features, out_features]`.
const INPUTS_FIRST: [&str; 5] =
    ["llama4", "llama4_text", "gpt_oss", "qwen3_vl_moe", "qwen3_vl_moe_text"];

/// What a config says about its family's layouts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Family {
    model_type: Option<String>,
    /// Features of the residual stream (`hidden_size`).
    pub hidden: Option<u64>,
    /// Layers of the decoder (`num_hidden_layers`).
    pub layers: Option<u64>,
    /// Heads of queries, and heads of keys (as many as of values).
    pub heads: Option<(u64, u64)>,
}

impl Family {
    /// Reads the config of a checkpoint directory; of a multimodal model, the part for its language model.
    pub fn read(dir: &Path) -> Family {
        let config = config_json(dir);
        let text = config.get("text_config").filter(|text| text.is_object());
        Family::of(text.unwrap_or(&config))
    }

    fn of(config: &Value) -> Family {
        let number = |field: &str| config[field].as_u64().filter(|number| *number > 0);
        let queries = number("num_attention_heads");
        let keys = number("num_key_value_heads").or(queries);
        Family {
            model_type: config["model_type"].as_str().map(str::to_owned),
            hidden: number("hidden_size"),
            layers: number("num_hidden_layers"),
            heads: queries.zip(keys),
        }
    }

    /// Whether stacked experts are stored inputs first; `None` without a `model_type`.
    pub fn stacks_inputs_first(&self) -> Option<bool> {
        self.model_type.as_deref().map(|model_type| INPUTS_FIRST.contains(&model_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_without_the_fields_decides_nothing() {
        assert_eq!(Family::of(&serde_json::json!({})), Family::default());
        assert_eq!(Family::of(&serde_json::json!([1])), Family::default());
    }

    #[test]
    fn heads_of_keys_default_to_those_of_queries() {
        let family = Family::of(&serde_json::json!({
            "model_type": "gpt_oss", "hidden_size": 64, "num_attention_heads": 8
        }));
        assert_eq!(family.heads, Some((8, 8)));
        assert_eq!(family.hidden, Some(64));
        assert_eq!(family.stacks_inputs_first(), Some(true));
    }

    #[test]
    fn the_language_models_part_of_a_config_counts() {
        let read = |config: serde_json::Value| {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("config.json"), config.to_string()).expect("a config");
            Family::read(dir.path()).hidden
        };
        let text = serde_json::json!({"hidden_size": 8, "text_config": {"hidden_size": 16}});
        assert_eq!(read(text), Some(16));
        assert_eq!(read(serde_json::json!({"hidden_size": 8, "text_config": null})), Some(8));
        assert_eq!(Family::read(std::path::Path::new("/nowhere")), Family::default());
    }
}
