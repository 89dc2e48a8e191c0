/*!
What `config.json` says of how a family lays out fused and stacked weights.

Shapes come from tensors, never from here; where they leave two readings open, the config decides. A config
that is missing or not well-formed decides nothing, and the plan then keeps a fused tensor whole.
*/

use std::path::Path;

use serde_json::Value;

use crate::open::source::Source;

/// Largest config that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// Families that store stacked experts `[experts, in_features, out_features]`.
const INPUTS_FIRST: [&str; 5] =
    ["llama4", "llama4_text", "gpt_oss", "qwen3_vl_moe", "qwen3_vl_moe_text"];

/// What a config tells of its family's layouts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Family {
    model_type: Option<String>,
    /// Features of the residual stream.
    pub hidden: Option<u64>,
    /// Query heads, and heads of keys or values.
    pub heads: Option<(u64, u64)>,
}

impl Family {
    /// Reads the config of a checkpoint directory; of a multimodal one, that of its language model.
    pub fn read(dir: &Path) -> Family {
        let bytes = Source::open(&dir.join("config.json"))
            .and_then(|source| source.read_all(MAX_CONFIG_BYTES))
            .unwrap_or_default();
        let config: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Family::of(config.get("text_config").unwrap_or(&config))
    }

    fn of(config: &Value) -> Family {
        let number = |field: &str| config[field].as_u64().filter(|number| *number > 0);
        let queries = number("num_attention_heads");
        let keys = number("num_key_value_heads").or(queries);
        Family {
            model_type: config["model_type"].as_str().map(str::to_owned),
            hidden: number("hidden_size"),
            heads: queries.zip(keys),
        }
    }

    /// Whether the family stores stacked experts inputs first; `None` where it is unknown.
    pub fn stacks_inputs_first(&self) -> Option<bool> {
        self.model_type.as_deref().map(|model_type| INPUTS_FIRST.contains(&model_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_without_the_fields_says_nothing() {
        assert_eq!(Family::of(&serde_json::json!({})), Family::default());
        assert_eq!(Family::of(&serde_json::json!([1])), Family::default());
        let family = Family::of(&serde_json::json!({
            "model_type": "gpt_oss", "hidden_size": 64, "num_attention_heads": 8
        }));
        assert_eq!(family.heads, Some((8, 8)));
        assert_eq!(family.stacks_inputs_first(), Some(true));
    }
}
