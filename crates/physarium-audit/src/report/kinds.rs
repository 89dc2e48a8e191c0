//! What a tensor that is not a target is, by its name: an embedding, a norm, a bias.

use physarium_checkpoint::{Encoded, SkipReason, printable};

use super::audit::Skipped;

/// The kind of a tensor whose name says nothing.
pub(super) const NOT_A_TARGET: &str = "not a target projection";

/// Last module of a name, and what it is.
const KINDS: [(&[&str], &str); 4] = [
    (
        &[
            "embed_tokens",
            "wte",
            "wpe",
            "word_embeddings",
            "embed_positions",
            "embeddings",
            "embed_in",
        ],
        "embedding",
    ),
    (&["lm_head", "embed_out"], "head"),
    (&["norm", "ln_1", "ln_2", "ln_f", "ln", "layernorm", "layer_norm"], "norm"),
    (&["router"], "router"),
];

/// Why a tensor is skipped, or what it is if its name is the reason.
pub(super) fn kind(tensor: &Skipped, encoded: &[Encoded]) -> String {
    if tensor.reason != SkipReason::NotATarget.to_string() {
        return tensor.reason.clone();
    }
    if let Some(encoded) = encoded.iter().find(|encoded| is_part(&tensor.name, encoded)) {
        return format!("part of a projection: {}", encoded.format);
    }
    by_name(&tensor.name).unwrap_or(NOT_A_TARGET).to_owned()
}

fn by_name(name: &str) -> Option<&'static str> {
    let (module, what) = name.rsplit_once('.').unwrap_or(("", name));
    if what == "bias" || what.ends_with("_bias") {
        return Some("bias");
    }
    let parent = module.rsplit('.').next().unwrap_or_default();
    let known = KINDS.iter().find(|(names, _)| names.contains(&parent));
    known.map(|(_, kind)| *kind).or_else(|| parent.contains("norm").then_some("norm"))
}

/// Whether a tensor belongs to a projection in this format.
fn is_part(name: &str, encoded: &Encoded) -> bool {
    let words = without_numbers(name, None);
    let belongs = |projection: &String| {
        let mut rests = words.match_indices(projection.as_str());
        rests.any(|(at, _)| words[at + projection.len()..].starts_with(['.', '_']))
    };
    !name.ends_with("bias") && encoded.names.iter().any(belongs)
}

/// A name with a star for each number: `model.layers.*.mlp.gate.weight`.
pub(super) fn pattern(name: &str) -> String {
    printable(&without_numbers(name, Some("*")))
}

/// A name with `instead` of each component that is a number; without those components for `None`.
fn without_numbers(name: &str, instead: Option<&str>) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let part = |part| if is_number(part) { instead } else { Some(part) };
    name.split('.').filter_map(part).collect::<Vec<&str>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_from_names() {
        for (name, expected) in [
            ("model.embed_tokens.weight", Some("embedding")),
            ("transformer.wte.weight", Some("embedding")),
            ("lm_head.weight", Some("head")),
            ("model.norm.weight", Some("norm")),
            ("model.layers.3.input_layernorm.weight", Some("norm")),
            ("model.layers.3.self_attn.q_norm.weight", Some("norm")),
            ("model.layers.3.self_attn.q_proj.bias", Some("bias")),
            ("model.layers.3.mlp.experts.gate_up_proj_bias", Some("bias")),
            ("model.layers.3.mlp.router.weight", Some("router")),
            ("model.layers.3.mamba.in_proj.weight", None),
            ("weight", None),
            ("", None),
        ] {
            assert_eq!(by_name(name), expected, "{name}");
        }
        assert_eq!(
            pattern("model.layers.3.mlp.experts.17.w.9a"),
            "model.layers.*.mlp.experts.*.w.9a"
        );
    }

    #[test]
    fn parts_of_encoded_projections_are_told_from_other_tensors() {
        let encoded = Encoded {
            format: "F".to_owned(),
            projections: 2,
            names: vec!["mlp.experts.up_proj".to_owned(), "self_attn.q_proj".to_owned()],
            example: String::new(),
        };
        for (name, expected) in [
            ("model.layers.0.self_attn.q_proj.weight_packed", true),
            ("model.layers.0.mlp.experts.7.up_proj.qweight", true),
            ("model.layers.0.mlp.experts.up_proj_blocks", true),
            ("model.layers.0.self_attn.q_proj.bias", false),
            ("model.layers.0.self_attn.q_proj2.weight", false),
            ("model.layers.0.mlp.up_proj.scales", false),
        ] {
            assert_eq!(is_part(name, &encoded), expected, "{name}");
        }
    }
}
