//! Packed files that a stranger made: every digest and the seal are right, so that only the structure can be wrong.
//! What `run`, `eval` and `unpack` would take for different models is refused when the file is opened.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod forge;

use std::fs;
use std::path::PathBuf;

use physarium_checkpoint::{Checkpoint, Selection, TargetPlan};
use physarium_pack::{Packed, unpack};
use serde_json::{Value, json};

use forge::{DOWN, Forge, HEAD, INDEX, NORM, Q, SHARDS};

/// A change to a packed file.
type Change = fn(&mut Forge);

/// The error of opening what a change makes of the packed file of two shards.
fn refusal(change: Change) -> String {
    let temp = tempfile::tempdir().unwrap();
    let mut forge = Forge::two_shards(temp.path());
    change(&mut forge);
    let path = forge.write(temp.path());
    let error = Packed::open(&path).expect_err("a forged file is refused").to_string();
    assert!(error.contains("forged.physpack"), "{error}");
    error
}

/// Each change is refused with an error that has all these texts.
fn refused(changes: &[(&str, Change, &[&str])]) {
    for (name, change, texts) in changes {
        let error = refusal(*change);
        for text in *texts {
            assert!(error.contains(text), "{name}: {text:?} is not in: {error}");
        }
    }
}

#[test]
fn an_unchanged_file_is_opened_and_unpacked() {
    let temp = tempfile::tempdir().unwrap();
    let path = Forge::two_shards(temp.path()).write(temp.path());
    let packed = Packed::open(&path).unwrap();
    let out = temp.path().join("out");
    unpack(&packed, &out, &mut |_| Ok(())).unwrap();
    let there = Checkpoint::open(&out).unwrap();
    let names: Vec<_> = there.tensors().map(|(_, tensor)| tensor.name.clone()).collect();
    assert_eq!(names, packed.tensors().map(|tensor| tensor.name.clone()).collect::<Vec<_>>());
    TargetPlan::new(&there, &Selection::default()).unwrap();
}

#[test]
fn the_header_of_a_shard_must_list_the_tensors_of_the_record() {
    let other = ["differs from the record"];
    refused(&[
        ("shape", |f| f.header_entry(0, Q, |e| e["shape"] = json!([32, 16])), &other),
        ("rank", |f| f.header_entry(0, Q, |e| e["shape"] = json!([512])), &other),
        ("dtype", |f| f.header_entry(0, Q, |e| e["dtype"] = json!("F16")), &other),
        ("name", |f| f.rename_in_header(0, Q, "model.layers.0.self_attn.k_proj.weight"), &other),
        ("two of one size change places", |f| f.swap_in_header(1), &other),
        (
            "an empty tensor that the record does not list",
            |f| {
                f.add_to_header(
                    0,
                    "extra",
                    json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
                )
            },
            &other,
        ),
        (
            "a tensor twice in the header",
            |f| f.header_text(0, |text| text.replacen('{', "{\"a\": 1, ", 1)),
            &["header"],
        ),
        ("no JSON", |f| f.header_text(0, |text| text.replace('{', "[")), &["header"]),
        ("a length of its own", |f| f.blob(&format!("header:{}", SHARDS[0]))[0] ^= 1, &["header"]),
    ]);
}

#[test]
fn the_record_must_list_the_tensors_of_the_header() {
    refused(&[
        ("shape", |f| f.tensor(Q)["shape"] = json!([2, 8, 32]), &["differs from the record"]),
        (
            "dtype of a dense tensor",
            |f| f.tensor(NORM)["dtype"] = json!("I16"),
            &["differs from the record"],
        ),
        ("name", |f| f.rename_in_record(HEAD, "model.lm_head.weight"), &["model.lm_head.weight"]),
        ("order", |f| f.tensors(1).reverse(), &["differs from the record"]),
    ]);
}

#[test]
fn a_blob_serves_one_tensor() {
    refused(&[
        (
            "the same tensor twice in a shard, with a blob that nothing uses",
            |f| {
                let norm = f.tensor(NORM).clone();
                f.tensors(1).push(norm);
                f.grow_file(1, 32);
                f.add_blob("dense:unused", vec![0; 32]);
            },
            &["blob serves two"],
        ),
        (
            "the same tensor in two shards, with a blob that nothing uses",
            |f| {
                let norm = f.tensor(NORM).clone();
                f.tensors(0).push(norm);
                f.grow_file(0, 32);
                f.add_blob("dense:unused", vec![0; 32]);
            },
            &["blob serves two"],
        ),
        (
            "a blob that nothing uses",
            |f| f.add_blob("dense:unused", vec![7; 9]),
            &["wrong number of blobs"],
        ),
        (
            "a blob that only the container has",
            |f| f.only_in_container("hidden", vec![7; 64]),
            &["wrong number of blobs"],
        ),
        ("a blob less", |f| f.remove_blob(&format!("values:{Q}")), &["blob"]),
        (
            "a path twice, with a blob that nothing uses",
            |f| {
                let config = f.file("config.json").clone();
                f.files().push(config);
                f.add_blob("file:unused", vec![]);
            },
            &["blob serves two"],
        ),
    ]);
}

