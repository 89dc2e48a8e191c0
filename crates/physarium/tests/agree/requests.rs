//! A recipe that was edited after the run does not fit the weights, even if all records agree with each other.

use std::fs;
use std::path::{Path, PathBuf};

use physarium::checkpoint::{Method, Scope};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};
use serde_json::{Value, json};

use super::forged::{forge_journal, forge_manifest};
use super::{Work, audit_of, copy_files, exact, findings, pattern, prune, tensors};

const NO_MATCH: &str = "zeros do not match the recipe";
const IDENTITIES: [&str; 2] = [
    "targets with the zeros that the recipe requests = targets",
    "all targets have the zeros that the recipe requests",
];

/// Sets the recipe's method in journal and manifest.
fn set_method(out: &Path, method: &Value) {
    forge_journal(out, |records| records[0]["recipe"]["method"] = method.clone());
    forge_manifest(out, |manifest| manifest["recipe"]["method"] = method.clone());
}

/// Asserts that `verify` and `audit` say that the zeros are not what this recipe requests, and say nothing else.
fn is_found(work: &Work, sides: [&Path; 2], method: &Value) -> String {
    let [model, clean] = sides;
    let out = work.path("forged");
    copy_files(clean, &out);
    set_method(&out, method);
    let found = findings(model, &out);
    assert!(!found.is_empty(), "{method}");
    assert!(found.iter().all(|finding| finding.contains(NO_MATCH)), "{method}: {found:?}");
    for against in [Some(model), None] {
        let audit = audit_of(&out, against);
        let failed: Vec<_> = audit.identities.iter().filter(|i| !i.holds).collect();
        assert_eq!(failed.len(), 1, "{method}: {failed:?}");
        assert!(IDENTITIES.contains(&failed[0].says.as_str()), "{failed:?}");
    }
    fs::remove_dir_all(out).unwrap();
    found[0].clone()
}

fn pruned(work: &Work, name: &str, method: Method) -> [PathBuf; 2] {
    let model = work.path("model");
    if !model.exists() {
        work.model("model", &tensors(), 2);
    }
    let out = work.path(&format!("by-{name}"));
    prune(&model, &out, method, 2);
    assert_eq!(findings(&model, &out), [""; 0], "{name}");
    assert!(audit_of(&out, Some(&model)).denominator_correct, "{name}");
    [model, out]
}

#[test]
fn an_edited_recipe_is_found_by_the_number_of_zeros() {
    let work = Work::in_memory();
    let magnitude = |sparsity: f64, scope: &str| json!({"name": "magnitude", "sparsity": sparsity, "scope": scope});
    let tile = |sparsity: f64| json!({"name": "magnitude", "sparsity": sparsity, "scope": "tile", "block_size": 24});
    let pattern_of = |text: &str| json!({"name": "magnitude-pattern", "pattern": text});

    let sides = pruned(&work, "tile", exact("0.3", Scope::Tile { block_size: 24 }));
    let sides = [sides[0].as_path(), &sides[1]];
    let found = is_found(&work, sides, &tile(0.5));
    assert!(found.contains("tile 0, 0 (") && found.contains(" differ): expected "), "{found}");
    is_found(&work, sides, &tile(0.31));

    let sides = pruned(&work, "tensor", exact("0.3", Scope::Tensor));
    let sides = [sides[0].as_path(), &sides[1]];
    is_found(&work, sides, &magnitude(0.5, "tensor"));
    is_found(&work, sides, &magnitude(0.29, "tensor"));

    let sides = pruned(&work, "model", exact("0.3", Scope::Model));
    let sides = [sides[0].as_path(), &sides[1]];
    let found = is_found(&work, sides, &magnitude(0.301, "model"));
    assert!(found.contains("all targets: expected "), "{found}");

    let sides = pruned(&work, "pattern", pattern("3:4"));
    let sides = [sides[0].as_path(), &sides[1]];
    let found = is_found(&work, sides, &pattern_of("2:4"));
    assert!(found.contains("group 0, 0 (") && found.contains("expected 2 zeros of 4"), "{found}");
}

#[test]
fn a_pattern_is_verified_group_by_group() {
    // As many zeros as 2:4 has, but not two in each group.
    let work = Work::in_memory();
    let model = work.path("model");
    let tensor = Tensor::new("model.layers.0.mlp.up_proj.weight", Kind::F32, &[24, 32]);
    write_checkpoint(&model, &[tensor], 1, Fill::Gaussian(9)).unwrap();
    let out = work.path("out");
    prune(&model, &out, exact("0.5", Scope::Tensor), 1);
    assert_eq!(findings(&model, &out), [""; 0]);
    set_method(&out, &json!({"name": "magnitude-pattern", "pattern": "2:4"}));
    let found = findings(&model, &out);
    assert!(found.len() == 1 && found[0].contains("group "), "{found:?}");
}

/// A model with more zeros in some places than are requested there: the request is met by what was there before.
#[test]
fn zeros_that_were_there_before_count() {
    let work = Work::in_memory();
    let model = work.model("model", &tensors(), 2);
    let first = work.path("first");
    prune(&model, &first, exact("0.6", Scope::Tile { block_size: 16 }), 2);
    let methods = [
        exact("0.3", Scope::Tile { block_size: 24 }),
        exact("0.5", Scope::Tensor),
        exact("0.4", Scope::Model),
        exact("0.7", Scope::Model),
        pattern("3:4"),
        pattern("2:4"),
    ];
    for (index, method) in methods.into_iter().enumerate() {
        let out = work.path(&format!("again-{index}"));
        prune(&first, &out, method, 2);
        assert_eq!(findings(&first, &out), [""; 0], "{index}");
        let audit = audit_of(&out, Some(&first));
        assert!(audit.denominator_correct, "{index}: {:#?}", audit.identities);
    }
}
