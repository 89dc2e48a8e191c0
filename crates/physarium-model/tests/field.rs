//! Checkpoints whose config and tensors contradict each other: what is stored decides, and a note says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod families;

use std::path::{Path, PathBuf};

use physarium_model::{Compute, Decoder, Generation, Residency};
use serde_json::{Map, Value, json};

use families::MODELS;

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// A copy of a golden model to change.
struct Copy {
    dir: tempfile::TempDir,
    config: Value,
    /// Names with dtype, shape and bytes.
    tensors: Vec<(String, Value, Vec<u8>)>,
}

impl Copy {
    fn of(name: &str) -> Copy {
        let from = golden(name);
        let config = std::fs::read_to_string(from.join("config.json")).unwrap();
        let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
        let (length, rest) = bytes.split_first_chunk().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        let entries = header.into_iter().filter(|(name, _)| name != "__metadata__");
        let tensors = entries.map(|(name, entry)| {
            let at = |index: usize| entry["data_offsets"][index].as_u64().unwrap() as usize;
            let bytes = data[at(0)..at(1)].to_vec();
            (name, entry, bytes)
        });
        let (dir, tensors) = (tempfile::tempdir().unwrap(), tensors.collect());
        Copy { dir, config: serde_json::from_str(&config).unwrap(), tensors }
    }

    /// Changes a field of the config; `Null` removes it.
    fn with(mut self, field: &str, value: Value) -> Copy {
        match value {
            Value::Null => drop(self.config.as_object_mut().unwrap().remove(field)),
            value => self.config[field] = value,
        }
        self
    }

    fn without(mut self, tensor: &str) -> Copy {
        self.tensors.retain(|(name, ..)| name != tensor);
        self
    }

    /// Stores the tensor `from` under the name `to` too, in place of what is there.
    fn copied(mut self, from: &str, to: &str) -> Copy {
        let (_, entry, bytes) = self.tensors.iter().find(|(name, ..)| name == from).unwrap();
        let copy = (to.to_owned(), entry.clone(), bytes.clone());
        self = self.without(to);
        self.tensors.push(copy);
        self
    }

    fn open(&self) -> Result<Decoder, String> {
        let bytes = physarium_fixtures::shard_of(&self.tensors);
        std::fs::write(self.dir.path().join("model.safetensors"), bytes).unwrap();
        std::fs::write(self.dir.path().join("config.json"), self.config.to_string()).unwrap();
        Decoder::open(self.dir.path(), Residency::Resident).map_err(|e| e.to_string())
    }

    #[track_caller]
    fn opened(&self) -> Decoder {
        self.open().unwrap()
    }

    #[track_caller]
    fn logits(&self) -> Vec<f32> {
        logits(&self.opened())
    }

