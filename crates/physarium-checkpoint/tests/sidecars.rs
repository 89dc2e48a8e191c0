//! The files that are not weights: which are copied, which are left out, and why.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use physarium_checkpoint::{Checkpoint, Disposition, LinkPolicy, Purpose, Sidecar};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};

const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint with `config.json`, in a directory `model` of a temporary directory.
struct Work {
    root: tempfile::TempDir,
}

impl Work {
    fn new(shards: usize) -> Work {
        let root = tempfile::tempdir().unwrap();
        let tensors = [Tensor::new("a", Kind::Bf16, &[2]), Tensor::new("b", Kind::Bf16, &[2])];
        write_checkpoint(&root.path().join("model"), &tensors, shards, Fill::Sparse).unwrap();
        Work { root }
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join("model").join(name)
    }

    fn file(&self, name: impl AsRef<Path>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "12345").unwrap();
    }

    fn list(&self, links: LinkPolicy) -> Vec<Sidecar> {
        let checkpoint = Checkpoint::open(&self.at("")).unwrap();
        Sidecar::list(&checkpoint, Purpose::NewWeights, links).unwrap()
    }

    /// The path of every file, with `copied` or the reason why it is left out.
    fn outcomes(&self, links: LinkPolicy) -> Vec<(String, &'static str)> {
        let outcome = |sidecar: Sidecar| {
            let reason = match sidecar.disposition {
                Disposition::Copy => "copied",
                Disposition::LeftOut(reason) => reason,
            };
            (sidecar.path.to_string_lossy().into_owned(), reason)
        };
        self.list(links).into_iter().map(outcome).collect()
    }

    #[track_caller]
    fn is(&self, name: &str, reason: &str) {
        let outcomes = self.outcomes(LinkPolicy::LeaveOut);
        let found: Vec<_> = outcomes.iter().filter(|(path, _)| path == name).collect();
        assert!(matches!(found[..], [(_, said)] if said.contains(reason)), "{name}: {found:?}");
    }
}

#[test]
fn regular_files_are_copied_and_listed_by_path_with_their_size() {
    let work = Work::new(1);
    for name in [
        "tokenizer.json",
        "1_Pooling/config.json",
        "a/b/c/deep.txt",
        ".gitattributes",
        "modeling.py",
        "LICENSE",
        "model.safetensors.md",
        "name with \n newline and \u{1b}",
    ] {
        work.file(name);
    }
    fs::write(work.at("empty"), "").unwrap();
    fs::create_dir(work.at("empty_directory")).unwrap();
    let listed = work.list(LinkPolicy::LeaveOut);
    let names: Vec<&str> = listed.iter().map(|sidecar| sidecar.path.to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            ".gitattributes",
            "1_Pooling/config.json",
            "LICENSE",
            "a/b/c/deep.txt",
            "config.json",
            "empty",
            "model.safetensors.md",
            "modeling.py",
            "name with \n newline and \u{1b}",
            "tokenizer.json",
        ]
    );
    assert!(listed.iter().all(|sidecar| sidecar.disposition == Disposition::Copy));
    let sizes: Vec<u64> = listed.iter().map(|sidecar| sidecar.size_bytes).collect();
    assert_eq!((sizes[0], sizes[5]), (5, 0));
}

#[test]
fn shards_are_no_sidecars_and_the_index_is() {
    assert_eq!(Work::new(1).outcomes(LinkPolicy::LeaveOut), [("config.json".to_owned(), "copied")]);
    let outcomes = Work::new(2).outcomes(LinkPolicy::LeaveOut);
    assert_eq!(outcomes, [("config.json".to_owned(), "copied"), (INDEX.to_owned(), "copied")]);
}

#[test]
fn other_copies_of_the_weights_are_left_out() {
    let work = Work::new(2);
    for name in [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "model.pt",
        "consolidated.00.pth",
        "last.CKPT",
        "model.GGUF",
        "model.ggml",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "tf_model.h5",
        "flax_model.msgpack",
        "pytorch_model.bin.index.json",
    ] {
        work.file(name);
        work.is(name, "the same weights in another format, not pruned");
    }
    for name in ["stray.safetensors", "original/STRAY.Safetensors"] {
        work.file(name);
        work.is(name, "weights that the checkpoint's index does not name");
    }
    for name in ["consolidated.safetensors.index.json", "model.fp32.safetensors.index.json"] {
        work.file(name);
        work.is(name, "an index of weights that are not copied");
    }
}

#[test]
fn records_of_an_earlier_run_are_left_out_even_as_directories() {
    for name in ["physarium.journal.jsonl", "physarium.manifest.json"] {
        let work = Work::new(1);
        work.file(name);
        work.is(name, "the record of an earlier physarium run");
        let work = Work::new(1);
        work.file(format!("{name}/inside"));
        work.is(name, "the record of an earlier physarium run");
    }
}

