//! Every kind of tampering with an output is found, and the finding names it.

use std::fs;
use std::path::{Path, PathBuf};

use physarium::checkpoint::Checkpoint;
use physarium::checkpoint::manifest::Manifest;
use physarium_fixtures::with_length;
use serde_json::{Value, json};

use super::{
    JOURNAL, MANIFEST, Work, copy_files, default_method, findings, methods, prune, tensors,
};

/// An output to tamper with, in a copy for each change.
struct Tampering {
    work: Work,
    model: PathBuf,
    clean: PathBuf,
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

impl Tampering {
    fn new() -> Tampering {
        let work = Work::new();
        let (model, clean) = (work.model("model", &tensors(), 2), work.path("clean"));
        prune(&model, &clean, default_method(), 2);
        Tampering { work, model, clean }
    }

    /// Asserts that a finding about the changed copy contains `needle`.
    fn is_found(&self, what: &str, change: impl FnOnce(&Path), needle: &str) {
        let out = self.work.path(what);
        copy_files(&self.clean, &out);
        change(&out);
        let found = findings(&self.model, &out);
        assert!(found.iter().any(|f| f.contains(needle)), "{what}: no {needle:?} in {found:?}");
    }
}

/// Removes a file of an output.
fn remove(name: &'static str) -> impl FnOnce(&Path) {
    move |out| fs::remove_file(out.join(name)).unwrap()
}

#[test]
fn missing_and_additional_files_are_named() {
    let tampering = Tampering::new();
    tampering.is_found("drop", remove("config.json"), "config.json: file is missing");
    tampering.is_found("drop-shard", remove(FIRST), "file is missing");
    tampering.is_found("no-journal", remove(JOURNAL), "physarium.journal.jsonl: file is missing");
    tampering.is_found("no-manifest", remove(MANIFEST), "physarium.manifest.json: file is missing");
    let add = |out: &Path| fs::write(out.join("x.py"), "x").unwrap();
    tampering.is_found("add", add, "x.py: file is in the output and not");
}

#[test]
fn changed_files_are_named() {
    let tampering = Tampering::new();
    let sidecar =
        |text: &'static str| move |out: &Path| fs::write(out.join("config.json"), text).unwrap();
    tampering.is_found("shorter", sidecar("{}"), "config.json: expected 24 bytes, found 2");
    tampering.is_found("sidecar", sidecar("{ model_type\": \"llama\"}\n"), "first at byte 1");
    let resize = |grow: i64| {
        move |out: &Path| {
            let file = fs::OpenOptions::new().write(true).open(out.join(SECOND)).unwrap();
            file.set_len((file.metadata().unwrap().len() as i64 + grow) as u64).unwrap();
        }
    };
    tampering.is_found("truncate", resize(-1), "model-00002-of-00002.safetensors: expected");
    tampering.is_found("extend", resize(1), "model-00002-of-00002.safetensors: expected");
    let swap = |out: &Path| {
        fs::rename(out.join(FIRST), out.join("t")).unwrap();
        fs::rename(out.join(SECOND), out.join(FIRST)).unwrap();
        fs::rename(out.join("t"), out.join(SECOND)).unwrap();
    };
    tampering.is_found("swap", swap, "model-00001-of-00002.safetensors");
    let weight = |out: &Path| {
        let checkpoint = Checkpoint::open(out).unwrap();
        let (shard, tensor) = checkpoint
            .tensors()
            .find(|(_, t)| t.name == "model.layers.0.self_attn.q_proj.weight")
            .unwrap();
        let mut bytes = fs::read(&shard.path).unwrap();
        let at = tensor.begin as usize + 2 * 77;
        bytes[at..at + 2].copy_from_slice(&[0x34, 0x12]);
        fs::write(&shard.path, bytes).unwrap();
    };
    let needle = "tensor model.layers.0.self_attn.q_proj.weight: weight 77 is neither";
    tampering.is_found("weight", weight, needle);
    tampering.is_found("no-norm", |out| drop_tensor(out, "model.norm.weight"), "bytes, found");
}

#[test]
fn records_and_shards_of_another_run_are_named() {
    let tampering = Tampering::new();
    // The manifest is sealed again, so that only a comparison can find the change.
    let forge = |out: &Path| {
        let path = out.join("physarium.manifest.json");
        let mut manifest = Manifest::read(&path).unwrap();
        manifest.totals.pruned += 1;
        fs::write(&path, manifest.encode()).unwrap();
    };
    tampering.is_found("forge", forge, "totals: differs from the journal");
    let other = tampering.work.path("other");
    prune(&tampering.model, &other, methods()[2].1, 2);
    let take = |name: &'static str| {
        let other = &other;
        move |out: &Path| {
            fs::copy(other.join(name), out.join(name)).unwrap();
        }
    };
    tampering.is_found("journal", take(JOURNAL), "recipe: differs from the journal");
    tampering.is_found("manifest", take(MANIFEST), "recipe: differs from the journal");
    tampering.is_found("shard", take(SECOND), "SHA-256 of the output, expected");
}

#[test]
fn names_without_a_readable_file_are_named() {
    let tampering = Tampering::new();
    let instead = |name: &'static str, make: fn(&Path)| {
        move |out: &Path| {
            fs::remove_file(out.join(name)).unwrap();
            make(&out.join(name));
        }
    };
    let dangling = |path: &Path| std::os::unix::fs::symlink("nowhere", path).unwrap();
    let socket = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let directory = |path: &Path| fs::create_dir(path).unwrap();
    for (what, change, needle) in [
        ("link", instead("config.json", dangling), "config.json: cannot be read"),
        ("socket", instead("config.json", socket), "config.json: cannot be read"),
        ("directory", instead("config.json", directory), "config.json: file is missing"),
        ("shard-link", instead(FIRST, dangling), "model-00001-of-00002.safetensors: cannot"),
        ("shard-socket", instead(SECOND, socket), "model-00002-of-00002.safetensors: cannot"),
        ("journal-link", instead(JOURNAL, dangling), "physarium.journal.jsonl: "),
    ] {
        tampering.is_found(what, change, needle);
    }
}

/// Removes a tensor from its shard, which stays well-formed.
fn drop_tensor(dir: &Path, name: &str) {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let (shard, dropped) = checkpoint.tensors().find(|(_, t)| t.name == name).unwrap();
    let mut bytes = fs::read(&shard.path).unwrap();
    let mut header: serde_json::Map<String, Value> =
        serde_json::from_slice(&bytes[8..shard.data_begin as usize]).unwrap();
    header.remove(name).unwrap();
    for entry in header.values_mut().filter(|entry| entry["dtype"].is_string()) {
        for offset in entry["data_offsets"].as_array_mut().unwrap() {
            let at = offset.as_u64().unwrap();
            if at > dropped.begin - shard.data_begin {
                *offset = json!(at - dropped.size_bytes());
            }
        }
    }
    bytes.drain(dropped.begin as usize..dropped.end as usize);
    let header = with_length(Value::Object(header).to_string());
    fs::write(&shard.path, [&header, &bytes[shard.data_begin as usize..]].concat()).unwrap();
}
