//! `config.json`. Input: its text, beside a small model.
//!
//! A decoder that opens can be run, and the plan of what is pruned does not fail.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use physarium::checkpoint::{Checkpoint, Error, Selection, TargetPlan};
use physarium::model::{Compute, Decoder, Generation, Residency};
use physarium_fuzz::{CONFIG, read_twice, scratch, write_model, write_seeds};

static MODEL: OnceLock<(PathBuf, Compute)> = OnceLock::new();

fn seeds() {
    let with = |more: &str| CONFIG.replacen('{', &format!("{{{more}, "), 1).into_bytes();
    let typed = |kind: &str| CONFIG.replace("\"llama\"", kind).into_bytes();
    write_seeds(&[
        ("llama", CONFIG.into()),
        (
            "qwen2",
            typed(
                r#""qwen2", "use_sliding_window": true, "sliding_window": 2, "max_window_layers": 0"#,
            ),
        ),
        ("mistral", typed(r#""mistral", "sliding_window": 3"#)),
        ("qwen3", typed(r#""qwen3", "layer_types": ["sliding_attention"], "sliding_window": 4"#)),
        (
            "yarn",
            with(
                r#""rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}"#,
            ),
        ),
        (
            "llama3",
            with(
                r#""rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}"#,
            ),
        ),
        ("parameters", with(r#""rope_parameters": {"rope_type": "default", "rope_theta": 5e5}"#)),
        (
            "gemma3",
            typed(
                r#""gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 3, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8, "rope_local_base_freq": 1e4, "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": null}"#,
            ),
        ),
        ("gemma3-text", br#"{"model_type": "gemma3", "text_config": {"hidden_size": 16}}"#.to_vec()),
        (
            "tower",
            with(r#""text_config": {"hidden_size": 16}, "vision_config": {"hidden_size": 8}"#),
        ),
        ("quantised", with(r#""quantization_config": {"quant_method": "gptq", "bits": 4}"#)),
    ]);
}

fuzz_target!(init: seeds(), |data: &[u8]| {
    let (dir, compute) = MODEL.get_or_init(|| {
        let dir = scratch("config");
        write_model(&dir);
        (dir, Compute::new(1).expect("a thread"))
    });
    fs::write(dir.join("config.json"), data).expect("the config is written");
    let plan = || {
        let checkpoint = Checkpoint::open(dir)?;
        Ok::<_, Error>(TargetPlan::new(&checkpoint, &Selection::default())?.targets().count())
    };
    read_twice(plan).expect("a plan does not depend on the config");
    let open = || {
        let decoder = Decoder::open(dir, Residency::Streamed)?;
        let notes: Vec<String> = decoder.notes().iter().map(ToString::to_string).collect();
        Ok::<_, physarium::model::Error>((decoder.config().layers(), notes))
    };
    let Some((_, notes)) = read_twice(open) else { return };
    assert!(notes.iter().all(|note| !note.chars().any(char::is_control)), "{notes:?}");
    let decoder = Decoder::open(dir, Residency::Streamed).expect("it opened before");
    let mut generation = Generation::new(compute, &decoder, 4).expect("shapes are checked");
    assert_eq!(generation.feed(&[0, 1, 2]).expect("tokens of the vocabulary").len(), decoder.config().vocabulary);
    generation.feed(&[3]).expect("a token of the vocabulary");
});