    #[track_caller]
    fn notes(&self) -> Vec<String> {
        self.opened().notes().iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn refused(&self, needles: &[&str]) {
        let text = self.open().map(|_| ()).unwrap_err();
        for needle in needles {
            assert!(text.contains(needle), "no {needle:?} in {text}");
        }
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn original(name: &str) -> Decoder {
    Decoder::open(&golden(name), Residency::Streamed).unwrap()
}

fn logits(decoder: &Decoder) -> Vec<f32> {
    let compute = Compute::new(1).unwrap();
    let mut generation = Generation::new(&compute, decoder, 8).unwrap();
    generation.feed(&[1, 5, 3, 60, 2, 7, 11, 4]).unwrap().to_vec()
}

#[test]
fn golden_models_have_nothing_to_note() {
    for name in MODELS {
        assert_eq!(original(name).notes(), [], "{name}");
    }
}

#[test]
fn a_stored_head_is_used_whatever_the_config_says() {
    let tied = Copy::of("llama").with("tie_word_embeddings", json!(true));
    let expected = logits(&original("llama"));
    assert!(tied.logits() == expected);
    let notes = tied.notes();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains(HEAD) && notes[0].contains("tie_word_embeddings"), "{notes:?}");
    // The default is not tied, in all four families.
    for (name, decoder) in ["llama", "mistral", "qwen3"].map(|name| (name, original(name))) {
        let silent = Copy::of(name).with("tie_word_embeddings", json!(null));
        assert!(silent.logits() == logits(&decoder), "{name}");
        silent.without(HEAD).refused(&[HEAD, "missing"]);
    }
}

#[test]
fn a_head_that_equals_the_embedding_or_is_not_stored_is_the_embedding() {
    let tied = || Copy::of("llama").with("tie_word_embeddings", json!(true));
    let without = tied().without(HEAD);
    let equal = tied().copied(EMBEDDING, HEAD);
    let untied = Copy::of("llama").copied(EMBEDDING, HEAD);
    assert!(without.logits() == equal.logits() && without.logits() == untied.logits());
    assert!(without.logits() != logits(&original("llama")));
    assert_eq!((without.notes(), equal.notes(), untied.notes()), (vec![], vec![], vec![]));
    // Only the last byte differs.
    let mut other = tied().copied(EMBEDDING, HEAD);
    let (.., bytes) = other.tensors.last_mut().unwrap();
    *bytes.last_mut().unwrap() ^= 0x40;
    assert!(other.notes()[0].contains(HEAD));
    assert!(other.logits() != equal.logits());
    let mut wide = tied();
    let (_, entry, _) = wide.tensors.iter_mut().find(|(name, ..)| name == HEAD).unwrap();
    entry["shape"] = json!([40, 64]);
    wide.refused(&[HEAD, "shape", "[80, 32]", "[40, 64]"]);
}

#[test]
fn a_tied_embedding_that_is_not_stored_is_the_head() {
    let tied = Copy::of("llama").with("tie_word_embeddings", json!(true)).without(EMBEDDING);
    let both = Copy::of("llama").copied(HEAD, EMBEDDING);
    assert!(tied.logits() == both.logits());
    assert!(tied.notes()[0].contains("no embedding is stored"), "{:?}", tied.notes());
    let untied = Copy::of("llama").without(EMBEDDING);
    untied.refused(&[EMBEDDING, "missing"]);
    tied.without(HEAD).refused(&[EMBEDDING, "missing"]);
}

#[test]
fn tensors_that_the_decoder_does_not_have_are_one_note() {
    let fewer = Copy::of("llama").with("num_hidden_layers", json!(1));
    let expected = fewer.logits();
    let notes = fewer.notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("18 tensors are not used by the decoder: model.layers.1."));
    assert!(notes[0].ends_with(" and 15 more"), "{notes:?}");
    let norm = "model.layers.0.input_layernorm.weight";
    let biased = Copy::of("llama").copied(norm, "model.layers.0.self_attn.q_proj.bias");
    assert!(biased.logits() == logits(&original("llama")));
    let name = "model.layers.0.self_attn.q_proj.bias";
    assert_eq!(biased.notes(), [format!("1 tensor is not used by the decoder: {name}")]);
    // Numbers count as numbers, and another spelling of a layer's number is another module.
    let odd = ["model.layers.10.x", "model.layers.9.x", "model.layers.00.self_attn.q_proj.weight"];
    let more = odd.iter().fold(fewer, |copy, name| copy.copied(norm, name));
    assert!(more.logits() == expected);
    let note = &more.notes()[0];
    assert!(note.starts_with("21 tensors are not used by the decoder: model.layers.00."), "{note}");
    // Old checkpoints hold the buffers of rotary embeddings.
    let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
    assert_eq!(Copy::of("llama").copied(norm, buffer).notes(), Vec::<String>::new());
    Copy::of("llama").with("num_hidden_layers", json!(4)).refused(&["model.layers.3.", "missing"]);
}

#[test]
fn an_adapter_and_a_quantisation_are_not_applied() {
    for file in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
        let copy = Copy::of("qwen2");
        std::fs::write(copy.dir.path().join(file), "{}").unwrap();
        let said = format!("{file}: the adapter beside the model is not applied");
        assert_eq!(copy.notes(), [said]);
    }
    let config = json!({"quant_method": "compressed-tensors", "format": "dense"});
    let notes = Copy::of("qwen2").with("quantization_config", config).notes();
    assert!(notes[0].contains("quantization_config (compressed-tensors)"), "{notes:?}");
}

#[test]
fn rope_scaling_wins_over_rope_parameters_with_a_note() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let rope = |copy: &Copy| copy.opened().config().rope.clone();
    let alone = Copy::of("llama").with("rope_scaling", yarn.clone());
    let default = json!({"rope_type": "default", "rope_theta": 10000.0});
    let plain = Copy::of("llama").with("rope_parameters", default.clone());
    assert!(rope(&alone) != rope(&plain));
    assert_eq!(rope(&plain), original("llama").config().rope);
    assert!(alone.notes().is_empty() && plain.notes().is_empty());
    let both =
        Copy::of("llama").with("rope_scaling", yarn.clone()).with("rope_parameters", default);
    assert_eq!(rope(&both), rope(&alone));
    assert_eq!(both.notes().len(), 1);
    for field in ["rope_scaling", "rope_parameters"] {
        assert!(both.notes()[0].contains(field), "{:?}", both.notes());
    }
    // Two dialects that say the same.
    let mut spelt = yarn.clone();
    (spelt["type"], spelt["rope_theta"], spelt["finetuned"]) =
        (json!("yarn"), json!(10000), json!(true));
    spelt.as_object_mut().unwrap().remove("rope_type");
    let same = Copy::of("llama").with("rope_scaling", spelt).with("rope_parameters", yarn);
    assert_eq!((rope(&same), same.notes()), (rope(&alone), vec![]));
    // An empty object counts as none.
    let empty = Copy::of("qwen2").with("rope_scaling", json!({}));
    assert_eq!((rope(&empty), empty.notes()), (original("qwen2").config().rope.clone(), vec![]));
}