#[test]
fn directories_that_are_not_entered() {
    let work = Work::new(1);
    work.file(".git/HEAD");
    work.is(".git", "a hidden directory");
    let deep = ["d"; 12].join("/");
    work.file(format!("{deep}/file"));
    work.is(&["d"; 9].join("/"), "too deep");
    work.file(format!("{}/file", ["d"; 8].join("/")));
    work.is(&format!("{}/file", ["d"; 8].join("/")), "copied");
}

#[test]
fn what_is_not_a_file_is_left_out_without_blocking() {
    let work = Work::new(1);
    assert!(Command::new("mkfifo").arg(work.at("pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(work.at("socket")).unwrap();
    work.is("pipe", "not a regular file");
    work.is("socket", "not a regular file");
    let bytes = OsStr::from_bytes(b"caf\xe9.txt");
    work.file(bytes);
    work.is(&bytes.to_string_lossy(), "its name is not UTF-8");
}

#[test]
fn links_are_followed_only_inside_the_checkpoint() {
    let work = Work::new(1);
    fs::write(work.outside("secret"), "x").unwrap();
    fs::create_dir_all(work.outside("model-2")).unwrap();
    fs::write(work.outside("model-2/sibling"), "x").unwrap();
    for (name, target) in [
        ("inner", PathBuf::from("config.json")),
        ("outer", work.outside("secret")),
        ("dotted", PathBuf::from("../secret")),
        ("sibling", PathBuf::from("../model-2/sibling")),
        ("loop", PathBuf::from("loop")),
        ("dangling", PathBuf::from("nowhere")),
        ("directory", work.outside("model-2")),
        ("itself", PathBuf::from(".")),
        ("device", PathBuf::from("/dev/zero")),
        ("weights.bin", PathBuf::from("config.json")),
    ] {
        symlink(target, work.at(name)).unwrap();
    }
    symlink("outer", work.at("twice")).unwrap();
    work.is("inner", "copied");
    let outside = ["outer", "dotted", "sibling", "twice"];
    for name in outside {
        work.is(name, "a link out of the checkpoint; --follow-links copies it");
    }
    for name in ["loop", "dangling"] {
        work.is(name, "a link that leads nowhere");
    }
    for name in ["directory", "itself", "device"] {
        work.is(name, "a link to something that is not a file");
    }
    work.is("weights.bin", "another format");

    let without = work.outcomes(LinkPolicy::LeaveOut);
    let with = work.outcomes(LinkPolicy::Follow);
    for ((name, before), (_, after)) in without.iter().zip(&with) {
        let changes = outside.contains(&name.as_str());
        assert_eq!(before != after, changes, "{name}: {before}, {after}");
        assert!(!changes || *after == "copied", "{name}: {after}");
    }
}

#[test]
fn links_into_the_blobs_of_a_hub_cache_are_copied() {
    let root = tempfile::tempdir().unwrap();
    let snapshot = root.path().join("snapshots/1");
    let tensors = [Tensor::new("a", Kind::Bf16, &[2])];
    write_checkpoint(&snapshot, &tensors, 1, Fill::Sparse).unwrap();
    let blobs = root.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::rename(snapshot.join(name), blobs.join(name)).unwrap();
        symlink(format!("../../blobs/{name}"), snapshot.join(name)).unwrap();
    }
    let checkpoint = Checkpoint::open(&snapshot).unwrap();
    let listed = Sidecar::list(&checkpoint, Purpose::NewWeights, LinkPolicy::LeaveOut).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].disposition, Disposition::Copy);
    assert_eq!(listed[0].size_bytes, fs::metadata(blobs.join("config.json")).unwrap().len());
}

/// Otherwise the output of a checkpoint whose index is a link would have shards and no index.
#[test]
fn an_index_that_is_a_link_out_of_the_checkpoint_is_copied() {
    let work = Work::new(2);
    fs::rename(work.at(INDEX), work.outside("index")).unwrap();
    symlink(work.outside("index"), work.at(INDEX)).unwrap();
    work.is(INDEX, "copied");
    // Only the checkpoint's own index.
    fs::create_dir(work.at("sub")).unwrap();
    symlink(work.outside("index"), work.at("sub").join(INDEX)).unwrap();
    work.is(&format!("sub/{INDEX}"), "a link out of the checkpoint");
}

#[test]
fn weights_of_other_frameworks_are_left_out() {
    let work = Work::new(1);
    let names = [
        "model.onnx.data",
        "onnx/model.onnx_data_1",
        "rust_model.ot",
        "weights.npz",
        "tf_model.h5.index.json",
        "model.nemo",
        "old.physpack",
        "consolidated.00.pth",
    ];
    for name in names {
        work.file(name);
    }
    for name in names {
        work.is(name, "another format");
    }
}

#[test]
fn an_adapter_is_copied_with_its_weights() {
    let work = Work::new(1);
    let names = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "speech_lora/adapter_config.json",
        "speech_lora/adapter_model.bin",
    ];
    for name in names {
        work.file(name);
    }
    for name in names {
        work.is(name, "copied");
    }
}
