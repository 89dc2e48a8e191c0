//! Packing and unpacking restores the bytes of any checkpoint; a damaged file is an error.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use physarium_checkpoint::{Checkpoint, Dtype, Error, LinkPolicy, Overwrite};
use physarium_fixtures::with_length;
use physarium_pack::{Form, PackRequest, PackSummary, Packed, pack, unpack};
use proptest::prelude::*;

/// A tensor of a random checkpoint.
#[derive(Debug, Clone)]
struct Tensor {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

/// The elements of a tensor.
#[derive(Debug, Clone, Copy)]
enum Fill {
    Zeros,
    /// Random bits: NaN payloads, infinities, subnormals.
    Any,
    /// This percentage of the elements is zero; some have only the sign bit.
    Sparse(u8),
    /// N values in each group of M elements.
    Pattern(usize, usize),
}

const NAMES: [&str; 5] = [
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.layers.1.mlp.experts.3.w2.weight",
    "model.embed_tokens.weight",
    "lm_head.weight",
];

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    let dtype = prop::sample::select(Dtype::ALL.to_vec());
    let floats = prop::sample::select(vec![Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F8_E4M3]);
    let shape = prop_oneof![
        8 => (0u64..9, 0u64..150).prop_map(|(rows, cols)| vec![rows, cols]),
        4 => (1u64..9, 1u64..9).prop_map(|(rows, groups)| vec![rows, 16 * groups]),
        1 => (1u64..4, 1u64..4, 1u64..40).prop_map(|(a, b, c)| vec![a, b, c]),
        1 => (0u64..70).prop_map(|n| vec![n]),
        1 => Just(vec![]),
    ];
    let fill = prop_oneof![
        Just(Fill::Zeros),
        Just(Fill::Any),
        (0u8..101).prop_map(Fill::Sparse),
        prop::sample::select(vec![(2, 4), (1, 4), (4, 8), (7, 16)])
            .prop_map(|(n, m)| Fill::Pattern(n, m)),
    ];
    let one = (prop_oneof![dtype, floats], shape, fill, any::<u64>());
    prop::collection::vec(one, 0..NAMES.len() + 1).prop_map(|all| {
        let mut tensors = Vec::new();
        for (name, (dtype, shape, fill, seed)) in NAMES.into_iter().zip(all) {
            let elements: u64 = shape.iter().product();
            if (elements * dtype.bits()).is_multiple_of(8) {
                let bytes = elements_of(dtype, elements, fill, seed);
                tensors.push(Tensor { name, dtype, shape, bytes });
            }
        }
        tensors
    })
}

fn elements_of(dtype: Dtype, elements: u64, fill: Fill, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let width = (dtype.bits() / 8) as usize;
    if width == 0 {
        return (0..elements * dtype.bits() / 8).map(|_| next() as u8).collect();
    }
    let mut bytes = Vec::new();
    for element in 0..elements as usize {
        let is_zero = match fill {
            Fill::Zeros => true,
            Fill::Any => false,
            Fill::Sparse(share) => next() % 100 < u64::from(share),
            Fill::Pattern(n, m) => element % m >= n,
        };
        let mut value = next().to_le_bytes().to_vec();
        value.extend(next().to_le_bytes());
        value.truncate(width);
        if is_zero {
            value.fill(0);
            if matches!(fill, Fill::Sparse(_)) && next() % 50 == 0 {
                *value.last_mut().unwrap() = 0x80;
            }
        }
        bytes.extend(value);
    }
    bytes
}

fn shard(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in tensors {
        let begin = data.len();
        data.extend(&tensor.bytes);
        let entry = serde_json::json!({
            "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, data.len()],
        });
        header.insert(tensor.name.to_owned(), entry);
    }
    [with_length(serde_json::Value::Object(header).to_string()), data].concat()
}