#[test]
fn bases_that_contradict_each_other_are_refused_or_noted() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0});
    let parameters = json!({"rope_type": "default", "rope_theta": 1e6});
    let both = |theta: Value| {
        let copy = Copy::of("llama").with("rope_scaling", yarn.clone());
        copy.with("rope_parameters", parameters.clone()).with("rope_theta", theta)
    };
    let needles = ["config.json", "rope_theta", "rope_scaling", "rope_parameters", "1000000"];
    both(json!(null)).refused(&needles);
    both(json!(5e5)).refused(&needles);
    assert_eq!(both(json!(1e6)).notes().len(), 1);
    let one = Copy::of("llama").with("rope_parameters", parameters.clone());
    let nested = one.with("rope_theta", json!(null));
    assert!(nested.notes().is_empty());
    let two = Copy::of("llama").with("rope_parameters", parameters).with("rope_theta", json!(5e5));
    assert_eq!(two.opened().config().rope, nested.opened().config().rope);
    assert!(two.notes()[0].contains("rope_parameters.rope_theta is used"), "{:?}", two.notes());
    let stated =
        json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let other = Copy::of("llama").with("rope_scaling", stated);
    let other = other.with("original_max_position_embeddings", json!(32));
    other.refused(&["original_max_position_embeddings", "64 in rope_scaling and 32"]);
}

#[test]
fn settings_that_would_change_the_computation_are_refused() {
    for field in ["partial_rotary_factor", "rotary_pct", "rope_pct"] {
        let needles = ["config.json", field, "0.5 is not supported"];
        Copy::of("llama").with(field, json!(0.5)).refused(&needles);
        let inside = json!({"rope_type": "default", field: 0.5});
        Copy::of("llama").with("rope_parameters", inside).refused(&needles);
        let inside = json!({"rope_type": "linear", "factor": 2.0, field: 0.5});
        Copy::of("llama").with("rope_scaling", inside).refused(&needles);
        assert!(Copy::of("llama").with(field, json!(1.0)).notes().is_empty());
    }
    let layers = json!({"full_attention": {"rope_type": "yarn", "factor": 4.0}});
    Copy::of("qwen3")
        .with("rope_parameters", layers)
        .refused(&["rope_parameters", "full_attention"]);
    let layers = json!({"rope_theta": 1e4, "sliding_attention": null});
    Copy::of("qwen3").with("rope_parameters", layers).refused(&["sliding_attention"]);
    let layers = json!({"0": {"num_attention_heads": 2}});
    Copy::of("llama").with("per_layer_config", layers).refused(&["per_layer_config"]);
    // Read by the family or ignored by it, as in transformers.
    Copy::of("llama").with("mlp_bias", json!(true)).refused(&["gate_proj.bias", "missing"]);
    for name in ["mistral", "qwen2", "qwen3"] {
        let ignored = Copy::of(name).with("mlp_bias", json!(true));
        assert!(ignored.logits() == logits(&original(name)), "{name}");
    }
}

#[test]
fn a_scaling_extends_the_maximum_context() {
    let most = |copy: Copy| copy.opened().config().max_positions;
    let scaled = |scaling: Value| Copy::of("llama").with("rope_scaling", scaling);
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128});
    assert_eq!(most(scaled(yarn.clone())), Some(512));
    let stated = scaled(yarn.clone()).with("max_position_embeddings", json!(512));
    assert_eq!(most(stated), Some(512));
    let longer = scaled(yarn.clone()).with("max_position_embeddings", json!(1000));
    assert_eq!(most(longer), Some(1000));
    assert_eq!(most(scaled(yarn).with("max_position_embeddings", json!(null))), None);
    assert_eq!(most(scaled(json!({"rope_type": "yarn", "factor": 4.0}))), Some(512));
    assert_eq!(most(scaled(json!({"type": "linear", "factor": 2.5}))), Some(320));
    assert_eq!(most(scaled(json!({"type": "default", "factor": 2.5}))), Some(128));
    let llama3 = original("llama3-rope");
    let stated = std::fs::read_to_string(golden("llama3-rope").join("config.json")).unwrap();
    let stated: Value = serde_json::from_str(&stated).unwrap();
    let stated = stated["max_position_embeddings"].as_u64().unwrap() as usize;
    assert_eq!(llama3.config().max_positions, Some(stated));
}

