//! The index of a sharded checkpoint, by itself and against its shards.

use physarium_checkpoint::Layout;

use super::{GOOD_MAP, holding, indexed, sharded};

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
    sharded(elsewhere)
        .refused(&["tensor y: not found in any shard, expected a.safetensors, found none"]);
    let swapped = r#"{"x":"b.safetensors","y":"a.safetensors"}"#;
    let swap = "tensor x: in another shard than the index says, expected b.safetensors, found a.safetensors";
    sharded(swapped).refused(&[swap]);
    let invented = r#"{"x":"a.safetensors","y":"b.safetensors","z":"b.safetensors"}"#;
    sharded(invented)
        .refused(&["tensor z: not found in any shard, expected b.safetensors, found none"]);
    sharded(GOOD_MAP).shard("b.safetensors", &holding("x"), 1).blames("b.safetensors").refused(&[
        "tensor x",
        "tensor in two shards",
        "a.safetensors and b.safetensors",
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
fn tensors_that_the_index_does_not_list_are_warnings() {
    let two = r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u001bh":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    let case = sharded(GOOD_MAP).shard("a.safetensors", two, 2);
    let warnings = case.warnings();
    assert!(warnings[0].starts_with("a.safetensors: tensor \\u{1b}h is not in"), "{warnings:?}");
    assert!(warnings[1].contains("total_size is 2, the tensors have 3 bytes"), "{warnings:?}");
    assert_eq!(case.accepted().tensors().count(), 3);
    // A stray shard is not part of the checkpoint; Sidecar::list leaves it out.
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
        let warnings = indexed(format!(r#"{{{metadata}"weight_map":{GOOD_MAP}}}"#)).warnings();
        assert_eq!(warnings.len(), 1, "{metadata}: {warnings:?}");
        assert!(warnings[0].contains(needle), "{metadata}: {warnings:?}");
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
