//! The decision for every tensor, and what happens to the files beside the weights.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use physarium_checkpoint::{
    Checkpoint, Decision, Disposition, Error, LinkPolicy, Selection, Sidecar, SkipReason,
    TargetPlan,
};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};

fn checkpoint(dir: &Path, tensors: &[Tensor]) -> Checkpoint {
    write_checkpoint(dir, tensors, 1, Fill::Sparse).unwrap();
    Checkpoint::open(dir).unwrap()
}

/// One tensor of every fate.
fn tensors() -> Vec<Tensor> {
    let matrix = |name: &str, kind| Tensor::new(name, kind, &[4, 8]);
    vec![
        matrix("model.layers.0.self_attn.q_proj.weight", Kind::Bf16),
        matrix("model.layers.0.self_attn.qkv_proj.weight", Kind::F16),
        matrix("model.layers.0.mlp.gate_up_proj.weight", Kind::F32),
        matrix("model.layers.0.mlp.experts.3.down_proj.weight", Kind::Bf16),
        matrix("model.layers.0.block_sparse_moe.experts.3.w2.weight", Kind::Bf16),
        matrix("model.layers.1.mlp.up_proj.weight", Kind::Bytes("F8_E4M3")),
        matrix("model.layers.1.mlp.gate_proj.weight", Kind::Bytes("I8")),
        Tensor::new("model.layers.1.mlp.experts.gate_up_proj", Kind::Bf16, &[2, 4, 8]),
        Tensor::new("model.layers.1.mlp.down_proj.weight", Kind::Bf16, &[0, 8]),
        Tensor::new("model.layers.1.self_attn.q_proj.bias", Kind::Bf16, &[4]),
        matrix("model.embed_tokens.weight", Kind::Bf16),
    ]
}

fn decisions(plan: &TargetPlan) -> Vec<String> {
    let one = |tensor: &physarium_checkpoint::PlannedTensor| match &tensor.decision {
        Decision::Target(shape) => format!("{} x {}", shape.rows, shape.cols),
        Decision::Skip(reason) => reason.to_string(),
    };
    plan.tensors.iter().map(one).collect()
}

#[test]
fn every_tensor_is_a_target_or_skipped_for_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(dir.path(), &tensors());
    let plan = TargetPlan::new(&checkpoint, &Selection::default()).unwrap();
    let expected = [
        "4 x 8",
        "4 x 8",
        "4 x 8",
        "4 x 8",
        "4 x 8",
        "dtype F8_E4M3 cannot be pruned",
        "dtype I8 cannot be pruned",
        "3-D, expected 2-D",
        "no elements",
        "not a target projection",
        "not a target projection",
    ];
    // Empty tensors come before others at the same offset; compare by name.
    let mut by_name: Vec<(String, String)> =
        plan.tensors.iter().map(|t| t.info.name.clone()).zip(decisions(&plan)).collect();
    by_name.sort();
    let names = tensors().into_iter().map(|t| t.name);
    let mut wanted: Vec<(String, String)> = names.zip(expected.map(str::to_owned)).collect();
    wanted.sort();
    assert_eq!(by_name, wanted);
    assert_eq!(plan.target_elements(), 5 * 32);
    let strict = plan.refuse_skipped_projections(checkpoint.shards()).unwrap_err();
    assert!(matches!(strict, Error::Strict { .. }), "{strict}");
}

#[test]
fn globs_choose_and_spare() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(dir.path(), &tensors());
    let plan = |target: &[&str], skip: &[&str]| {
        let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        TargetPlan::new(&checkpoint, &Selection { target: own(target), skip: own(skip) })
    };
    let targets = |plan: TargetPlan| {
        plan.targets().map(|(tensor, _)| tensor.info.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(targets(plan(&["*embed*"], &[]).unwrap()), ["model.embed_tokens.weight"]);
    let spared = plan(&[], &["*.layers.0.*"]).unwrap();
    let reason = SkipReason::SkipPattern("*.layers.0.*".to_owned());
    assert_eq!(
        spared.tensors.iter().filter(|t| t.decision == Decision::Skip(reason.clone())).count(),
        5
    );
    let error = spared.require_targets(&checkpoint).unwrap_err().to_string();
    assert!(error.contains("nothing to prune: all 3 projections"), "{error}");
    for (target, skip) in [(&["*lm_head*"][..], &[][..]), (&[], &["x*"]), (&["*q_proj*", "y"], &[])]
    {
        let error = plan(target, skip).unwrap_err();
        assert!(matches!(error, Error::PatternMatchesNothing { .. }), "{error}");
    }
    assert!(matches!(plan(&["["], &[]).unwrap_err(), Error::Pattern { .. }));
}

#[test]
fn packed_weights_are_nothing_to_prune() {
    let dir = tempfile::tempdir().unwrap();
    let packed = Tensor::new("model.layers.0.mlp.up_proj.qweight", Kind::Bytes("I8"), &[4, 4]);
    let checkpoint = checkpoint(dir.path(), &[packed]);
    let plan = TargetPlan::new(&checkpoint, &Selection::default()).unwrap();
    let error = plan.require_targets(&checkpoint).unwrap_err().to_string();
    assert!(error.contains("1 projections are packed integers"), "{error}");
}

#[test]
fn files_beside_the_weights() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let checkpoint = checkpoint(dir.path(), &tensors());
    for name in ["tokenizer.json", "modeling.py", ".gitattributes", "LICENSE"] {
        fs::write(at(name), "x").unwrap();
    }
    for name in [
        "pytorch_model.bin",
        "model.GGUF",
        "stray.safetensors",
        "physarium.journal.jsonl",
        "consolidated.00.pth",
    ] {
        fs::write(at(name), "x").unwrap();
    }
    fs::create_dir_all(at("1_Pooling")).unwrap();
    fs::write(at("1_Pooling/config.json"), "{}").unwrap();
    fs::create_dir(at(".git")).unwrap();
    fs::write(at(".git/HEAD"), "x").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    symlink("tokenizer.json", at("inner")).unwrap();
    symlink(outside.path().join("secret"), at("outer")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink(outside.path(), at("directory")).unwrap();

    let copied = |links| {
        let all = Sidecar::list(&checkpoint, links).unwrap();
        let copied = all.iter().filter(|sidecar| sidecar.disposition == Disposition::Copy);
        let names: Vec<String> = copied.map(|s| s.path.to_string_lossy().into_owned()).collect();
        (names, all.len())
    };
    let (names, all) = copied(LinkPolicy::LeaveOut);
    let expected = [
        ".gitattributes",
        "1_Pooling/config.json",
        "LICENSE",
        "config.json",
        "inner",
        "modeling.py",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    // Nothing is lost silently: the rest is listed with why.
    assert_eq!(all, expected.len() + 10);
    assert_eq!(copied(LinkPolicy::Follow).0.len(), expected.len() + 1);
}