#[test]
fn the_shards_must_be_the_ones_that_a_loader_of_the_directory_takes() {
    refused(&[
        (
            "weights under the name of a single shard",
            |f| f.add_file("model.safetensors", vec![8, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']),
            &["two sets of weights"],
        ),
        (
            "an index that names another shard, which is a plain file",
            |f| {
                f.add_file("other.safetensors", vec![1; 32]);
                f.edit_index(|map| map[NORM] = json!("other.safetensors"));
            },
            &["other shards than a loader takes"],
        ),
        (
            "an index that lists a tensor in the other shard",
            |f| f.edit_index(|map| map[NORM] = json!(SHARDS[0])),
            &[NORM],
        ),
        (
            "an index that lists a tensor that is nowhere",
            |f| f.edit_index(|map| map["nowhere"] = json!(SHARDS[0])),
            &["nowhere"],
        ),
        (
            "an index without one of the shards",
            |f| {
                f.edit_index(|map| {
                    map.as_object_mut().unwrap().retain(|_, shard| shard == SHARDS[0])
                })
            },
            &["shards"],
        ),
        (
            "an index that is no JSON",
            |f| *f.blob(&format!("file:{INDEX}")) = vec![b'x'; 40],
            &["index"],
        ),
        ("no index", |f| f.remove_file(INDEX), &["shards"]),
        (
            "the marker of an unfinished output",
            |f| f.add_file("physarium.unfinished.json", b"{}".to_vec()),
            &["unfinished"],
        ),
    ]);
}

#[test]
fn sizes_are_bounded_by_the_file() {
    refused(&[
        ("values", |f| f.tensor(Q)["form"] = json!({"mask": {"values": u64::MAX / 2}}), &["blob"]),
        ("elements", |f| f.tensor(Q)["shape"] = json!([1u64 << 40, 32]), &["blob"]),
        ("dense elements", |f| f.tensor(NORM)["shape"] = json!([u64::MAX / 16]), &["blob"]),
        ("overflow", |f| f.tensor(NORM)["shape"] = json!([u64::MAX, u64::MAX]), &["tensor"]),
        (
            "a group of nothing",
            |f| f.tensor(DOWN)["form"] = json!({"groups": {"keep": 0, "of": 0}}),
            &["tensor"],
        ),
        (
            "a group larger than a row",
            |f| f.tensor(DOWN)["form"] = json!({"groups": {"keep": 1, "of": 16}}),
            &["invalid form"],
        ),
        ("a sidecar", |f| f.file("config.json")["size_bytes"] = json!(1u64 << 60), &["blob"]),
        ("a shard", |f| f.file(SHARDS[0])["size_bytes"] = json!(u64::MAX), &["blob"]),
        ("a smaller shard", |f| f.file(SHARDS[0])["size_bytes"] = json!(16), &["tensor"]),
        (
            "a blob",
            |f| f.contents["blobs"][format!("values:{Q}")]["size_bytes"] = json!(u64::MAX),
            &["blob"],
        ),
    ]);
}

#[test]
fn hidden_bytes_after_a_blob_are_refused_when_it_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let mut forge = Forge::two_shards(temp.path());
    forge.padding = 0x41;
    let path: PathBuf = forge.write(temp.path());
    let packed = Packed::open(&path);
    let error = match packed {
        Err(e) => e.to_string(),
        Ok(packed) => {
            let out = temp.path().join("out");
            let error = unpack(&packed, &out, &mut |_| Ok(())).expect_err("hidden bytes");
            assert!(!out.exists());
            error.to_string()
        }
    };
    assert!(error.contains("padding"), "{error}");
}

#[test]
fn a_shard_that_is_a_plain_file_is_not_the_model() {
    let temp = tempfile::tempdir().unwrap();
    let mut forge = Forge::two_shards(temp.path());
    let record: Value = forge.file(SHARDS[0]).clone();
    assert!(record["tensors"].is_array());
    forge.make_plain(SHARDS[0]);
    let path = forge.write(temp.path());
    let error = Packed::open(&path).unwrap_err().to_string();
    assert!(error.contains("shards") || error.contains("index"), "{error}");
    assert!(fs::metadata(&path).is_ok());
}
