//! A model whose residual streams take more memory than everything else.

use std::fs;
use std::io;
use std::path::Path;

use crate::shapes::llama_tensors;
use crate::tensor::Kind;
use crate::{Fill, write_checkpoint};

/// Files of the demo model's tokenizer.
const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// Writes a decoder of two layers with a hidden size of 256 and small maps, in two shards, with the tokenizer of the
/// demo model in this repository.
///
/// # Errors
/// If a file cannot be read or written.
pub fn write_wide_model(dir: &Path) -> io::Result<()> {
    let (hidden, kv, mlp) = (256, 64, 64);
    write_checkpoint(dir, &llama_tensors(Kind::Bf16, 2, [hidden, kv, mlp]), 2, Fill::Gaussian(5))?;
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    for name in TOKENIZER {
        fs::copy(demo.join(name), dir.join(name))?;
    }
    let config = fs::read(demo.join("config.json"))?;
    let mut config: serde_json::Value = serde_json::from_slice(&config)?;
    for (field, value) in [
        ("hidden_size", hidden),
        ("intermediate_size", mlp),
        ("num_hidden_layers", 2),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 2),
        ("head_dim", 32),
        ("vocab_size", 4 * hidden),
    ] {
        config[field] = value.into();
    }
    fs::write(dir.join("config.json"), config.to_string())
}
