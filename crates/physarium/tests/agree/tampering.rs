//! Every kind of tampering with an output is found and named.

use std::fs;
use std::path::Path;

use physarium::checkpoint::Checkpoint;
use physarium::checkpoint::manifest::Manifest;
use physarium_fixtures::with_length;
use serde_json::{Value, json};

use super::{
    JOURNAL, MANIFEST, Work, copy_files, default_method, findings, methods, prune, tensors,
};

#[test]
fn tampering_is_named() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    let clean = work.path("clean");
    prune(&model, &clean, default_method(), 2);
    let tampered = |what: &str, change: &dyn Fn(&Path), needle: &str| {
        let out = work.path(what);
        copy_files(&clean, &out);
        change(&out);
        let found = findings(&model, &out);
        assert!(found.iter().any(|f| f.contains(needle)), "{what}: no {needle:?} in {found:?}");
    };
    let first = "model-00001-of-00002.safetensors";
    let second = "model-00002-of-00002.safetensors";
    tampered(
        "drop",
        &|out| fs::remove_file(out.join("config.json")).unwrap(),
        "config.json: file is missing",
    );
    tampered("drop-shard", &|out| fs::remove_file(out.join(first)).unwrap(), "file is missing");
    tampered(
        "add",
        &|out| fs::write(out.join("x.py"), "x").unwrap(),
        "x.py: file is in the output and not",
    );
    let sidecar =
        |text: &'static str| move |out: &Path| fs::write(out.join("config.json"), text).unwrap();
    tampered("shorter", &sidecar("{}"), "config.json: expected 24 bytes, found 2");
    tampered("sidecar", &sidecar("{ model_type\": \"llama\"}\n"), "first at byte 1");
    let resize = |grow: i64| {
        move |out: &Path| {
            let file = fs::OpenOptions::new().write(true).open(out.join(second)).unwrap();
            file.set_len((file.metadata().unwrap().len() as i64 + grow) as u64).unwrap();
        }
    };
    tampered("truncate", &resize(-1), "model-00002-of-00002.safetensors: expected");
    tampered("extend", &resize(1), "model-00002-of-00002.safetensors: expected");
    let swap = |out: &Path| {
        fs::rename(out.join(first), out.join("t")).unwrap();
        fs::rename(out.join(second), out.join(first)).unwrap();
        fs::rename(out.join("t"), out.join(second)).unwrap();
    };
    tampered("swap", &swap, "model-00001-of-00002.safetensors");
    // Sealed again, so that only the comparison with the bytes can tell.
    let forge = |out: &Path| {
        let path = out.join("physarium.manifest.json");
        let mut manifest = Manifest::read(&path).unwrap();
        manifest.totals.pruned += 1;
        fs::write(&path, manifest.encode()).unwrap();
    };
    tampered("forge", &forge, "totals: differs from the journal");
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
    tampered(
        "weight",
        &weight,
        "tensor model.layers.0.self_attn.q_proj.weight: weight 77 is neither",
    );
    let other = work.path("other");
    prune(&model, &other, methods()[2].1, 2);
    let take = |name: &'static str| {
        let other = &other;
        move |out: &Path| {
            fs::copy(other.join(name), out.join(name)).unwrap();
        }
    };
    tampered("journal", &take(JOURNAL), "recipe: differs from the journal");
    tampered("manifest", &take(MANIFEST), "recipe: differs from the journal");
    tampered("shard", &take(second), "SHA-256 of the output, expected");
    let remove = |name: &'static str| move |out: &Path| fs::remove_file(out.join(name)).unwrap();
    tampered("no-journal", &remove(JOURNAL), "physarium.journal.jsonl: file is missing");
    tampered("no-manifest", &remove(MANIFEST), "physarium.manifest.json: file is missing");
    tampered("no-norm", &|out| drop_tensor(out, "model.norm.weight"), "bytes, found");
    // What is there under the name, but is not a file that can be read.
    let instead = |name: &'static str, make: fn(&Path)| {
        move |out: &Path| {
            fs::remove_file(out.join(name)).unwrap();
            make(&out.join(name));
        }
    };
    let dangling = |path: &Path| std::os::unix::fs::symlink("nowhere", path).unwrap();
    let socket = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let directory = |path: &Path| fs::create_dir(path).unwrap();
    tampered("link", &instead("config.json", dangling), "config.json: cannot be read");
    tampered("socket", &instead("config.json", socket), "config.json: cannot be read");
    tampered("directory", &instead("config.json", directory), "config.json: file is missing");
    tampered("shard-link", &instead(first, dangling), "model-00001-of-00002.safetensors: cannot");
    tampered("shard-socket", &instead(second, socket), "model-00002-of-00002.safetensors: cannot");
    tampered("journal-link", &instead(JOURNAL, dangling), "physarium.journal.jsonl: ");
}

/// Takes a tensor out of the shard that holds it, so that what is left is well-formed.
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
