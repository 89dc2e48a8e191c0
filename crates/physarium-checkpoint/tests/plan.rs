//! The decision for every tensor: pruned, or skipped for a reason.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::Path;

use physarium_checkpoint::{
    Action, Checkpoint, Error, ErrorKind, Orientation, PlannedTensor, Selection, SkipReason,
    TargetNames, TargetPlan,
};
use physarium_fixtures::{Fill, Kind, Tensor, llama_tensors, write_checkpoint};

/// A checkpoint of these tensors, in a directory that is removed when it is dropped.
fn checkpoint(tensors: &[Tensor]) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), tensors, 1);
    (dir, opened)
}

fn open(dir: &Path, tensors: &[Tensor], shards: usize) -> Checkpoint {
    write_checkpoint(dir, tensors, shards, Fill::Sparse).unwrap();
    Checkpoint::open(dir).unwrap()
}

fn matrix(name: &str, kind: Kind) -> Tensor {
    Tensor::new(name, kind, &[4, 8])
}

/// Tensors with the decision for each, at least one of every kind.
fn decisions() -> Vec<(Tensor, &'static str)> {
    vec![
        (matrix("model.layers.0.self_attn.q_proj.weight", Kind::Bf16), "4 x 8"),
        (matrix("model.layers.0.self_attn.qkv_proj.weight", Kind::F16), "4 x 8"),
        (matrix("model.layers.0.mlp.gate_up_proj.weight", Kind::F32), "2 x 8, 2 x 8"),
        (matrix("model.layers.0.mlp.experts.3.down_proj.weight", Kind::Bf16), "4 x 8"),
        (matrix("model.layers.0.block_sparse_moe.experts.3.w2.weight", Kind::Bf16), "4 x 8"),
        (Tensor::new("model.layers.1.self_attn.o_proj.weight", Kind::Bf16, &[1, 1]), "1 x 1"),
        (
            matrix("model.layers.1.mlp.up_proj.weight", Kind::Bytes("F8_E4M3")),
            "dtype F8_E4M3 cannot be pruned",
        ),
        (
            matrix("model.layers.1.mlp.gate_proj.weight", Kind::Bytes("I8")),
            "dtype I8 cannot be pruned",
        ),
        (
            Tensor::new("model.layers.1.mlp.experts.gate_up_proj", Kind::Bf16, &[2, 4, 8]),
            "2 x 8, 2 x 8, 2 x 8, 2 x 8",
        ),
        (
            Tensor::new("model.layers.1.self_attn.v_proj.weight", Kind::Bf16, &[2, 4, 8]),
            "3-D, expected 2-D",
        ),
        (
            Tensor::new("model.layers.1.self_attn.k_proj.weight", Kind::Bf16, &[]),
            "0-D, expected 2-D",
        ),
        (Tensor::new("model.layers.1.mlp.down_proj.weight", Kind::Bf16, &[0, 8]), "no elements"),
        (
            Tensor::new("model.layers.1.self_attn.q_proj.bias", Kind::Bf16, &[4]),
            "not a target projection",
        ),
        (matrix("model.layers.0.mlp.w2.weight", Kind::Bf16), "not a target projection"),
        (matrix("model.embed_tokens.weight", Kind::Bf16), "not a target projection"),
        (matrix("lm_head.weight", Kind::Bf16), "not a target projection"),
    ]
}

fn tensors() -> Vec<Tensor> {
    decisions().into_iter().map(|(tensor, _)| tensor).collect()
}

fn decision(tensor: &PlannedTensor) -> String {
    match &tensor.action {
        Action::Prune => {
            let views = tensor.views.iter().map(|view| format!("{} x {}", view.rows, view.cols));
            views.collect::<Vec<_>>().join(", ")
        }
        Action::Copy(reason) => reason.to_string(),
    }
}

fn own(globs: &[&str]) -> Vec<String> {
    globs.iter().map(|glob| (*glob).to_owned()).collect()
}

