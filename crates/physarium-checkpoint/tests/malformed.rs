//! Every malformed or odd checkpoint that opening must refuse or accept, and what it says.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use physarium_checkpoint::{Checkpoint, Dtype, ErrorKind, Layout};
use physarium_fixtures::{Fill, Kind, Tensor, with_length, write_checkpoint};

/// A directory with one shard put together from header JSON and a number of data bytes.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        Case { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Case {
        fs::write(self.path().join(name), bytes).unwrap();
        self
    }

    fn shard(&self, name: &str, json: &str, data: usize) -> &Case {
        self.file(name, [with_length(json.to_owned()), vec![1; data]].concat())
    }

    /// Asserts that opening fails as bad input, naming all of `needles`.
    fn refused(&self, needles: &[&str]) {
        let error = Checkpoint::open(self.path()).expect_err("must be refused");
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Input, "{text}");
        for needle in needles {
            assert!(text.contains(needle), "no {needle:?} in: {text}");
        }
        assert!(!text.contains('\u{1b}'), "raw ESC in {text:?}");
    }

    fn accepted(&self) -> Checkpoint {
        Checkpoint::open(self.path()).unwrap()
    }
}

fn single(json: &str, data: usize) -> Case {
    let case = Case::new();
    case.shard("model.safetensors", json, data);
    case
}

fn raw(bytes: impl AsRef<[u8]>) -> Case {
    let case = Case::new();
    case.file("model.safetensors", bytes);
    case
}

const ONE: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

#[test]
fn length_field() {
    let file = "model.safetensors";
    raw(b"").refused(&[file, "at least 8 bytes", "0 bytes"]);
    raw(b"1234567").refused(&[file, "7 bytes"]);
    raw([0; 8]).refused(&[file, "header length", "0 bytes", "begins with zeros"]);
    for length in [9u64, 100_000_001, 1 << 63, u64::MAX, u64::MAX - 7] {
        let case = raw([&length.to_le_bytes()[..], b"{}      "].concat());
        case.refused(&[file, "header length out of range", &length.to_string()]);
    }
}

#[test]
fn files_that_are_something_else() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    raw(lfs).refused(&["git-lfs pointer", "git lfs pull"]);
    raw("<!DOCTYPE html><html></html>").refused(&["web page"]);
    raw(b"PK\x03\x04aaaaaaaaaaaa").refused(&["zip file"]);
    raw(b"GGUF\x03\0\0\0aaaaaaaa").refused(&["GGUF"]);
    raw(b"\x80\x02}q\x00aaaaaaaaaaaa").refused(&["pickle"]);
    raw([0; 4096]).refused(&["begins with zeros"]);
}

#[test]
fn header_json() {
    let bad = |json: &str, needle: &str| single(json, 0).refused(&["model.safetensors", needle]);
    bad("{", "byte offset");
    bad("[]", "an object of tensors");
    bad("{} x", "trailing");
    bad("\u{feff}{}", "expected value");
    bad(&format!("{{\"a\":{}", "[".repeat(200_000)), "invalid type");
    bad(&format!("{{\"a\":{{\"x\":{}", "[".repeat(200_000)), "EOF while parsing");
    raw([&8u64.to_le_bytes()[..], b"{\"\xff\":1} "].concat()).refused(&["header is not valid"]);
    raw([&8u64.to_le_bytes()[..], b"{}\0\0\0\0\0\0"].concat()).refused(&["byte offset 10"]);
}

#[test]
fn names_and_fields_that_come_twice() {
    let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let twice = |name: &str| format!(r#"{{"layer.q":{entry},"{name}":{entry}}}"#);
    single(&twice("layer.q"), 4).refused(&["tensor layer.q", "duplicate tensor name"]);
    single(&twice("layer\\u002eq"), 4).refused(&["tensor layer.q", "duplicate tensor name"]);
    let json = r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    single(json, 4).refused(&["tensor a", "\"dtype\" twice"]);
    let json = r#"{"__metadata__":{"k":"1","k":"2"}}"#;
    single(json, 0).refused(&["__metadata__", "\"k\" twice"]);
    single(r#"{"__metadata__":{},"__metadata__":{}}"#, 0).refused(&["twice"]);
}

#[test]
fn offsets() {
    let two = |a: [i64; 2], b: [i64; 2]| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[{},{}]}},"b":{{"dtype":"U8","shape":[4],"data_offsets":[{},{}]}}}}"#,
            a[0], a[1], b[0], b[1]
        )
    };
    single(&two([0, 4], [2, 6]), 6).refused(&["tensor b", "overlaps", "tensor a"]);
    single(&two([0, 4], [6, 10]), 10).refused(&["tensor b", "hole", "byte 4", "byte 6"]);
    single(&two([2, 6], [6, 10]), 10).refused(&["tensor a", "hole", "the header"]);
    single(&two([0, 4], [4, 8]), 9).refused(&["after the last tensor"]);
    single(&two([0, 4], [4, 8]), 7).refused(&["tensor b", "outside the file"]);
    single(&two([0, 4], [8, 4]), 8).refused(&["tensor b", "size does not fit"]);
    single(&two([0, 4], [-4, 8]), 8).refused(&["tensor b", "integer `-4`"]);
    for bad in ["0.5", "\"0\"", "18446744073709551616", "null"] {
        let json = format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[{bad},4]}}}}"#);
        single(&json, 4).refused(&["tensor a", "expected u64"]);
    }
    let max = u64::MAX;
    let json = format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[{max},{max}]}}}}"#);
    single(&json, 4).refused(&["tensor a", "outside the file"]);
}

