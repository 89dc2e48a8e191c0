//! Every malformed or odd checkpoint that opening must refuse or accept, and what it says.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use physarium_checkpoint::{Checkpoint, Dtype, ErrorKind, Layout};
use physarium_fixtures::{Fill, Kind, Tensor, with_length, write_checkpoint};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A directory put together by hand, and the file in it that a refusal must name.
struct Case {
    dir: tempfile::TempDir,
    fault: &'static str,
}

impl Case {
    /// An empty directory; refusals name the directory itself.
    fn new() -> Case {
        Case { dir: tempfile::tempdir().unwrap(), fault: "" }
    }

    fn blames(self, fault: &'static str) -> Case {
        Case { fault, ..self }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Case {
        fs::write(self.path().join(name), bytes).unwrap();
        self
    }

    fn shard(self, name: &str, json: &str, data: usize) -> Case {
        self.file(name, shard(json, data))
    }

    /// Asserts that opening fails as bad input, in one message that begins with the file at fault
    /// and has all of `needles`.
    #[track_caller]
    fn refused(&self, needles: &[&str]) {
        let error = Checkpoint::open(self.path()).expect_err("must be refused");
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Input, "{text}");
        let file = self.path().join(self.fault).display().to_string();
        let file = file.trim_end_matches('/');
        assert!(text.starts_with(&format!("{file}: ")), "no {file} in front of: {text}");
        for needle in needles {
            assert!(text.contains(needle), "no {needle:?} in: {text}");
        }
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "raw control in {text:?}");
    }

    #[track_caller]
    fn accepted(&self) -> Checkpoint {
        Checkpoint::open(self.path()).unwrap_or_else(|e| panic!("must be accepted: {e}"))
    }

    /// Name, dtype, shape and bytes within the data, of every tensor in file order.
    #[track_caller]
    fn read(&self) -> Vec<(String, Dtype, Vec<u64>, [u64; 2])> {
        let checkpoint = self.accepted();
        let one = |(shard, t): (&physarium_checkpoint::Shard, _)| {
            let t: &physarium_checkpoint::TensorInfo = t;
            let data = [t.begin - shard.data_begin, t.end - shard.data_begin];
            (t.name.clone(), t.dtype, t.shape.clone(), data)
        };
        checkpoint.tensors().map(one).collect()
    }

    #[track_caller]
    fn warnings(&self) -> Vec<String> {
        self.accepted().warnings().iter().map(ToString::to_string).collect()
    }
}

/// A shard from its header JSON and its number of data bytes.
fn shard(json: &str, data: usize) -> Vec<u8> {
    [with_length(json.to_owned()), vec![1; data]].concat()
}

fn single(json: &str, data: usize) -> Case {
    Case::new().blames(SINGLE).shard(SINGLE, json, data)
}

fn raw(bytes: impl AsRef<[u8]>) -> Case {
    Case::new().blames(SINGLE).file(SINGLE, bytes)
}

/// A file with this header and nothing added to it.
fn raw_header(json: &[u8]) -> Case {
    raw([&(json.len() as u64).to_le_bytes()[..], json].concat())
}

/// The header entry of tensor `a` from the JSON of its three fields.
fn a(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
}

const ONE: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

#[test]
fn length_field() {
    raw(b"").refused(&["too short", "at least 8 bytes", "0 bytes"]);
    raw(b"1234567").refused(&["too short", "7 bytes"]);
    raw([0; 8]).refused(&["header length", "found 0 bytes", "begins with zeros"]);
    for length in [9u64, 100_000_001, 1 << 63, u64::MAX, u64::MAX - 7, u64::MAX - 8] {
        let case = raw([&length.to_le_bytes()[..], b"{}      "].concat());
        case.refused(&["header length out of range", "16 bytes", &format!("found {length} bytes")]);
    }
}