#[test]
fn numbers_of_positions_have_no_limit() {
    for most in [1 << 22, u64::MAX] {
        let copy = Copy::of("mistral").with("max_position_embeddings", json!(most));
        assert_eq!(copy.opened().config().max_positions, Some(most as usize));
        let copy = copy.with("sliding_window", json!(most));
        let full = Copy::of("mistral").with("sliding_window", json!(4096));
        assert!(copy.logits() == full.logits());
    }
    for bad in [json!(0), json!(-1), json!(1.5), json!("512")] {
        let copy = Copy::of("mistral").with("max_position_embeddings", bad);
        copy.refused(&["max_position_embeddings", "a positive integer"]);
    }
    let endless = json!({"rope_type": "yarn", "factor": 1e300});
    let most = Copy::of("llama").with("rope_scaling", endless).opened().config().max_positions;
    assert_eq!(most, Some(usize::MAX));
}

/// The config of a golden model of Gemma 3 as that of a model with images describes its text.
fn with_images(name: &str) -> Copy {
    let mut copy = Copy::of(name);
    copy.config = json!({"model_type": "gemma3", "text_config": copy.config});
    for (name, ..) in &mut copy.tensors {
        *name = format!("language_model.{name}");
    }
    copy
}

#[test]
fn the_text_of_a_model_with_images_is_a_decoder() {
    for name in ["gemma3", "gemma3-linear"] {
        let copy = with_images(name);
        assert!(copy.logits() == logits(&original(name)), "{name}");
        let tower = "vision_tower.vision_model.post_layernorm.weight";
        let images = copy.copied("language_model.model.norm.weight", tower);
        assert!(images.logits() == logits(&original(name)), "{name}");
        let said = format!("1 tensor is not used by the decoder: {tower}");
        assert_eq!(images.notes(), [said]);
    }
    Copy::of("gemma3").with("model_type", json!("gemma3")).refused(&[
        "config.json",
        "text_config",
        "an object",
    ]);
}

#[test]
fn sizes_and_settings_that_gemma_leaves_out_are_those_of_transformers() {
    let mut copy = Copy::of("gemma3");
    for field in [
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "max_position_embeddings",
        "rms_norm_eps",
        "tie_word_embeddings",
        "sliding_window",
        "layer_types",
        "rope_parameters",
    ] {
        copy = copy.with(field, json!(null));
    }
    // Its tensors have other sizes.
    copy.refused(&["model.embed_tokens.weight", "[262208, 32]"]);
    let sized = copy.with("vocab_size", json!(80)).with("num_attention_heads", json!(4));
    sized.refused(&["q_proj.weight", "[1024, 32]"]);
    let sized = sized.with("head_dim", json!(16)).with("num_key_value_heads", json!(2));
    let config = sized.opened().config().clone();
    assert_eq!(config.max_positions, Some(131_072));
    assert_eq!(config.windows, [Some(4096); 3]);
    let stated = sized.with("rope_theta", json!(1e6)).with("rope_local_base_freq", json!(1e4));
    let stated = stated.opened().config().clone();
    assert_eq!((&config.rope, &config.local_rope), (&stated.rope, &stated.local_rope));
    assert_ne!(Some(&config.rope), config.local_rope.as_ref());
}

#[test]
fn both_dialects_of_gemma_mean_the_same() {
    let four = original("gemma3-linear");
    let linear = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0});
    let sliding = json!({"rope_type": "default", "rope_theta": 50.0});
    let mut five = Copy::of("gemma3-linear")
        .with("rope_parameters", json!({"full_attention": linear, "sliding_attention": sliding}));
    five.refused(&["rope_scaling", "rope_parameters.full_attention"]);
    let [slides, all] = ["sliding_attention", "full_attention"];
    five = five.with("layer_types", json!([slides, slides, all, slides]));
    for field in ["rope_scaling", "rope_theta", "rope_local_base_freq", "sliding_window_pattern"] {
        five = five.with(field, json!(null));
    }
    assert!(five.logits() == logits(&four));
    let two = five.with("rope_local_base_freq", json!(60.0));
    assert!(two.logits() == logits(&four));
    let notes = two.notes();
    assert!(notes.len() == 1 && notes[0].contains("rope_local_base_freq"), "{notes:?}");
    let mut endless = Copy::of("gemma3");
    endless.config["sliding_window"] = Value::Null;
    endless.refused(&["sliding_window", "a positive integer"]);
    // Each of them matters.
    for (field, value) in [
        ("rope_theta", json!(2000.0)),
        ("rope_local_base_freq", json!(60.0)),
        ("sliding_window", json!(3)),
        ("sliding_window_pattern", json!(2)),
        ("query_pre_attn_scalar", json!(12)),
    ] {
        let changed = Copy::of("gemma3-linear").with(field, value);
        assert!(changed.logits() != logits(&four), "{field}");
    }
}