#[test]
fn sizes() {
    let one = |dtype: &str, shape: &str, end: u64| {
        format!(r#"{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    single(&one(r#""F32""#, "[4294967296,4294967296]", 8), 8)
        .refused(&["tensor a", "shape overflows"]);
    single(&one(r#""F64""#, "[1152921504606846976]", 8), 8)
        .refused(&["tensor a", "size overflows"]);
    single(&one(r#""F32""#, "[3]", 8), 8).refused(&["tensor a", "12 bytes for F32 [3]", "[0, 8]"]);
    single(&one(r#""F4""#, "[3]", 2), 2).refused(&["tensor a", "not whole bytes"]);
    for bad in [r#""f32""#, r#""FLOAT""#, "null", "7"] {
        single(&one(bad, "[2]", 8), 8).refused(&["tensor a", "header is not valid"]);
    }
    single(&one(r#""F32""#, &format!("[{}1]", "1,".repeat(1100)), 4), 4)
        .refused(&["over 1024 dimensions"]);
}

#[test]
fn metadata_must_be_text() {
    single(r#"{"__metadata__":{"a":1}}"#, 0).refused(&["__metadata__", "expected a string"]);
    single(r#"{"__metadata__":[]}"#, 0).refused(&["__metadata__", "an object of strings"]);
    single(r#"{"__metadata__":null}"#, 0).accepted();
}

#[test]
fn odd_but_well_formed_headers() {
    assert_eq!(single("{}", 0).accepted().tensors().count(), 0);
    single(&format!("   {ONE}   "), 8).accepted();
    let json = r#"{"a":{"x":[1,{"y":2}],"shape":[],"data_offsets":[0,1],"dtype":"U8"}}"#;
    assert_eq!(single(json, 1).accepted().tensors().next().unwrap().1.elements, 1);
    let ones = "1,".repeat(199);
    let json = format!(r#"{{"a":{{"dtype":"U8","shape":[{ones}1],"data_offsets":[0,1]}}}}"#);
    assert_eq!(single(&json, 1).accepted().tensors().next().unwrap().1.shape.len(), 200);
    let json = r#"{"empty":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"odd":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
    assert_eq!(single(json, 3).accepted().tensors().count(), 2);
    let metadata = "x".repeat(4_000_000);
    single(&format!(r#"{{"__metadata__":{{"k":"{metadata}"}}}}"#), 0).accepted();
}

#[test]
fn all_dtypes_are_carried() {
    for dtype in Dtype::ALL {
        let bytes = dtype.bits();
        let json =
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":[8],"data_offsets":[0,{bytes}]}}}}"#);
        let found = single(&json, bytes as usize).accepted();
        assert_eq!(found.tensors().next().unwrap().1.dtype, dtype);
    }
}

#[test]
fn hostile_names_are_never_printed_raw() {
    let long = "n".repeat(65_536);
    for name in ["\\u001b[31mred", "a\\nb", "../../etc/passwd", "\\u202etxt", &long] {
        let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,8]}"#;
        let case = single(&format!(r#"{{"{name}":{entry}}}"#), 8);
        let text = Checkpoint::open(case.path()).unwrap_err().to_string();
        assert!(!text.contains(['\u{1b}', '\n', '\u{202e}']), "{text:?}");
        assert!(text.len() < 1000, "{} bytes", text.len());
        let good = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        single(&format!(r#"{{"{name}":{good}}}"#), 8).accepted();
    }
}

#[test]
fn twenty_thousand_tensors_and_a_hundred_thousand_overlaps() {
    let entries = |count: usize, end: &dyn Fn(usize) -> usize| {
        let entry = |i| {
            let (begin, end) = (end(i), end(i + 1));
            format!(r#""t{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{begin},{end}]}}"#)
        };
        format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","))
    };
    let case = single(&entries(20_000, &|i| i), 20_000);
    assert_eq!(case.accepted().tensors().count(), 20_000);
    single(&entries(100_000, &|i| i % 2), 1).refused(&["overlaps"]);
}

/// Two shards and an index made of `weight_map` JSON.
fn sharded(weight_map: &str) -> Case {
    let case = Case::new();
    case.shard("a.safetensors", r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1);
    case.shard("b.safetensors", r#"{"y":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1);
    let index = format!(r#"{{"metadata":{{"total_size":2}},"weight_map":{weight_map}}}"#);
    case.file("model.safetensors.index.json", index);
    case
}

const GOOD_MAP: &str = r#"{"x":"a.safetensors","y":"b.safetensors"}"#;

#[test]
fn index_against_shards() {
    let good = sharded(GOOD_MAP).accepted();
    assert_eq!((good.layout(), good.shards().len()), (Layout::Sharded, 2));
    assert!(good.warnings().is_empty());
    sharded("{}").refused(&["empty weight_map"]);
    sharded(r#"{"x":"a.safetensors","y":"a.safetensors"}"#).refused(&[
        "tensor y",
        "it in a.safetensors",
        "it in no shard",
    ]);
    sharded(r#"{"x":"b.safetensors","y":"b.safetensors"}"#).refused(&["tensor x"]);
    sharded(r#"{"x":"a.safetensors","y":"c.safetensors","z":"d.safetensors"}"#)
        .refused(&["2 missing", "c.safetensors, d.safetensors"]);
    let both = sharded(GOOD_MAP);
    both.shard("b.safetensors", r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1);
    both.refused(&["tensor x", "tensor in two shards", "a.safetensors and in b.safetensors"]);
    let last = sharded(GOOD_MAP);
    last.file("b.safetensors", b"broken");
    last.refused(&["b.safetensors", "6 bytes"]);
}

#[test]
fn unlisted_tensors_and_total_size_are_said() {
    let unlisted = sharded(r#"{"x":"a.safetensors"}"#);
    // The shard of y is not named at all: a stray file, not part of the checkpoint.
    assert_eq!(unlisted.accepted().shards().len(), 1);
    let two = r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"hidden":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    let case = sharded(GOOD_MAP);
    case.shard("a.safetensors", two, 2);
    let said: Vec<String> = case.accepted().warnings().iter().map(ToString::to_string).collect();
    assert!(said[0].contains("tensor hidden is not in"), "{said:?}");
    assert!(said[1].contains("total_size is 2, the tensors have 3 bytes"), "{said:?}");
    for metadata in [r#""metadata":{"total_size":2.0},"#, r#""metadata":{},"#, ""] {
        let case = sharded(GOOD_MAP);
        case.file(
            "model.safetensors.index.json",
            format!(r#"{{{metadata}"weight_map":{GOOD_MAP}}}"#),
        );
        assert_eq!(case.accepted().warnings().len(), 1, "{metadata}");
    }
}

#[test]
fn index_json() {
    let case = |text: &str| {
        let case = sharded(GOOD_MAP);
        case.file("model.safetensors.index.json", text);
        case
    };
    let file = "model.safetensors.index.json";
    case("").refused(&[file]);
    case("[]").refused(&[file, "an object with weight_map"]);
    case("{}").refused(&[file, "weight_map"]);
    case(r#"{"weight_map":{"x":"a.safetensors","x":"b.safetensors"}}"#).refused(&["\"x\" twice"]);
    case(r#"{"weight_map":{},"weight_map":{}}"#).refused(&["\"weight_map\" twice"]);
    case(r#"{"weight_map":{"x":1}}"#).refused(&[file]);
}

#[test]
fn shard_names_that_leave_the_directory() {
    let long = format!("{}.safetensors", "s".repeat(300));
    for name in [
        "../a.safetensors",
        "/etc/a.safetensors",
        "b\\\\a.safetensors",
        "a\\u0000.safetensors",
        "",
        ".",
        "..",
        "sub/a.safetensors",
        "a.bin",
        &long,
    ] {
        sharded(&format!(r#"{{"x":"{name}","y":"b.safetensors"}}"#))
            .refused(&["tensor x", "bad shard name"]);
    }
}

#[test]
fn directories_without_one_set_of_weights() {
    Case::new().refused(&["no checkpoint here", "no weights at all"]);
    let case = Case::new();
    case.shard("model-00001-of-00002.safetensors", ONE, 8);
    case.refused(&["model-00001-of-00002.safetensors", "without their index"]);
    let case = Case::new();
    case.file("pytorch_model.bin", b"x");
    case.refused(&["pytorch_model.bin", "convert"]);
    let case = sharded(GOOD_MAP);
    case.shard("model.safetensors", ONE, 8);
    case.refused(&["two sets of weights"]);
    let case = single(ONE, 8);
    let error = Checkpoint::open(&case.path().join("model.safetensors")).unwrap_err();
    assert!(error.to_string().contains("not a directory"), "{error}");
}

#[test]
fn shards_that_are_no_regular_files() {
    let case = Case::new();
    fs::create_dir(case.path().join("model.safetensors")).unwrap();
    case.refused(&["not a regular file", "a directory"]);
    let case = Case::new();
    let fifo = case.path().join("model.safetensors");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    case.refused(&["not a regular file", "a FIFO"]);
    let case = Case::new();
    let _socket = std::os::unix::net::UnixListener::bind(case.path().join("model.safetensors"));
    case.refused(&["not a regular file", "a socket"]);
    let case = Case::new();
    symlink("/dev/zero", case.path().join("model.safetensors")).unwrap();
    case.refused(&["not a regular file", "a device"]);
    for target in ["nowhere", "model.safetensors"] {
        let case = Case::new();
        symlink(target, case.path().join("model.safetensors")).unwrap();
        let error = Checkpoint::open(case.path()).unwrap_err();
        assert!(error.to_string().contains("model.safetensors: cannot open"), "{error}");
    }
}

#[test]
fn a_hub_cache_made_of_links_is_a_checkpoint() {
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/1"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(blobs.join("0"), [with_length(ONE.to_owned()), vec![1; 8]].concat()).unwrap();
    symlink("../../blobs/0", snapshot.join("model.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(&snapshot).unwrap().tensors().count(), 1);
}

/// Name, dtype, shape and offsets of every tensor, by name.
type Tensors = Vec<(String, String, Vec<usize>, (usize, usize))>;

/// What the reference implementation makes of a file: tensors by name, or a refusal.
fn reference(bytes: &[u8]) -> Option<Tensors> {
    let read = std::panic::catch_unwind(|| safetensors::SafeTensors::read_metadata(bytes));
    let (_, metadata) = read.ok()?.ok()?;
    let mut all: Vec<_> = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            (name, format!("{:?}", info.dtype), info.shape.clone(), info.data_offsets)
        })
        .collect();
    all.sort();
    Some(all)
}

fn ours(path: &Path) -> Result<Tensors, String> {
    let checkpoint = Checkpoint::open(path).map_err(|e| e.to_string())?;
    let mut all: Vec<_> = checkpoint
        .tensors()
        .map(|(shard, t)| {
            let offsets =
                (t.begin - shard.data_begin) as usize..(t.end - shard.data_begin) as usize;
            let shape = t.shape.iter().map(|dim| *dim as usize).collect();
            (t.name.clone(), t.dtype.to_string(), shape, (offsets.start, offsets.end))
        })
        .collect();
    all.sort();
    Ok(all)
}

/// Whatever happens to a file, we accept only what the reference implementation reads the same way,
/// and refuse beyond it only for reasons that are written down.
fn agree(dir: &Path, file: &Path, bytes: &[u8]) {
    fs::write(file, bytes).unwrap();
    match (ours(dir), reference(bytes)) {
        (Ok(ours), theirs) => assert_eq!(Some(ours), theirs),
        (Err(why), Some(_)) => {
            let known = ["duplicate tensor name", "twice", "dimensions", "an object with dtype"];
            assert!(known.iter().any(|reason| why.contains(reason)), "only we refuse: {why}");
        }
        (Err(_), None) => {}
    }
}

#[test]
fn every_truncation_and_every_bit_of_a_header() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = [
        Tensor::new("model.norm.weight", Kind::F32, &[4]),
        Tensor::new("model.layers.0.self_attn.q_proj.weight", Kind::Bf16, &[4, 8]),
        Tensor::new("scale", Kind::Bytes("F8_E4M3"), &[2, 2]),
    ];
    write_checkpoint(dir.path(), &tensors, 1, Fill::Gaussian(1)).unwrap();
    let file: PathBuf = dir.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for length in 0..=bytes.len() {
        agree(dir.path(), &file, &bytes[..length]);
    }
    for bit in 0..8 * header {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        agree(dir.path(), &file, &flipped);
    }
}