fn plan(checkpoint: &Checkpoint, target: &[&str], skip: &[&str]) -> Result<TargetPlan, Error> {
    TargetPlan::new(checkpoint, &Selection { target: own(target), skip: own(skip) })
}

fn targets(plan: &TargetPlan) -> Vec<&str> {
    plan.targets().map(|tensor| tensor.input.name.as_str()).collect()
}

#[test]
fn every_tensor_is_a_target_or_skipped_for_a_reason() {
    let (_dir, checkpoint) = checkpoint(&tensors());
    let plan = plan(&checkpoint, &[], &[]).unwrap();
    let mut decided: Vec<(String, String)> =
        plan.tensors.iter().map(|t| (t.input.name.clone(), decision(t))).collect();
    decided.sort();
    let mut wanted: Vec<(String, String)> = decisions()
        .into_iter()
        .map(|(tensor, expected)| (tensor.name, expected.to_owned()))
        .collect();
    wanted.sort();
    assert_eq!(decided, wanted);
    assert_eq!(plan.target_elements(), 5 * 32 + 1 + 64);
    assert_eq!(plan.model_elements(), tensors().iter().map(Tensor::elements).sum::<u64>());
    plan.require_targets(&checkpoint).unwrap();
}

#[test]
fn a_llama_has_seven_targets_a_layer_and_the_plan_is_in_file_order() {
    let tensors = llama_tensors(Kind::Bf16, 3, [16, 8, 32]);
    for shards in [1, 4] {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = open(dir.path(), &tensors, shards);
        let plan = plan(&checkpoint, &[], &[]).unwrap();
        assert_eq!(plan.targets().count(), 3 * 7);
        let planned = plan.tensors.iter().map(|tensor| (tensor.shard, &tensor.input));
        let in_file = checkpoint.shards().iter().enumerate();
        assert!(
            planned.eq(in_file.flat_map(|(i, shard)| shard.tensors.iter().map(move |t| (i, t))))
        );
        assert_eq!(plan.matrices().count(), 3 * 7);
        for (tensor, view) in plan.matrices() {
            let site = &tensor.projection().site;
            assert_eq!(tensor.input.shape, [view.rows, view.cols]);
            assert_eq!((&view.site, view.begin, view.orientation), (site, 0, Orientation::OutIn));
            assert!(site.layer.is_some_and(|layer| layer < 3), "{site:?}");
        }
        plan.refuse_skipped_projections(checkpoint.shards()).unwrap();
    }
}

#[test]
fn strict_refuses_a_target_by_name_that_cannot_be_pruned() {
    for (name, kind, shape, reason) in [
        ("model.layers.0.mlp.up_proj.weight", Kind::Bytes("F8_E4M3"), &[4, 8][..], "F8_E4M3"),
        ("model.layers.0.mlp.up_proj.weight", Kind::Bf16, &[2, 4, 8], "3-D, expected 2-D"),
    ] {
        let good = matrix("model.layers.0.mlp.down_proj.weight", Kind::Bf16);
        let (_dir, checkpoint) = checkpoint(&[good, Tensor::new(name, kind, shape)]);
        let refuse = |skip: &[&str]| {
            plan(&checkpoint, &[], skip).unwrap().refuse_skipped_projections(checkpoint.shards())
        };
        let error = refuse(&[]).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        for needle in ["model.safetensors", name, reason, "--strict"] {
            assert!(text.contains(needle), "no {needle:?} in: {text}");
        }
        // A tensor that the user skips is no error.
        refuse(&[name]).unwrap();
    }
}

