//! Directories without exactly one set of regular weights files.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use physarium_checkpoint::Checkpoint;

use super::{Case, GOOD_MAP, INDEX, ONE, SINGLE, holding, shard, sharded, single};

#[test]
fn directories_without_one_set_of_weights() {
    Case::new().refused(&["no checkpoint here", SINGLE, INDEX, "found no weights"]);
    Case::new()
        .shard("model-00001-of-00002.safetensors", ONE, 8)
        .refused(&["model-00001-of-00002.safetensors", "without their index"]);
    Case::new().file("pytorch_model.bin", b"x").refused(&["pytorch_model.bin", "convert"]);
    Case::new()
        .file("adapter_config.json", "{}")
        .file("adapter_model.safetensors", b"x")
        .refused(&["adapter_model.safetensors", "merge it into its base model"]);
    Case::new().file("model-q4.gguf", b"x").refused(&["model-q4.gguf", "convert"]);
    sharded(GOOD_MAP).shard(SINGLE, ONE, 8).blames("").refused(&[
        "two sets of weights",
        SINGLE,
        INDEX,
        "both",
        "hint",
    ]);
    single(ONE, 8)
        .file("physarium.unfinished.json", "{}")
        .blames("")
        .refused(&["unfinished output of an interrupted physarium run"]);
    let case = single(ONE, 8);
    let error = Checkpoint::open(&case.path().join(SINGLE)).unwrap_err();
    assert!(error.to_string().contains("model.safetensors: not a directory"), "{error}");
    let error = Checkpoint::open(&case.path().join("nowhere")).unwrap_err();
    assert!(error.to_string().contains("nowhere: cannot open the checkpoint"), "{error}");
}

/// Tests with `make` in place of each kind of weights file in turn.
fn for_each_weights_file(make: impl Fn(&Path), needles: &[&str]) {
    let single = Case::new().blames(SINGLE);
    make(&single.path().join(SINGLE));
    single.refused(needles);
    let shard = sharded(GOOD_MAP).blames("b.safetensors");
    fs::remove_file(shard.path().join("b.safetensors")).unwrap();
    make(&shard.path().join("b.safetensors"));
    shard.refused(needles);
    let index = sharded(GOOD_MAP);
    fs::remove_file(index.path().join(INDEX)).unwrap();
    make(&index.path().join(INDEX));
    index.refused(needles);
}

#[test]
fn weights_that_are_not_regular_files() {
    let not_regular = "not a regular file";
    for_each_weights_file(|path| fs::create_dir(path).unwrap(), &[not_regular, "a directory"]);
    let fifo = |path: &Path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    for_each_weights_file(fifo, &[not_regular, "a FIFO"]);
    let socket = |path: &Path| drop(UnixListener::bind(path).unwrap());
    for_each_weights_file(socket, &[not_regular, "a socket"]);
    for_each_weights_file(|path| symlink("/dev/zero", path).unwrap(), &[not_regular, "a device"]);
    for_each_weights_file(|path| symlink("/dev", path).unwrap(), &[not_regular, "a directory"]);
}

#[test]
fn weights_that_are_broken_links() {
    let dangling = |path: &Path| symlink("../../blobs/none", path).unwrap();
    for_each_weights_file(dangling, &["broken link", "No such file", "incomplete download"]);
    let looping = |path: &Path| symlink(path, path).unwrap();
    for_each_weights_file(looping, &["broken link"]);
}

#[test]
fn a_snapshot_of_links_in_a_hub_cache_is_a_checkpoint() {
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/1"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    let index = format!(r#"{{"metadata":{{"total_size":2}},"weight_map":{GOOD_MAP}}}"#);
    for (i, (name, bytes)) in [
        ("a.safetensors", shard(&holding("x"), 1)),
        ("b.safetensors", shard(&holding("y"), 1)),
        (INDEX, index.into_bytes()),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(blobs.join(i.to_string()), bytes).unwrap();
        symlink(format!("../../blobs/{i}"), snapshot.join(name)).unwrap();
    }
    let opened = Checkpoint::open(&snapshot).unwrap();
    assert_eq!(opened.tensors().count(), 2);
    assert!(opened.warnings().is_empty());
    assert!(opened.shards()[0].path.ends_with("snapshots/1/a.safetensors"));
}