/// Writes a checkpoint of one shard or two, with other files of several kinds.
fn write(dir: &Path, tensors: &[Tensor], shards: usize) {
    fs::create_dir_all(dir.join("extra/deeper")).unwrap();
    fs::write(dir.join("config.json"), "{\"model_type\": \"llama\"}\n").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(dir.join("physarium.manifest.json"), "invalid").unwrap();
    fs::write(dir.join("extra/deeper/weights.bin"), [0, 255, 10, 13]).unwrap();
    if shards == 1 {
        fs::write(dir.join("model.safetensors"), shard(tensors)).unwrap();
        return;
    }
    let mut map = BTreeMap::new();
    for (index, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
        let name = format!("model-{index}.safetensors");
        fs::write(dir.join(&name), shard(part)).unwrap();
        map.extend(part.iter().map(|tensor| (tensor.name, name.clone())));
    }
    let index = serde_json::json!({ "weight_map": map });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn pack_dir(dir: &Path, out: &Path) -> Result<PackSummary, Error> {
    let checkpoint = Checkpoint::open(dir)?;
    let request = PackRequest {
        checkpoint: &checkpoint,
        out,
        overwrite: Overwrite::Refuse,
        links: LinkPolicy::LeaveOut,
        tool: "test",
    };
    pack(&request, &mut |_| Ok(()))
}

fn unpack_to(packed: &Path, out: &Path) -> Result<(), Error> {
    unpack(&Packed::open(packed)?, out, &mut |_| Ok(())).map(|_| ())
}

/// All files in a directory and its subdirectories, with their bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Asserts that a directory has only these names: no partial outputs, no locks.
fn assert_names(dir: &Path, expected: &[&str]) {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn unpacking_restores_the_same_bytes(tensors in tensors(), shards in 1usize..3) {
        let temp = tempfile::tempdir().unwrap();
        let [dir, file, back] = ["in", "model.physpack", "out"].map(|name| temp.path().join(name));
        write(&dir, &tensors, if tensors.is_empty() { 1 } else { shards });
        let summary = pack_dir(&dir, &file).unwrap();
        prop_assert_eq!(summary.output_bytes, fs::metadata(&file).unwrap().len());
        unpack_to(&file, &back).unwrap();
        prop_assert_eq!(files(&dir), files(&back));
        assert_names(temp.path(), &["in", "model.physpack", "out"]);
        // The reference implementation reads the container, in which no blob has the name of a tensor.
        let bytes = fs::read(&file).unwrap();
        let container = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        prop_assert!(NAMES.iter().all(|name| container.tensor(name).is_err()));
        for tensor in Packed::open(&file).unwrap().tensors() {
            let dense = tensors.iter().find(|t| t.name == tensor.name).unwrap().bytes.len() as u64;
            prop_assert!(tensor.stored_bytes() <= dense);
        }
    }
}

/// A packed checkpoint with one BF16 projection of these elements.
fn one_projection(fill: Fill) -> (tempfile::TempDir, PathBuf, PackSummary) {
    let temp = tempfile::tempdir().unwrap();
    let (dir, file) = (temp.path().join("in"), temp.path().join("model.physpack"));
    let bytes = elements_of(Dtype::BF16, 64 * 576, fill, 7);
    let tensor = Tensor { name: NAMES[0], dtype: Dtype::BF16, shape: vec![64, 576], bytes };
    write(&dir, &[tensor], 1);
    let summary = pack_dir(&dir, &file).unwrap();
    (temp, file, summary)
}

#[test]
fn sizes_are_as_documented() {
    let (_temp, file, summary) = one_projection(Fill::Pattern(2, 4));
    let form = Packed::open(&file).unwrap().tensors().next().unwrap().form;
    assert_eq!(form, Form::Groups { keep: 2, of: 4 });
    // Three bits for four weights, and half of the values.
    assert_eq!(summary.grouped.packed, 64 * (576 / 4 * 3 / 8 + 576));
    let (_temp, file, summary) = one_projection(Fill::Sparse(50));
    let form = Packed::open(&file).unwrap().tensors().next().unwrap().form;
    let Form::Mask { values } = form else { panic!("{form:?}") };
    assert_eq!(summary.masked.packed, 64 * 576 / 8 + 2 * values);
    assert!((summary.masked.packed as f64) < 0.58 * summary.masked.dense as f64);
    let (_temp, file, summary) = one_projection(Fill::Any);
    assert_eq!(Packed::open(&file).unwrap().tensors().next().unwrap().form, Form::Dense);
    assert_eq!(summary.dense_projections.packed, summary.dense_projections.dense);
}

#[test]
fn the_documented_test_vectors_hold() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, file) = (temp.path().join("in"), temp.path().join("model.physpack"));
    let one = |name, values: &[u16]| {
        let (shape, bytes) =
            (vec![1, values.len() as u64], values.iter().flat_map(|v| v.to_le_bytes()));
        Tensor { name, dtype: Dtype::BF16, shape, bytes: bytes.collect() }
    };
    let masked = [0x3f80, 0, 0, 0x8000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7fc1, 0];
    let grouped = [1, 2, 0, 0, 0, 3, 4, 0, 0, 0, 5, 6, 7, 0, 0, 8];
    write(&dir, &[one(NAMES[0], &masked), one(NAMES[1], &grouped)], 1);
    pack_dir(&dir, &file).unwrap();
    let bytes = fs::read(&file).unwrap();
    let container = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let blob = |kind: &str, name: &str| container.tensor(&format!("{kind}:{name}")).unwrap().data();
    assert_eq!(blob("mask", NAMES[0])[..4], [0b0000_1001, 0b1000_0000, 0, 0]);
    assert_eq!(blob("values", NAMES[0])[..6], [0x80, 0x3f, 0x00, 0x80, 0xc1, 0x7f]);
    // Ranks 0, 2, 5 and 3 among 0011, 0101, 0110, 1001, 1010, 1100; three bits each, lowest first.
    assert_eq!(blob("groups", NAMES[1])[..2], [0b0101_0000, 0b0000_0111]);
    assert_eq!(blob("values", NAMES[1])[..4], [1, 0, 2, 0]);
}

