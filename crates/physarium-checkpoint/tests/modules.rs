//! Which module of a checkpoint is the language model, and what the default leaves alone in it.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;

use physarium_checkpoint::{Action, Checkpoint, LeftAlone, Selection, TargetPlan};
use physarium_fixtures::{Fill, Kind, Tensor, llama_tensors, write_checkpoint};

/// Matrices of 4 x 8 in each of `layers` layers of `list`.
fn matrices(list: &str, layers: u64, names: &[&str]) -> Vec<Tensor> {
    let matrix = |layer: u64, name: &&str| {
        Tensor::new(format!("{list}.{layer}.{name}.weight"), Kind::Bf16, &[4, 8])
    };
    (0..layers).flat_map(|layer| names.iter().map(move |name| matrix(layer, name))).collect()
}

/// The plan of a checkpoint of these tensors with this config.
fn plan(tensors: &[Tensor], config: &str, target: &[&str]) -> (Checkpoint, TargetPlan) {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), tensors, 1, Fill::Sparse).unwrap();
    fs::write(dir.path().join("config.json"), config).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let target = target.iter().map(|glob| (*glob).to_owned()).collect();
    let plan = TargetPlan::new(&checkpoint, &Selection { target, skip: Vec::new() }).unwrap();
    (checkpoint, plan)
}

/// Number of targets by the beginning of their names up to the layer, and of skipped projections by reason.
fn decided(plan: &TargetPlan) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let (mut targets, mut skipped) = (BTreeMap::new(), BTreeMap::new());
    for tensor in &plan.tensors {
        match &tensor.action {
            Action::Prune => {
                let begin = tensor.input.name.split(".layers.").next().unwrap().to_owned();
                *targets.entry(begin).or_default() += 1;
            }
            Action::Copy(reason) if reason.is_projection() => {
                *skipped.entry(reason.to_string()).or_default() += 1;
            }
            Action::Copy(_) => {}
        }
    }
    (targets, skipped)
}

const LLAMA: [&str; 4] = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"];

#[test]
fn towers_are_skipped_and_a_target_pattern_takes_them() {
    for language in
        ["model.language_model.layers", "language_model.model.layers", "model.layers", "layers"]
    {
        let mut tensors = matrices(language, 2, &LLAMA);
        tensors.extend(matrices("vision_tower.encoder.layers", 6, &LLAMA));
        tensors.extend(matrices("model.visual.blocks", 3, &["mlp.up_proj", "attn.qkv"]));
        tensors.extend(matrices("model.audio_tower.layers", 6, &["self_attn.k_proj"]));
        tensors.extend(matrices("mtp.layers", 1, &LLAMA));
        tensors.extend(matrices("model.mtp_layers", 1, &["self_attn.q_proj"]));
        let (_, by_default) = plan(&tensors, "{}", &[]);
        let (targets, skipped) = decided(&by_default);
        assert_eq!(targets.values().sum::<u64>(), 8, "{language}: {targets:?}");
        assert!(
            targets.keys().all(|name| language.starts_with(name) || name.starts_with(language))
        );
        let of = |module: &str| skipped[&format!("not of the language model, but of {module}")];
        assert_eq!(of("vision_tower.encoder"), 24);
        assert_eq!(of("model.visual"), 3);
        assert_eq!((of("model.audio_tower"), of("mtp"), of("model.mtp_layers")), (6, 4, 1));
        assert_eq!(by_default.left_alone, None, "{language}");

        let (_, taken) = plan(&tensors, "{}", &["vision_tower.*", "mtp.*"]);
        let labels: Vec<&str> =
            taken.targets().map(|tensor| tensor.projection().projection.as_str()).collect();
        assert_eq!(labels.len(), 28);
        assert!(labels.contains(&"vision_tower.encoder.layers.self_attn.q_proj"), "{labels:?}");
        assert!(labels.contains(&"mtp.layers.self_attn.q_proj"), "{labels:?}");
    }
}

#[test]
fn layers_beyond_the_decoders_are_skipped() {
    let tensors = llama_tensors(Kind::Bf16, 3, [16, 8, 24]);
    for config in [r#"{"num_hidden_layers": 2}"#, r#"{"text_config": {"num_hidden_layers": 2}}"#] {
        let (targets, skipped) = decided(&plan(&tensors, config, &[]).1);
        assert_eq!(targets["model"], 14);
        let (reason, count) = skipped.first_key_value().unwrap();
        assert!(reason.contains("beyond the 2 layers") && *count == 7, "{reason}: {count}");
    }
    for config in [r#"{"num_hidden_layers": 3}"#, r#"{"num_hidden_layers": 0}"#, "{}", "no JSON"] {
        assert_eq!(decided(&plan(&tensors, config, &[]).1).0["model"], 21, "{config}");
    }
    let taken = plan(&tensors, r#"{"num_hidden_layers": 2}"#, &["*.layers.2.mlp.*"]).1;
    assert_eq!(taken.targets().count(), 3);
}

/// The pattern that takes all matrices of the layers, after a check that it does.
fn pattern_of(tensors: &[Tensor], taken: usize) -> LeftAlone {
    let (_, by_default) = plan(tensors, "{}", &[]);
    let left = by_default.left_alone.clone().unwrap();
    let (_, all) = plan(tensors, "{}", &[&left.pattern]);
    assert_eq!(all.targets().count(), taken, "{left:?}");
    assert_eq!(all.target_elements(), left.of_layers);
    assert_eq!(by_default.target_elements(), left.of_layers - left.elements);
    left
}

#[test]
fn what_the_default_leaves_alone_in_other_families_is_counted() {
    let norm = |name: &str| Tensor::new(name, Kind::Bf16, &[8]);
    let attention =
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
    let mut opt = matrices("model.decoder.layers", 2, &attention);
    opt.extend(matrices("model.decoder.layers", 2, &["fc1", "fc2"]));
    opt.push(norm("model.decoder.layers.0.final_layer_norm.weight"));
    opt.push(Tensor::new("model.decoder.embed_tokens.weight", Kind::Bf16, &[16, 8]));
    let left = pattern_of(&opt, 12);
    assert_eq!((left.elements, left.of_layers), (6 * 32, 12 * 32));

    let falcon = ["self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h"];
    let mut falcon = matrices("transformer.h", 2, &falcon);
    falcon.push(norm("transformer.h.0.ln_attn.weight"));
    let left = pattern_of(&falcon, 6);
    assert_eq!(left.elements, left.of_layers);

    let gpt2 = matrices("h", 2, &["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]);
    assert_eq!(
        pattern_of(&gpt2, 8).pattern,
        "h.*.{attn.c_attn,attn.c_proj,mlp.c_fc,mlp.c_proj}.weight"
    );
    let (checkpoint, by_default) = plan(&gpt2, "{}", &[]);
    let error = by_default.require_targets(&checkpoint).unwrap_err().to_string();
    assert!(error.contains("--target 'h.*.{attn.c_attn,"), "{error}");
}

#[test]
fn routers_are_not_counted_and_experts_are_one_pattern() {
    let mut moe = matrices("model.layers", 2, &LLAMA);
    moe.extend(matrices("model.layers", 2, &["mlp.gate", "mlp.shared_expert_gate"]));
    assert_eq!(plan(&moe, "{}", &[]).1.left_alone, None);
    moe.extend(matrices("model.layers", 2, &["mlp.experts.0.w1x", "mlp.experts.1.w1x"]));
    let left = pattern_of(&moe, 12);
    assert!(left.pattern.contains("mlp.experts.*.w1x"), "{left:?}");
}
