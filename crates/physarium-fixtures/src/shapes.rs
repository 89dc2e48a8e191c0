//! Tensor lists of decoders.

use crate::{Kind, Tensor};

/// A small Llama: two projections' worth of every kind, norms, embedding, untied head.
pub fn llama_tensors(kind: Kind, layers: u64, hidden: u64, kv: u64, mlp: u64) -> Vec<Tensor> {
    let vocabulary = 4 * hidden;
    let mut tensors = vec![
        Tensor::new("lm_head.weight", kind, &[vocabulary, hidden]),
        Tensor::new("model.embed_tokens.weight", kind, &[vocabulary, hidden]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[u64]| {
            tensors.push(Tensor::new(format!("model.layers.{layer}.{name}.weight"), kind, shape));
        };
        add("input_layernorm", &[hidden]);
        add("mlp.down_proj", &[hidden, mlp]);
        add("mlp.gate_proj", &[mlp, hidden]);
        add("mlp.up_proj", &[mlp, hidden]);
        add("post_attention_layernorm", &[hidden]);
        add("self_attn.k_proj", &[kv, hidden]);
        add("self_attn.o_proj", &[hidden, hidden]);
        add("self_attn.q_proj", &[hidden, hidden]);
        add("self_attn.v_proj", &[kv, hidden]);
    }
    tensors.push(Tensor::new("model.norm.weight", kind, &[hidden]));
    tensors
}

/// The exact tensors of Qwen2.5-7B (28 layers; fewer for a scaled copy): 339 tensors,
/// 7,615,616,512 elements.
pub fn qwen2_5_7b_tensors(layers: u64) -> Vec<Tensor> {
    let (hidden, kv, mlp, vocabulary) = (3584, 512, 18_944, 152_064);
    let kind = Kind::Bf16;
    let mut tensors = vec![
        Tensor::new("lm_head.weight", kind, &[vocabulary, hidden]),
        Tensor::new("model.embed_tokens.weight", kind, &[vocabulary, hidden]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[u64]| {
            tensors.push(Tensor::new(format!("model.layers.{layer}.{name}"), kind, shape));
        };
        add("input_layernorm.weight", &[hidden]);
        add("mlp.down_proj.weight", &[hidden, mlp]);
        add("mlp.gate_proj.weight", &[mlp, hidden]);
        add("mlp.up_proj.weight", &[mlp, hidden]);
        add("post_attention_layernorm.weight", &[hidden]);
        add("self_attn.k_proj.bias", &[kv]);
        add("self_attn.k_proj.weight", &[kv, hidden]);
        add("self_attn.o_proj.weight", &[hidden, hidden]);
        add("self_attn.q_proj.bias", &[hidden]);
        add("self_attn.q_proj.weight", &[hidden, hidden]);
        add("self_attn.v_proj.bias", &[kv]);
        add("self_attn.v_proj.weight", &[kv, hidden]);
    }
    tensors.push(Tensor::new("model.norm.weight", kind, &[hidden]));
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qwen_has_the_published_size() {
        let tensors = qwen2_5_7b_tensors(28);
        assert_eq!(tensors.len(), 339);
        assert_eq!(tensors.iter().map(Tensor::elements).sum::<u64>(), 7_615_616_512);
    }
}