#[test]
fn globs_select_and_skip() {
    let (_dir, checkpoint) = checkpoint(&tensors());
    let selected =
        |target: &[&str], skip: &[&str]| own(&targets(&plan(&checkpoint, target, skip).unwrap()));
    assert_eq!(selected(&["*embed*"], &[]), ["model.embed_tokens.weight"]);
    // --target replaces the default projections, and may be repeated.
    assert_eq!(selected(&["lm_head.*", "*embed*"], &[]).len(), 2);
    assert_eq!(selected(&["*.layers.0.*"], &["*.mlp.*"]).len(), 3);
    assert_eq!(selected(&["*.experts.{3,4}.*"], &["*w[0-9]*"]).len(), 1);
    // A tensor that cannot be pruned is no target, even if a pattern matches it.
    assert!(selected(&["*.up_proj.weight"], &[]).is_empty());

    let plan = plan(&checkpoint, &[], &["*.layers.0.*", "*q_proj*"]).unwrap();
    let first = Action::Copy(SkipReason::SkipPattern("*.layers.0.*".to_owned()));
    assert_eq!(plan.tensors.iter().filter(|tensor| tensor.action == first).count(), 5);
    // The text is the reason in a journal.
    let reason = SkipReason::SkipPattern("*.\u{1b}[31m*".to_owned()).to_string();
    assert_eq!(reason, "taken out by --skip *.\\u{1b}[31m*");
    let mut remaining = targets(&plan);
    remaining.sort_unstable();
    let expected =
        ["model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.self_attn.o_proj.weight"];
    assert_eq!(remaining, expected);
}

#[test]
fn patterns_that_match_nothing_or_are_malformed_are_usage_errors() {
    let (dir, checkpoint) = checkpoint(&tensors());
    for (target, skip, option, pattern) in [
        (&["*layers.7.*"][..], &[][..], "--target", "*layers.7.*"),
        (&["*q_proj*", "y"], &[], "--target", "y"),
        (&[], &["x*"], "--skip", "x*"),
        (&["*q_proj*"], &["*Q_PROJ*"], "--skip", "*Q_PROJ*"),
    ] {
        let error = plan(&checkpoint, target, skip).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::PatternMatchesNothing { .. }), "{text}");
        assert_eq!(error.kind(), ErrorKind::Usage);
        let there = dir.path().to_string_lossy();
        for needle in [option, pattern, "matches no tensor", "one of the 16", &there] {
            assert!(text.contains(needle), "no {needle:?} in: {text}");
        }
    }
    for (target, skip, option) in [(&["["][..], &[][..], "--target"), (&[], &["{a"], "--skip")] {
        let error = plan(&checkpoint, target, skip).unwrap_err();
        assert!(matches!(error, Error::Pattern { .. }), "{error}");
        assert!(error.to_string().starts_with(option), "{error}");
    }
}

/// Why nothing can be pruned in a checkpoint of these tensors.
fn nothing_to_prune(tensors: &[Tensor], skip: &[&str]) -> String {
    let (dir, checkpoint) = checkpoint(tensors);
    let plan = plan(&checkpoint, &[], skip).unwrap();
    assert_eq!(plan.tensors.len(), tensors.len());
    let error = plan.require_targets(&checkpoint).unwrap_err();
    assert!(matches!(error, Error::NothingToPrune { .. }));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    let why = text.strip_prefix(&format!("{}: nothing to prune: ", dir.path().display()));
    why.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn nothing_to_prune_is_an_error_with_the_reasons() {
    let fp8 = llama_tensors(Kind::Bytes("F8_E4M3"), 2, [16, 8, 32]);
    let all = "all 14 projections are skipped: dtype F8_E4M3 cannot be pruned";
    assert_eq!(nothing_to_prune(&fp8, &[]), all);
    let doubles: Vec<Tensor> = (0..2)
        .map(|i| {
            let name = format!("model.layers.{i}.mlp.up_proj.weight");
            Tensor::new(name, Kind::Bytes(["I8", "U8"][i]), &[4, 8])
        })
        .collect();
    let both =
        "all 2 projections are skipped: dtype I8 cannot be pruned; dtype U8 cannot be pruned";
    assert_eq!(nothing_to_prune(&doubles, &[]), both);
    let stacked = Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bf16, &[2, 4, 8]);
    assert_eq!(
        nothing_to_prune(&[stacked], &[]),
        "all 1 projections are skipped: 3-D, expected 2-D"
    );
    let packed = Tensor::new("model.layers.0.mlp.up_proj.qweight", Kind::Bytes("I8"), &[4, 4]);
    let said = "1 projection is stored as GPTQ or AWQ (packed integers) \
                (model.layers.0.mlp.up_proj.qweight, …)\nhint: decompress or dequantise the model \
                first: plain BF16, F16 or F32 weights are needed";
    assert_eq!(nothing_to_prune(&[packed], &[]), said);
    let other = [matrix("a", Kind::Bf16), matrix("b", Kind::Bf16)];
    assert_eq!(nothing_to_prune(&other, &[]), "none of the 2 tensors is a target by its name");
    assert_eq!(nothing_to_prune(&[], &[]), "none of the 0 tensors is a target by its name");
}

