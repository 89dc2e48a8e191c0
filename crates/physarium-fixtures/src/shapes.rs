//! Tensors of whole decoders.

use crate::tensor::{Kind, Tensor};

/// A small Llama: seven projections and two norms in each layer, an embedding, an untied head of the same shape,
/// and a final norm.
///
/// `[hidden, kv, mlp]` are the features of the residual stream, of all keys (and of all values), and of the MLP.
/// The vocabulary has `4 · hidden` tokens.
pub fn llama_tensors(kind: Kind, layers: u64, [hidden, kv, mlp]: [u64; 3]) -> Vec<Tensor> {
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

/// The tensors of Qwen2.5-7B: 28 layers for the published model of 339 tensors and 7,615,616,512 elements, fewer
/// for a shallower copy of it.
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
