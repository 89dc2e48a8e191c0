//! The header of a shard: length field, JSON, offsets, shapes, dtypes and metadata.

use std::fs::File;
use std::time::{Duration, Instant};

use physarium_checkpoint::Dtype;

use super::{ONE, SINGLE, a, raw, raw_header, single};

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
fn a_header_over_the_limit_is_refused_even_if_the_file_is_longer() {
    let case = raw(100_000_001u64.to_le_bytes());
    let file = File::options().write(true).open(case.path().join(SINGLE)).unwrap();
    file.set_len(200_000_000).unwrap();
    let begun = Instant::now();
    case.refused(&["header length out of range", "the format allows 100000000"]);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn files_of_other_formats_are_recognised() {
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
fn deep_nesting_does_not_overflow_the_stack() {
    let deep = "[".repeat(200_000);
    single(&format!(r#"{{"a":{deep}"#), 0).refused(&["tensor a", "invalid type"]);
    single(&format!(r#"{{"a":{{"x":{deep}"#), 0).refused(&["tensor a", "recursion limit"]);
    let closed = format!("{deep}{}", "]".repeat(200_000));
    let json = ONE.replace("\"dtype\"", &format!("\"x\":{closed},\"dtype\""));
    single(&json, 8).refused(&["tensor a", "recursion limit"]);
}

#[test]
fn unknown_fields_are_validated_like_known_ones() {
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
fn duplicate_names_and_fields() {
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
fn fields_that_are_missing_or_of_another_type() {
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
    single(&two([0, 4], [6, 10]), 10).refused(&["tensor b", "gap", "byte 4", "byte 6"]);
    single(&two([2, 6], [6, 10]), 10).refused(&["tensor a", "gap", "the header", "byte 2"]);
    single(&two([0, 4], [4, 8]), 9).refused(&["after the last tensor"]);
    single(&two([0, 4], [4, 8]), 7).refused(&["tensor b", "outside the file", "at most 7 bytes"]);
    single(&two([0, 4], [8, 4]), 8).refused(&["tensor b", "size does not match", "[8, 4]"]);
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
    // Sixteen tensors of 2^60 bytes: the last ends at 2^64, which wraps to 0.
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
fn shapes_dtypes_and_sizes_that_do_not_match() {
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
fn all_dtypes_are_read() {
    assert_eq!(Dtype::ALL.len(), 22);
    for dtype in Dtype::ALL {
        let bytes = dtype.bits();
        let json = a(&format!("\"{dtype}\""), "[8]", &format!("[0,{bytes}]"));
        let read = single(&json, bytes as usize).read();
        assert_eq!(read, [("a".to_owned(), dtype, vec![8], [0, bytes])]);
    }
}
