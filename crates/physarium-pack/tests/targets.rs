//! Which tensors are packed without their zeros: the default projections and the targets of the recipe.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::Path;

use physarium_checkpoint::journal::Totals;
use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{
    Amount, Checkpoint, Criterion, LinkPolicy, Method, NonFinite, Overwrite, Recipe, Scope,
};
use physarium_fixtures::{Fill, Kind, llama_tensors, write_checkpoint};
use physarium_pack::{Form, PackRequest, PackSummary, Packed, pack};

/// Packs a model of one layer and returns the names of the tensors that are not stored dense.
fn packed(manifest: Option<&str>, fill: Fill) -> (PackSummary, Vec<String>) {
    let work = tempfile::tempdir().unwrap();
    let (dir, out) = (work.path().join("model"), work.path().join("model.physpack"));
    write_checkpoint(&dir, &llama_tensors(Kind::Bf16, 1, [32, 16, 48]), 1, fill).unwrap();
    if let Some(text) = manifest {
        fs::write(dir.join(manifest::FILE_NAME), text).unwrap();
    }
    let summary = pack_directory(&dir, &out);
    let packed = Packed::open(&out).unwrap();
    let without_zeros = packed.tensors().filter(|tensor| tensor.form != Form::Dense);
    (summary, without_zeros.map(|tensor| tensor.name.clone()).collect())
}

fn pack_directory(dir: &Path, out: &Path) -> PackSummary {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let request = PackRequest {
        checkpoint: &checkpoint,
        out,
        overwrite: Overwrite::Refuse,
        links: LinkPolicy::LeaveOut,
        tool: "test",
    };
    pack(&request, &mut |_| Ok(())).unwrap()
}

/// The manifest of a run with these globs.
fn manifest_of(target: &str, skip: &[&str]) -> String {
    let amount = Amount::Sparsity { sparsity: "0.5".parse().unwrap(), scope: Scope::Tensor };
    let manifest = Manifest {
        schema: manifest::SCHEMA.to_owned(),
        tool: "test".to_owned(),
        recipe: Recipe {
            method: Method::new(Criterion::Magnitude, amount).unwrap(),
            target: vec![target.to_owned()],
            skip: skip.iter().map(|glob| (*glob).to_owned()).collect(),
            non_finite: NonFinite::Refuse,
            arithmetic: None,
        },
        source: None,
        totals: Totals::default(),
        shards: Vec::new(),
        files: Vec::new(),
        rewritten: Vec::new(),
        left_out: Vec::new(),
        tensors: Vec::new(),
        check: String::new(),
    };
    manifest.encode()
}

#[test]
fn default_projections_are_packed_without_a_manifest() {
    let (summary, names) = packed(None, Fill::Sparse);
    assert_eq!((summary.masked.tensors, names.len()), (7, 7));
    assert!(names.iter().all(|name| name.contains("_proj.")), "{names:?}");
}

#[test]
fn targets_of_the_recipe_are_packed_too() {
    let (summary, names) = packed(Some(&manifest_of("*embed*", &["*.layers.*"])), Fill::Sparse);
    assert_eq!((summary.masked.tensors, names.len()), (8, 8));
    assert!(names.contains(&"model.embed_tokens.weight".to_owned()), "{names:?}");
}

#[test]
fn an_invalid_manifest_has_no_recipe() {
    let changed = manifest_of("*embed*", &[]).replace("\"test\"", "\"other\"");
    for text in ["", "{}", &changed] {
        let (_, names) = packed(Some(text), Fill::Sparse);
        assert!(!names.contains(&"model.embed_tokens.weight".to_owned()), "{text}");
        assert_eq!(names.len(), 7);
    }
}

#[test]
fn targets_that_remain_dense_are_counted() {
    let (summary, names) = packed(Some(&manifest_of("*embed*", &[])), Fill::Gaussian(1));
    assert!(names.is_empty(), "{names:?}");
    let sizes = summary.dense_projections;
    assert_eq!((sizes.tensors, sizes.dense), (8, sizes.packed));
}
