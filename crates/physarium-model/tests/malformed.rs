//! Invalid and unsupported checkpoints: each error names file, tensor or field, expected and found.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::{Path, PathBuf};

use physarium_model::{Decoder, Residency};
use serde_json::{Value, json};

/// A copy of a golden model to corrupt.
struct Copy {
    dir: tempfile::TempDir,
    config: Value,
}

impl Copy {
    fn of(name: &str) -> Copy {
        let from = golden(name);
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
        }
        let config = std::fs::read_to_string(from.join("config.json")).unwrap();
        Copy { dir, config: serde_json::from_str(&config).unwrap() }
    }

    /// The error of opening it with one field of the config changed; `Null` removes the field.
    fn says(&self, field: &str, value: Value) -> String {
        let mut config = self.config.clone();
        match value {
            Value::Null => drop(config.as_object_mut().unwrap().remove(field)),
            value => config[field] = value,
        }
        self.says_of(config.to_string().as_bytes())
    }

    fn says_of(&self, config: &[u8]) -> String {
        std::fs::write(self.dir.path().join("config.json"), config).unwrap();
        match Decoder::open(self.dir.path(), Residency::Streamed) {
            Ok(_) => "opened".to_owned(),
            Err(e) => e.to_string(),
        }
    }

    /// Changes bytes of the header without changing its length.
    fn edit_header(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let path = self.dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(from.len()).position(|here| here == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(path, bytes).unwrap();
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[track_caller]
fn has(text: &str, needles: &[&str]) {
    for needle in needles {
        assert!(text.contains(needle), "no {needle:?} in {text}");
    }
}

#[test]
fn unsupported_values_are_named_with_the_supported_ones() {
    let copy = Copy::of("qwen2");
    let says = copy.says("model_type", json!("mamba"));
    has(
        &says,
        &["config.json", "model_type mamba", "llama, mistral, qwen2, qwen3, gemma3_text, gemma3"],
    );
    has(&copy.says("hidden_act", json!("gelu")), &["hidden_act gelu", "silu"]);
    let gemma = Copy::of("gemma3");
    for (field, value) in [
        ("hidden_activation", json!("relu")),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("use_bidirectional_attention", json!(true)),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": 1e6})),
        ("rope_parameters", json!({"rope_theta": 5e5})),
    ] {
        has(&gemma.says(field, value), &["config.json", field, "is not supported"]);
    }
    let scaled = json!({"rope_type": "longrope", "factor": 2.0});
    has(&copy.says("rope_parameters", scaled), &["longrope", "default, linear, llama3, yarn"]);
    let partial = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    has(&copy.says("rope_parameters", partial), &["partial_rotary_factor"]);
    let types = copy.says_of(
        json!({"model_type": "qwen2", "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 80,
            "use_sliding_window": true, "sliding_window": 8, "layer_types": ["chunked"]})
        .to_string()
        .as_bytes(),
    );
    has(&types, &["layer_types", "chunked", "sliding_attention"]);
}

#[test]
fn every_invalid_field_is_named() {
    let copy = Copy::of("qwen2");
    let cases = [
        ("hidden_size", json!(null), "nothing"),
        ("hidden_size", json!("32"), "\"32\""),
        ("hidden_size", json!(0), "found 0"),
        ("hidden_size", json!(-4), "found -4"),
        ("hidden_size", json!(1e300), "1e+300"),
        ("num_attention_heads", json!([4]), "a list"),
        ("num_key_value_heads", json!(3), "a divisor of num_attention_heads (4), found 3"),
        ("head_dim", json!(7), "an even number, found 7"),
        ("num_hidden_layers", json!(1_000_000), "at most 4096"),
        ("vocab_size", json!(u64::MAX), "18446744073709551615"),
        ("rms_norm_eps", json!(-1e-6), "a positive number"),
        ("tie_word_embeddings", json!("yes"), "true or false"),
        ("model_type", json!(7), "a string"),
        ("model_type", json!(null), "nothing"),
        ("rope_parameters", json!("default"), "an object"),
        ("rope_parameters", json!({"rope_type": "linear"}), "factor"),
        ("rope_parameters", json!({"rope_type": "llama3", "factor": 8.0}), "low_freq_factor"),
    ];
    for (field, value, needle) in cases {
        let says = copy.says(field, value);
        has(&says, &["config.json", needle]);
    }
    has(&copy.says_of(b"[1]"), &["config.json", "a JSON object", "a list"]);
    has(&copy.says_of(b"{"), &["config.json", "a JSON object"]);
    has(&copy.says_of(b"{\"model_type\": \"\xff\"}"), &["config.json"]);
    std::fs::remove_file(copy.dir.path().join("config.json")).unwrap();
    let missing = Decoder::open(copy.dir.path(), Residency::Streamed).map(|_| ()).unwrap_err();
    has(&missing.to_string(), &["config.json", "No such file"]);
}

#[test]
fn tensors_that_do_not_match_the_config_are_named() {
    let copy = Copy::of("qwen3");
    let says = copy.says("intermediate_size", json!(50));
    has(&says, &["model.safetensors", "gate_proj.weight", "[50, 32] by config.json", "[48, 32]"]);
    has(
        &copy.says("vocab_size", json!(81)),
        &["model.embed_tokens.weight", "[81, 32]", "[80, 32]"],
    );
    let deeper = copy.says("num_hidden_layers", json!(4));
    has(&deeper, &["model.layers.3.self_attn.q_proj.weight", "missing"]);
    copy.edit_header("layers.1.self_attn.k_norm", "layers.1.self_attn.k_nurm");
    has(
        &copy.says("model_type", json!("qwen3")),
        &["model.layers.1.self_attn.k_norm.weight", "missing", "[16]", "none"],
    );
    let copy = Copy::of("qwen2");
    copy.edit_header("\"BF16\"", "\"I16\" ");
    has(&copy.says("model_type", json!("qwen2")), &["dtype", "BF16, F16 or F32", "I16"]);
}

#[test]
fn truncated_and_corrupted_configs_do_not_panic() {
    let copy = Copy::of("qwen2-yarn");
    let text = copy.config.to_string();
    for end in 0..text.len() {
        copy.says_of(&text.as_bytes()[..end]);
    }
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        copy.says_of(&bytes);
    }
}

#[test]
fn tokens_outside_the_vocabulary_are_an_error() {
    let decoder = Decoder::open(&golden("llama"), Residency::Streamed).unwrap();
    let says = decoder.embedding().unwrap().of(&[1, 80]).err().unwrap().to_string();
    has(&says, &["token 80", "vocabulary of 80"]);
}
