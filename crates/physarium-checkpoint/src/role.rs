//! What a tensor is in the decoder, read from its name alone.

use serde::{Deserialize, Serialize};

/// The projection that a 2-D weight is, and the decoder layer it sits in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its module path within a layer without expert numbers: `self_attn.q_proj`,
    /// `mlp.down_proj`, `mlp.experts.up_proj`.
    pub projection: String,
    /// Decoder layer index; absent when the name has none, or one beyond 64 bits.
    pub layer: Option<u64>,
}

/// Last name component of the weights that are targeted by default.
const PROJECTIONS: [&str; 9] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "qkv_proj",
    "gate_up_proj",
];
/// Mixtral's names of gate, down and up; projections only inside `experts.N`.
const MIXTRAL_EXPERTS: [&str; 3] = ["w1", "w2", "w3"];
/// GPT-2's `Conv1D` weights, stored `[in_features, out_features]`.
const TRANSPOSED: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];
/// Name components after which the layer index stands.
const LAYER_LISTS: [&str; 4] = ["layers", "h", "blocks", "block"];

impl Role {
    /// The role of the tensor with this name, if its name is that of a default target.
    ///
    /// Fused `qkv_proj` and `gate_up_proj`, MoE experts (`experts.N.down_proj`, Mixtral's
    /// `experts.N.w1`) and stacked experts (`experts.down_proj` with no `.weight`) count.
    pub fn of_default_target(name: &str) -> Option<Role> {
        let parts: Vec<&str> = name.split('.').collect();
        let (module, last) = match parts.as_slice() {
            [module @ .., last, "weight"] => (module, *last),
            [module @ .., last] if module.last() == Some(&"experts") => (module, *last),
            _ => return None,
        };
        let in_expert = matches!(module, [.., "experts", number] if is_number(number));
        let known = PROJECTIONS.contains(&last) || (in_expert && MIXTRAL_EXPERTS.contains(&last));
        known.then(|| Role::of(name))
    }

    /// The role of any tensor, for targets that the user names.
    pub fn of(name: &str) -> Role {
        let parts: Vec<&str> = name.strip_suffix(".weight").unwrap_or(name).split('.').collect();
        let layer_at = parts
            .windows(2)
            .position(|pair| LAYER_LISTS.contains(&pair[0]) && is_number(pair[1]))
            .map(|at| at + 1);
        let inside = &parts[layer_at.map_or(0, |at| at + 1)..];
        let words: Vec<&str> = inside.iter().copied().filter(|part| !is_number(part)).collect();
        let projection = if words.is_empty() { name.to_owned() } else { words.join(".") };
        Role { projection, layer: layer_at.and_then(|at| parts[at].parse().ok()) }
    }

    /// Whether a tensor of this name is stored `[in_features, out_features]` (GPT-2's `Conv1D`).
    pub(crate) fn is_transposed(name: &str) -> bool {
        let mut parts = name.rsplit('.');
        parts.next() == Some("weight") && parts.next().is_some_and(|p| TRANSPOSED.contains(&p))
    }
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::Role;

    fn label(name: &str) -> Option<(String, Option<u64>)> {
        Role::of_default_target(name).map(|role| (role.projection, role.layer))
    }

    #[test]
    fn default_targets_by_name() {
        let cases = [
            ("model.layers.3.self_attn.q_proj.weight", "self_attn.q_proj", Some(3)),
            ("model.layers.12.mlp.down_proj.weight", "mlp.down_proj", Some(12)),
            ("model.layers.0.mlp.experts.63.up_proj.weight", "mlp.experts.up_proj", Some(0)),
            (
                "model.layers.1.block_sparse_moe.experts.7.w2.weight",
                "block_sparse_moe.experts.w2",
                Some(1),
            ),
            ("model.layers.2.self_attn.qkv_proj.weight", "self_attn.qkv_proj", Some(2)),
            ("model.layers.2.mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj", Some(2)),
            ("model.language_model.layers.5.mlp.gate_proj.weight", "mlp.gate_proj", Some(5)),
            ("layers.99999999999999999999.mlp.up_proj.weight", "mlp.up_proj", None),
        ];
        for (name, projection, layer) in cases {
            assert_eq!(label(name), Some((projection.to_owned(), layer)), "{name}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for name in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.0.self_attn.q_proj.lora_A.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.self_attn.q_proj.qweight",
            "model.layers.0.mlp.w1.weight",
            "q_proj",
            "",
        ] {
            assert_eq!(label(name), None, "{name}");
        }
    }

    #[test]
    fn conv1d_is_recognised() {
        assert!(Role::is_transposed("h.0.attn.c_attn.weight"));
        assert!(!Role::is_transposed("h.0.attn.c_attn.bias"));
        assert!(!Role::is_transposed("model.layers.0.mlp.down_proj.weight"));
    }
}