#[test]
fn every_damaged_byte_and_every_truncation_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, file) = (temp.path().join("in"), temp.path().join("model.physpack"));
    let one = |name, shape: [u64; 2], fill| {
        let bytes = elements_of(Dtype::BF16, shape[0] * shape[1], fill, 3);
        Tensor { name, dtype: Dtype::BF16, shape: shape.to_vec(), bytes }
    };
    let tensors = [
        one(NAMES[0], [4, 70], Fill::Sparse(60)),
        one(NAMES[1], [4, 32], Fill::Pattern(2, 4)),
        one(NAMES[3], [2, 10], Fill::Any),
    ];
    write(&dir, &tensors, 2);
    pack_dir(&dir, &file).unwrap();
    let whole = fs::read(&file).unwrap();
    let (bad, out) = (temp.path().join("bad.physpack"), temp.path().join("out"));
    let refused = |bytes: &[u8]| {
        fs::write(&bad, bytes).unwrap();
        let error = unpack_to(&bad, &out).expect_err("a damaged file");
        assert!(error.to_string().contains("bad.physpack"), "{error}");
        assert!(!out.exists());
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes);
    }
    for end in (0..whole.len()).step_by(61) {
        refused(&whole[..end]);
    }
    refused(&[&whole[..], &[0]].concat());
    assert_names(temp.path(), &["bad.physpack", "in", "model.physpack"]);
}

#[test]
fn other_formats_and_versions_are_errors_that_name_them() {
    let (temp, file, _) = one_projection(Fill::Sparse(50));
    let open = |path: &Path| Packed::open(path).unwrap_err().to_string();
    let dense = open(&temp.path().join("in/model.safetensors"));
    assert!(dense.contains("not a packed file"), "{dense}");
    let bytes = fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bytes[..4096]).into_owned();
    let at = text.match_indices("physpack/1:").map(|(at, _)| at + "physpack/".len());
    let mut newer = bytes.clone();
    at.for_each(|at| newer[at] = b'2');
    let path = temp.path().join("newer.physpack");
    fs::write(&path, newer).unwrap();
    assert!(open(&path).contains("a newer physarium packed this file"), "{}", open(&path));
}