#[test]
fn tensors_that_the_index_does_not_list_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), &llama_tensors(Kind::Bf16, 1, [16, 8, 32]), 2);
    let index = dir.path().join("model.safetensors.index.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let name = "model.layers.0.self_attn.v_proj.weight";
    json["weight_map"].as_object_mut().unwrap().remove(name).unwrap();
    fs::write(&index, json.to_string()).unwrap();

    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let plan = plan(&checkpoint, &[], &[]).unwrap();
    let unlisted = plan.tensors.iter().find(|tensor| tensor.input.name == name).unwrap();
    assert_eq!(unlisted.action, Action::Copy(SkipReason::NotInIndex));
    assert_eq!(plan.targets().count(), 6);
    let strict = plan.refuse_skipped_projections(checkpoint.shards()).unwrap_err();
    assert!(strict.to_string().contains("not listed in the index"), "{strict}");
}

#[test]
fn transposed_tensors_are_found_only_if_they_are_targets() {
    let gpt2 = [
        Tensor::new("h.0.attn.c_attn.weight", Kind::F32, &[8, 24]),
        Tensor::new("h.0.attn.c_attn.bias", Kind::F32, &[24]),
    ];
    let (_dir, checkpoint) = checkpoint(&gpt2);
    let by_default = plan(&checkpoint, &[], &[]).unwrap();
    assert!(by_default.first_not_by_rows().is_none());
    assert!(by_default.require_targets(&checkpoint).is_err());
    let named = plan(&checkpoint, &["*.weight"], &[]).unwrap();
    let (found, orientation) = named.first_not_by_rows().unwrap();
    assert_eq!(found.input.name, "h.0.attn.c_attn.weight");
    assert_eq!(orientation, Orientation::InOut);
    assert_eq!(found.projection().site.layer, Some(0));
}

#[test]
fn the_orientation_of_stacked_experts_follows_from_shape_or_config() {
    let name = "model.layers.0.mlp.experts.gate_up_proj";
    let orientation = |config: &str, shape: &[u64]| {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), &[Tensor::new(name, Kind::Bf16, shape)], 1, Fill::Sparse)
            .unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        let plan = plan(&Checkpoint::open(dir.path()).unwrap(), &[], &[]).unwrap();
        plan.tensors[0].views[0].orientation
    };
    let qwen = r#"{"model_type": "qwen3_moe", "hidden_size": 8}"#;
    assert_eq!(orientation(qwen, &[2, 4, 8]), Orientation::OutIn);
    assert_eq!(orientation(qwen, &[2, 8, 4]), Orientation::InOut);
    let vision = r#"{"model_type": "x", "text_config": {"model_type": "llama4_text"}}"#;
    assert_eq!(orientation(vision, &[2, 8, 4]), Orientation::InOut);
    assert_eq!(orientation("not JSON", &[2, 8, 4]), Orientation::Unknown);
}

#[test]
fn the_error_of_a_pattern_is_escaped() {
    for bad in ["a\u{7f}\u{1b}[1m{", "[\u{9b}-\u{1b}]", "}\r\n\u{202e}"] {
        let selection = Selection { target: vec![bad.to_owned()], skip: vec![] };
        let error = TargetNames::new(&selection).unwrap_err().to_string();
        assert!(error.contains("not a valid pattern"), "{error}");
        assert!(!error.chars().any(|c| c.is_control() || c == '\u{202e}'), "{error:?}");
    }
}