#[test]
fn a_header_over_the_limit_is_refused_even_where_the_file_has_room() {
    let case = raw(100_000_001u64.to_le_bytes());
    let file = File::options().write(true).open(case.path().join(SINGLE)).unwrap();
    file.set_len(200_000_000).unwrap();
    let begun = Instant::now();
    case.refused(&["header length out of range", "the format allows 100000000"]);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn files_that_are_something_else() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    raw(lfs).refused(&["git-lfs pointer", "git lfs pull"]);
    raw("<!DOCTYPE html><html></html>").refused(&["web page"]);
    raw("\n  <html></html>").refused(&["web page"]);
    raw(b"PK\x03\x04aaaaaaaaaaaa").refused(&["zip file"]);
    raw(b"GGUF\x03\0\0\0aaaaaaaa").refused(&["GGUF"]);
    raw(b"\x80\x02}q\x00aaaaaaaaaaaa").refused(&["pickle"]);
    raw([0; 4096]).refused(&["begins with zeros"]);
}

#[test]
fn header_json() {
    let bad = |json: &str, needle: &str| single(json, 0).refused(&["byte offset", needle]);
    bad("{", "EOF while parsing");
    bad("[]", "an object of tensors");
    bad("\"text\"", "an object of tensors");
    bad("{} x", "trailing");
    bad("{}{}", "trailing");
    bad("\u{feff}{}", "expected value");
    bad(r#"{"a":NaN}"#, "tensor a");
    raw_header(b"{\"\xff\":1}").refused(&["header is not valid", "invalid unicode"]);
    raw_header(b"{}\0\0\0\0\0\0").refused(&["trailing characters", "byte offset 10"]);
    raw_header(&ONE.as_bytes()[..30]).refused(&["tensor a", "EOF while parsing"]);
}

#[test]
fn nesting_does_not_take_the_stack() {
    let deep = "[".repeat(200_000);
    single(&format!(r#"{{"a":{deep}"#), 0).refused(&["tensor a", "invalid type"]);
    single(&format!(r#"{{"a":{{"x":{deep}"#), 0).refused(&["tensor a", "recursion limit"]);
    let closed = format!("{deep}{}", "]".repeat(200_000));
    let json = ONE.replace("\"dtype\"", &format!("\"x\":{closed},\"dtype\""));
    single(&json, 8).refused(&["tensor a", "recursion limit"]);
}

#[test]
fn unknown_fields_are_read_as_strictly_as_known_ones() {
    let header = |value: &[u8]| {
        let (before, after) = ONE.as_bytes().split_at(6);
        let json = [before, b"\"x\":", value, b",", after].concat();
        raw([&(json.len() as u64).to_le_bytes()[..], &json, &[1; 8]].concat())
    };
    header(b"\"\xff\"").refused(&["tensor a", "invalid unicode"]);
    header(br#""\ud800""#).refused(&["tensor a", "hex escape"]);
    header(b"1e999").refused(&["tensor a", "number out of range"]);
    for good in [&b"null"[..], b"[1,-2,3.5,true,\"\\u00e9\"]", br#"{"y":{"z":[]}}"#] {
        assert_eq!(header(good).read().len(), 1);
    }
}

#[test]
fn names_and_fields_that_come_twice() {
    let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let twice = |name: &str| format!(r#"{{"layer.q":{entry},"other":{entry},"{name}":{entry}}}"#);
    single(&twice("layer.q"), 4).refused(&["tensor layer.q", "duplicate tensor name"]);
    single(&twice("layer\\u002eq"), 4).refused(&["tensor layer.q", "duplicate tensor name"]);
    for field in [r#""dtype":"F32""#, r#""shape":[1]"#, r#""data_offsets":[0,4]"#] {
        let name = field.split(':').next().unwrap();
        let json = format!(r#"{{"a":{}}}"#, entry.replace(field, &format!("{field},{field}")));
        single(&json, 4).refused(&["tensor a", &format!("{name} twice")]);
    }
    for key in ["k", "\\u006b"] {
        let json = format!(r#"{{"__metadata__":{{"k":"1","{key}":"2"}}}}"#);
        single(&json, 0).refused(&["__metadata__", "key \"k\" twice"]);
    }
    single(r#"{"__metadata__":{},"__metadata__":{}}"#, 0).refused(&["`__metadata__` twice"]);
    single(r#"{"__metadata__":{},"\u005f_metadata__":{}}"#, 0).refused(&["twice"]);
}

#[test]
fn fields_that_are_missing_or_of_another_form() {
    for (json, needle) in [
        (r#"{"a":{"shape":[1],"data_offsets":[0,1]}}"#, "missing field `dtype`"),
        (r#"{"a":{"dtype":"U8","data_offsets":[0,1]}}"#, "missing field `shape`"),
        (r#"{"a":{"dtype":"U8","shape":[1]}}"#, "missing field `data_offsets`"),
        (r#"{"a":["U8",[1],[0,1]]}"#, "an object with dtype, shape and data_offsets"),
        (r#"{"a":null}"#, "an object with dtype, shape and data_offsets"),
        (r#"{"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}}"#, "a list of dimensions"),
    ] {
        single(json, 1).refused(&["tensor a", needle]);
    }
}

#[test]
fn offsets() {
    let two = |a: [i64; 2], b: [i64; 2]| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a:?}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b:?}}}}}"#
        )
    };
    single(&two([0, 4], [4, 8]), 8).accepted();
    single(&two([0, 4], [2, 6]), 6).refused(&["tensor b", "overlaps", "byte 4", "tensor a"]);
    single(&two([0, 4], [0, 4]), 4).refused(&["tensor b", "overlaps", "tensor a"]);
    single(&two([0, 4], [6, 10]), 10).refused(&["tensor b", "hole", "byte 4", "byte 6"]);
    single(&two([2, 6], [6, 10]), 10).refused(&["tensor a", "hole", "the header", "byte 2"]);
    single(&two([0, 4], [4, 8]), 9).refused(&["after the last tensor"]);
    single(&two([0, 4], [4, 8]), 7).refused(&["tensor b", "outside the file", "at most 7 bytes"]);
    single(&two([0, 4], [8, 4]), 8).refused(&["tensor b", "size does not fit", "[8, 4]"]);
    single(&two([0, 4], [-4, 8]), 8).refused(&["tensor b", "integer `-4`"]);
    for bad in ["0.5", "0.0", "\"0\"", "18446744073709551616", "null", "-1"] {
        single(&a(r#""U8""#, "[4]", &format!("[{bad},4]")), 4)
            .refused(&["tensor a", "expected u64"]);
    }
    for bad in ["[]", "[0]", "[0,4,8]", "4", "{}", "null"] {
        single(&a(r#""U8""#, "[4]", bad), 4).refused(&["tensor a", "header is not valid"]);
    }
}

#[test]
fn offsets_and_sizes_that_wrap() {
    let max = u64::MAX;
    let json = a(r#""U8""#, "[4]", &format!("[{max},{max}]"));
    single(&json, 4).refused(&["tensor a", "outside the file"]);
    let json = a(r#""U8""#, &format!("[{max}]"), &format!("[0,{max}]"));
    single(&json, 4).refused(&["tensor a", "overflows"]);
    let big = 1u64 << 60;
    let json = a(r#""U8""#, &format!("[{big}]"), &format!("[0,{big}]"));
    single(&json, 4).refused(&["tensor a", "outside the file"]);
    // Sixteen tensors of 2^60 bytes: the last one ends at 2^64, which wraps to 0.
    let entry = |i: u64| {
        let (begin, end) = (i << 60, (i + 1).wrapping_mul(big));
        format!(r#""t{i}":{{"dtype":"U8","shape":[{big}],"data_offsets":[{begin},{end}]}}"#)
    };
    let all: Vec<String> = (0..16).map(entry).collect();
    single(&format!("{{{}}}", all.join(",")), 0).refused(&["tensor t", "outside the file"]);
    let two_tib = 2u64 << 40;
    let json = a(r#""F32""#, &format!("[{}]", two_tib / 4), &format!("[0,{two_tib}]"));
    single(&json, 4000).refused(&["tensor a", "outside the file", "at most 4000 bytes"]);
}

#[test]
fn shapes_dtypes_and_sizes_that_do_not_fit() {
    let one =
        |dtype: &str, shape: &str, end: usize| single(&a(dtype, shape, &format!("[0,{end}]")), end);
    one(r#""F32""#, "[4294967296,4294967296]", 8).refused(&["tensor a", "shape overflows", "2^64"]);
    one(r#""F32""#, "[4294967296,4294967296,0]", 0).refused(&["tensor a", "shape overflows"]);
    one(r#""F64""#, "[1152921504606846976]", 8).refused(&["tensor a", "size overflows"]);
    one(r#""F32""#, "[3]", 8).refused(&["tensor a", "12 bytes for F32 [3]", "[0, 8]"]);
    one(r#""BF16""#, "[2,2]", 16).refused(&["tensor a", "8 bytes for BF16 [2, 2]", "[0, 16]"]);
    one(r#""F32""#, "[0]", 4).refused(&["tensor a", "0 bytes for F32 [0]"]);
    one(r#""F4""#, "[3]", 2).refused(&["tensor a", "not whole bytes", "F4 [3]"]);
    one(r#""F6_E2M3""#, "[1]", 1).refused(&["tensor a", "not whole bytes"]);
    for bad in [r#""f32""#, r#""FLOAT""#, r#""""#, "null", "7", r#"{"F32":null}"#] {
        one(bad, "[2]", 8).refused(&["tensor a", "header is not valid"]);
    }
    for bad in ["[-1]", "[1.0]", "[\"1\"]", "[null]", "[18446744073709551616]"] {
        one(r#""U8""#, bad, 1).refused(&["tensor a", "expected u64"]);
    }
    one(r#""U8""#, &format!("[{}1]", "1,".repeat(1024)), 1).refused(&["over 1024 dimensions"]);
    let most = format!("[{}1]", "1,".repeat(1023));
    assert_eq!(one(r#""U8""#, &most, 1).read()[0].2.len(), 1024);
}

#[test]
fn metadata_must_be_text() {
    for bad in ["1", "null", "[]", "{}", "true"] {
        single(&format!(r#"{{"__metadata__":{{"a":{bad}}}}}"#), 0)
            .refused(&["__metadata__", "expected a string"]);
    }
    single(r#"{"__metadata__":[]}"#, 0).refused(&["__metadata__", "an object of strings"]);
    single(r#"{"__metadata__":"x"}"#, 0).refused(&["__metadata__", "an object of strings"]);
    assert!(single(r#"{"__metadata__":null}"#, 0).read().is_empty());
    assert!(single(r#"{"__metadata__":{}}"#, 0).read().is_empty());
    let metadata = "x".repeat(4_000_000);
    assert!(single(&format!(r#"{{"__metadata__":{{"k":"{metadata}"}}}}"#), 0).read().is_empty());
}

#[test]
fn odd_but_well_formed_headers() {
    assert!(single("{}", 0).read().is_empty());
    let as_written = single(ONE, 8).read();
    assert_eq!(as_written, [("a".to_owned(), Dtype::F32, vec![2], [0, 8])]);
    assert_eq!(single(&format!(" \n\t {ONE}   "), 8).read(), as_written);
    let odd = format!("{ONE}{}", " ".repeat(1 + ONE.len() % 2));
    assert_eq!(odd.len() % 2, 1);
    let bytes = [&(odd.len() as u64).to_le_bytes()[..], odd.as_bytes(), &[1; 8]].concat();
    assert_eq!(raw(bytes).read(), as_written);
    let scalar = r#"{"a":{"x":[1,{"y":2}],"shape":[],"data_offsets":[0,1],"dtype":"U8"}}"#;
    assert_eq!(single(scalar, 1).read(), [("a".to_owned(), Dtype::U8, vec![], [0, 1])]);
    let json = a(r#""U8""#, &format!("[{}1]", "1,".repeat(199)), "[0,1]");
    assert_eq!(single(&json, 1).read()[0].2, [1; 200]);
}

#[test]
fn empty_misaligned_and_unordered_tensors() {
    let json = r#"{"z":{"dtype":"F32","shape":[1],"data_offsets":[3,7]},"odd":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"end":{"dtype":"F32","shape":[0,7],"data_offsets":[7,7]},"empty":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}}"#;
    let read = single(json, 7).read();
    let names: Vec<&str> = read.iter().map(|tensor| tensor.0.as_str()).collect();
    assert_eq!(names, ["empty", "odd", "z", "end"]);
    assert_eq!(read[2], ("z".to_owned(), Dtype::F32, vec![1], [3, 7]));
}

#[test]
fn all_dtypes_are_carried() {
    assert_eq!(Dtype::ALL.len(), 22);
    for dtype in Dtype::ALL {
        let bytes = dtype.bits();
        let json = a(&format!("\"{dtype}\""), "[8]", &format!("[0,{bytes}]"));
        let read = single(&json, bytes as usize).read();
        assert_eq!(read, [("a".to_owned(), dtype, vec![8], [0, bytes])]);
    }
}

#[test]
fn hostile_names_are_carried_but_never_printed_raw() {
    let long = "n".repeat(65_536);
    let names = ["\\u001b[31mred", "a\\nb", "../../etc/passwd", "\\u202etxt", "", " ", &long];
    for name in names {
        let named = |end: u64| {
            format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,{end}]}}}}"#)
        };
        let text = Checkpoint::open(single(&named(8), 8).path()).unwrap_err().to_string();
        assert!(!text.contains(['\u{1b}', '\n', '\u{202e}']), "{text:?}");
        assert!(text.contains("size does not fit") && text.len() < 1000, "{} bytes", text.len());
        let read = single(&named(4), 4).read();
        let spelt: String = serde_json::from_str(&format!("\"{name}\"")).unwrap();
        assert_eq!(read[0].0, spelt);
    }
    let twins = r#"{"\u00e9":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"e\u0301":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    assert_eq!(single(twins, 2).read().len(), 2);
}

#[test]
fn hostile_text_is_never_printed_raw_nor_whole() {
    let long = "\\u001b\\u202e".repeat(30_000);
    for json in [
        a(&format!("\"{long}\""), "[1]", "[0,1]"),
        a(r#""U8""#, &format!("\"{long}\""), "[0,1]"),
        a(r#""U8""#, "[1]", &format!("\"{long}\"")),
        format!(r#"{{"a":"{long}"}}"#),
        format!(r#"{{"__metadata__":{{"{long}":"","{long}":""}}}}"#),
        format!(r#"{{"__metadata__":"{long}"}}"#),
    ] {
        let case = single(&json, 1);
        case.refused(&["header is not valid"]);
        let text = Checkpoint::open(case.path()).unwrap_err().to_string();
        assert!(text.len() < 5000, "{} bytes", text.len());
    }
    for map in [
        format!(r#"{{"x":"{long}"}}"#),
        format!(r#"{{"{long}":1}}"#),
        format!(r#"{{"{long}":"a.safetensors","{long}":"a.safetensors"}}"#),
        format!(r#"{{"{long}":"a.safetensors","y":"b.safetensors"}}"#),
        r#"{"x":"\u001b.safetensors"}"#.to_owned(),
        r#"{"x":"\u202e.safetensors"}"#.to_owned(),
    ] {
        let case = sharded(&map);
        case.refused(&[]);
        let text = Checkpoint::open(case.path()).unwrap_err().to_string();
        assert!(text.len() < 5000, "{} bytes", text.len());
    }
}

/// The header of `count` tensors of one byte, `end(i)` being where tensor `i` begins.
fn many(count: usize, end: impl Fn(usize) -> usize) -> String {
    let entry = |i| {
        let (begin, end) = (end(i), end(i + 1));
        format!(r#""t{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{begin},{end}]}}"#)
    };
    format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","))
}

#[test]
fn many_tensors_take_linear_time() {
    let begun = Instant::now();
    assert_eq!(single(&many(20_000, |i| i), 20_000).read().len(), 20_000);
    assert_eq!(single(&many(200_000, |i| i), 200_000).read().len(), 200_000);
    single(&many(100_000, |i| i % 2), 1).refused(&["overlaps"]);
    // A pass for every tensor would take minutes.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn two_hundred_shards_and_the_last_one_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let tensors: Vec<Tensor> =
        (0..400).map(|i| Tensor::new(format!("t{i:03}"), Kind::Bf16, &[3, 5])).collect();
    write_checkpoint(dir.path(), &tensors, 200, Fill::Gaussian(1)).unwrap();
    let good = Checkpoint::open(dir.path()).unwrap();
    assert_eq!((good.shards().len(), good.tensors().count()), (200, 400));
    let last = dir.path().join("model-00200-of-00200.safetensors");
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() - 1]).unwrap();
    Case { dir, fault: "model-00200-of-00200.safetensors" }.refused(&["tensor t399", "outside"]);
}

/// Header of a shard with one tensor of one byte.
fn holding(name: &str) -> String {
    format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#)
}

/// Two shards, `x` in `a.safetensors` and `y` in `b.safetensors`, and this index.
fn indexed(index: impl AsRef<[u8]>) -> Case {
    Case::new()
        .blames(INDEX)
        .shard("a.safetensors", &holding("x"), 1)
        .shard("b.safetensors", &holding("y"), 1)
        .file(INDEX, index)
}

fn sharded(weight_map: &str) -> Case {
    indexed(format!(r#"{{"metadata":{{"total_size":2}},"weight_map":{weight_map}}}"#))
}

const GOOD_MAP: &str = r#"{"x":"a.safetensors","y":"b.safetensors"}"#;

#[test]
fn a_good_index() {
    let good = sharded(GOOD_MAP).accepted();
    assert_eq!((good.layout(), good.shards().len()), (Layout::Sharded, 2));
    assert!(good.warnings().is_empty());
    let names: Vec<&str> = good.tensors().map(|(_, tensor)| tensor.name.as_str()).collect();
    assert_eq!(names, ["x", "y"]);
}

#[test]
fn index_against_shards() {
    sharded("{}").refused(&["empty weight_map"]);
    let elsewhere = r#"{"x":"a.safetensors","y":"a.safetensors"}"#;
    sharded(elsewhere).refused(&["tensor y", "it in a.safetensors", "it in no shard"]);
    let swapped = r#"{"x":"b.safetensors","y":"a.safetensors"}"#;
    sharded(swapped).refused(&["tensor x", "it in b.safetensors", "it in a.safetensors"]);
    let invented = r#"{"x":"a.safetensors","y":"b.safetensors","z":"b.safetensors"}"#;
    sharded(invented).refused(&["tensor z", "it in b.safetensors", "it in no shard"]);
    sharded(GOOD_MAP).shard("b.safetensors", &holding("x"), 1).blames("b.safetensors").refused(&[
        "tensor x",
        "tensor in two shards",
        "a.safetensors and in b.safetensors",
    ]);
    sharded(GOOD_MAP)
        .file("b.safetensors", b"broken")
        .blames("b.safetensors")
        .refused(&["at least 8 bytes", "6 bytes"]);
}

#[test]
fn every_missing_shard_is_listed_at_once() {
    let map =
        r#"{"x":"a.safetensors","y":"c.safetensors","z":"d.safetensors","w":"e.safetensors"}"#;
    let needles = ["all 4 shards", "3 missing: c.safetensors, d.safetensors, e.safetensors"];
    sharded(map).refused(&needles);
}

#[test]
fn tensors_that_the_index_does_not_list_are_said() {
    let two = r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u001bh":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    let case = sharded(GOOD_MAP).shard("a.safetensors", two, 2);
    let said = case.warnings();
    assert!(said[0].starts_with("a.safetensors: tensor \\u{1b}h is not in"), "{said:?}");
    assert!(said[1].contains("total_size is 2, the tensors have 3 bytes"), "{said:?}");
    assert_eq!(case.accepted().tensors().count(), 3);
    // A stray shard is not part of the checkpoint; Sidecar::list says that it is left out.
    let stray = sharded(r#"{"x":"a.safetensors"}"#).accepted();
    assert_eq!(stray.shards().len(), 1);
}

#[test]
fn total_size_is_a_warning_at_most() {
    for (metadata, needle) in [
        (r#""metadata":{"total_size":3},"#, "total_size is 3, the tensors have 2 bytes"),
        (r#""metadata":{"total_size":-2},"#, "total_size is -2"),
        (r#""metadata":{"total_size":2.0},"#, "total_size is 2.0"),
        (r#""metadata":{"total_size":"2"},"#, "no metadata.total_size"),
        (r#""metadata":{"total_size":null},"#, "no metadata.total_size"),
        (r#""metadata":{},"#, "no metadata.total_size"),
        (r#""metadata":null,"#, "no metadata.total_size"),
        ("", "no metadata.total_size"),
    ] {
        let said = indexed(format!(r#"{{{metadata}"weight_map":{GOOD_MAP}}}"#)).warnings();
        assert_eq!(said.len(), 1, "{metadata}: {said:?}");
        assert!(said[0].contains(needle), "{metadata}: {said:?}");
    }
}

#[test]
fn index_json() {
    for (text, needle) in [
        ("", "EOF while parsing"),
        ("[]", "an object with weight_map"),
        ("{}", "missing field `weight_map`"),
        ("\u{feff}{}", "expected value"),
        (r#"{"weight_map":{}} x"#, "trailing"),
        (r#"{"weight_map":{"x":1}}"#, "expected a string"),
        (r#"{"weight_map":[]}"#, "an object"),
        (r#"{"weight_map":{},"metadata":7}"#, "an object"),
        (r#"{"weight_map":{"x":"a.safetensors","x":"b.safetensors"}}"#, "key \"x\" twice"),
        (r#"{"weight_map":{"x":"a.safetensors","\u0078":"a.safetensors"}}"#, "key \"x\" twice"),
        (r#"{"weight_map":{},"weight_map":{}}"#, "\"weight_map\" twice"),
        (r#"{"metadata":{},"metadata":{},"weight_map":{}}"#, "\"metadata\" twice"),
        (r#"{"metadata":null,"metadata":{},"weight_map":{}}"#, "\"metadata\" twice"),
        (r#"{"metadata":{"a":1,"a":1},"weight_map":{}}"#, "key \"a\" twice"),
    ] {
        indexed(text).refused(&["index is not valid", needle, "byte offset"]);
    }
    indexed(b"{\"x\":\"\xff\",\"weight_map\":{}}").refused(&["invalid unicode"]);
    let deep = format!(r#"{{"x":{}"#, "[".repeat(200_000));
    indexed(deep).refused(&["recursion limit"]);
    let odd = format!(
        r#" {{"x":[{{}}],"weight_map":{GOOD_MAP},"metadata":{{"total_size":2,"y":[1]}}}} "#
    );
    assert!(indexed(odd).warnings().is_empty());
}

#[test]
fn shard_names_that_are_not_plain_file_names() {
    let long = format!("{}.safetensors", "s".repeat(300));
    for (name, needle) in [
        ("../a.safetensors", "may leave the checkpoint: \"../a.safetensors\""),
        ("/etc/a.safetensors", "may leave the checkpoint"),
        ("b\\\\a.safetensors", "may leave the checkpoint"),
        ("sub/a.safetensors", "may leave the checkpoint"),
        ("a\\u0000.safetensors", "a control character"),
        ("a\\n.safetensors", "a control character"),
        ("", "an empty name"),
        (".", "a directory"),
        ("..", "a directory"),
        ("a.bin", "without .safetensors: \"a.bin\""),
        (&long, "over 255 bytes"),
    ] {
        sharded(&format!(r#"{{"x":"{name}","y":"b.safetensors"}}"#)).refused(&[
            "tensor x",
            "bad shard name",
            needle,
        ]);
    }
}

#[test]
fn directories_without_one_set_of_weights() {
    Case::new().refused(&["no checkpoint here", SINGLE, INDEX, "no weights at all"]);
    Case::new()
        .shard("model-00001-of-00002.safetensors", ONE, 8)
        .refused(&["model-00001-of-00002.safetensors", "without their index"]);
    Case::new().file("pytorch_model.bin", b"x").refused(&["pytorch_model.bin", "convert"]);
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

/// Cases in which each kind of weights file in turn is made by `make`.
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
fn weights_that_are_no_regular_files() {
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
fn weights_that_are_links_to_nowhere() {
    let dangling = |path: &Path| symlink("../../blobs/none", path).unwrap();
    for_each_weights_file(dangling, &["link leads nowhere", "No such file", "fetch it again"]);
    let looping = |path: &Path| symlink(path, path).unwrap();
    for_each_weights_file(looping, &["link leads nowhere"]);
}

#[test]
fn a_hub_cache_made_of_links_is_a_checkpoint() {
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