#[test]
fn existing_outputs_are_kept() {
    let (temp, file, _) = one_projection(Fill::Sparse(50));
    let before = fs::read(&file).unwrap();
    let error = pack_dir(&temp.path().join("in"), &file).unwrap_err().to_string();
    assert!(error.contains("output exists"), "{error}");
    let inside = temp.path().join("in/model.physpack");
    let error = pack_dir(&temp.path().join("in"), &inside).unwrap_err().to_string();
    assert!(error.contains("inside the input"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let error = unpack_to(&file, &temp.path().join("in")).unwrap_err().to_string();
    assert!(error.contains("output exists"), "{error}");
}

#[test]
fn what_a_killed_run_left_is_replaced() {
    let (temp, file, _) = one_projection(Fill::Sparse(50));
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let marker = "{\"note\": \"unfinished physarium output\"}";
    for name in [".model.physpack.physarium-packing", ".out.physarium-unpacking"] {
        let dir = temp.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("physarium.unfinished.json"), marker).unwrap();
        fs::write(dir.join("output"), "torn").unwrap();
    }
    fs::write(temp.path().join("model.physpack.lock"), "pid 1 since 00:00:00 UTC\n").unwrap();
    pack_dir(&temp.path().join("in"), &file).unwrap();
    assert_eq!(fs::read(&file).unwrap(), whole);
    unpack_to(&file, &temp.path().join("out")).unwrap();
    assert_eq!(files(&temp.path().join("in")), files(&temp.path().join("out")));
    assert_names(temp.path(), &["in", "model.physpack", "out"]);
}

/// Files of the user's that have the names of a run's own, or are in the place of its output.
#[test]
fn what_no_run_made_is_kept() {
    let (temp, file, _) = one_projection(Fill::Sparse(50));
    let (input, at) = (temp.path().join("in"), |name: &str| temp.path().join(name));
    fs::write(at("target"), "kept").unwrap();
    for (name, make) in [
        (
            ".new.physarium-packing",
            &(|path: &Path| fs::write(path, "mine").unwrap()) as &dyn Fn(&Path),
        ),
        (".new.physarium-packing", &|path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("thesis"), "mine").unwrap();
        }),
        (".new.physarium-unpacking", &|path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("thesis"), "mine").unwrap();
        }),
        (".new.physarium-unpacking", &|path| std::os::unix::fs::symlink("in", path).unwrap()),
    ] {
        make(&at(name));
        let error = match name.ends_with("-packing") {
            true => pack_dir(&input, &at("new")).unwrap_err().to_string(),
            false => unpack_to(&file, &at("new")).unwrap_err().to_string(),
        };
        assert!(error.contains(name) && error.contains("working directory"), "{error}");
        assert_names(temp.path(), &[name, "in", "model.physpack", "target"]);
        let made = at(name);
        match made.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(made).unwrap(),
            false => fs::remove_file(made).unwrap(),
        }
    }
    // --force replaces a packed file, and nothing else.
    let checkpoint = Checkpoint::open(&input).unwrap();
    let force = |out: &Path| {
        let (overwrite, links) = (Overwrite::Replace, LinkPolicy::LeaveOut);
        let request = PackRequest { checkpoint: &checkpoint, out, overwrite, links, tool: "test" };
        pack(&request, &mut |_| Ok(()))
    };
    force(&file).unwrap();
    let error = force(&at("target")).unwrap_err().to_string();
    assert!(error.contains("another file"), "{error}");
    assert_eq!(fs::read(at("target")).unwrap(), b"kept");
    assert_names(temp.path(), &["in", "model.physpack", "target"]);
}

#[test]
fn a_stopped_run_leaves_nothing() {
    let (temp, file, _) = one_projection(Fill::Sparse(50));
    let checkpoint = Checkpoint::open(&temp.path().join("in")).unwrap();
    let out = temp.path().join("stopped.physpack");
    let request = PackRequest {
        checkpoint: &checkpoint,
        out: &out,
        overwrite: Overwrite::Refuse,
        links: LinkPolicy::LeaveOut,
        tool: "test",
    };
    let mut calls = 0;
    let mut stop = |_| {
        calls += 1;
        if calls > 2 { Err(Error::Interrupted) } else { Ok(()) }
    };
    assert!(matches!(pack(&request, &mut stop), Err(Error::Interrupted)));
    let packed = Packed::open(&file).unwrap();
    let stopped = unpack(&packed, &temp.path().join("out"), &mut |_| Err(Error::Interrupted));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert_names(temp.path(), &["in", "model.physpack"]);
}
