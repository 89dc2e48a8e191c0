//! Checkpoints with other tensor names than `model.layers.…`.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::{Path, PathBuf};

use physarium_model::{Compute, Decoder, Generation, Residency};
use serde_json::{Map, Value};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A copy of a golden model with renamed tensors.
fn renamed(name: &str, rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let (from, dir) = (golden(name), tempfile::tempdir().unwrap());
    std::fs::copy(from.join("config.json"), dir.path().join("config.json")).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    let header: Map<String, Value> =
        header.into_iter().map(|(name, entry)| (rename(&name), entry)).collect();
    let header = serde_json::to_vec(&header).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, data].concat();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

/// Logits after the first tokens.
fn logits(dir: &Path) -> Vec<f32> {
    let decoder = Decoder::open(dir, Residency::Streamed).unwrap();
    decoder.dtype().unwrap();
    let compute = Compute::new(1).unwrap();
    let mut generation = Generation::new(&compute, &decoder, 8).unwrap();
    generation.feed(&[1, 5, 3, 60, 2, 7, 11, 4]).unwrap().to_vec()
}

#[test]
fn logits_do_not_depend_on_the_prefix_of_names() {
    for name in ["llama", "qwen3"] {
        let expected = logits(&golden(name));
        for prefix in ["", "model.language_model."] {
            let rename = |name: &str| match name.strip_prefix("model.") {
                Some(inside) => format!("{prefix}{inside}"),
                None => name.to_owned(),
            };
            let copy = renamed(name, rename);
            assert!(expected == logits(copy.path()), "{name} with {prefix:?}");
        }
    }
}

#[test]
fn a_missing_tensor_is_named_as_the_checkpoint_would_spell_it() {
    let copy = renamed("llama", |name| {
        name.replacen("model.", "", 1).replace("layers.1.mlp.up_proj", "layers.1.mlp.other")
    });
    let says = Decoder::open(copy.path(), Residency::Streamed).map(|_| ()).unwrap_err().to_string();
    assert!(says.contains("tensor layers.1.mlp.up_proj.weight"), "{says}");
}
