//! The index of a sharded checkpoint, by itself and against its shards.

use physarium_checkpoint::Layout;

use super::{Case, GOOD_MAP, INDEX, SINGLE, holding, indexed, sharded};

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

/// The head of a checkpoint, listed and not stored, with this config.
fn without_head(map: &str, config: &str) -> Case {
    sharded(map).file("config.json", config)
}

#[test]
fn a_tied_head_that_no_shard_holds_is_a_warning() {
    let map = |head: &str| {
        format!("{{{},\"{head}\":\"b.safetensors\"}}", &GOOD_MAP[1..GOOD_MAP.len() - 1])
    };
    let tied = r#"{"tie_word_embeddings": true}"#;
    for head in ["lm_head.weight", "language_model.lm_head.weight"] {
        let warnings = without_head(&map(head), tied).warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let said =
            format!("tensor {head} is not in b.safetensors; config.json says tie_word_embeddings");
        assert!(warnings[0].contains(&said), "{warnings:?}");
    }
    let text = r#"{"text_config": {"tie_word_embeddings": true}}"#;
    assert_eq!(without_head(&map("lm_head.weight"), text).warnings().len(), 1);
    let untied = [
        r#"{"tie_word_embeddings": false, "text_config": {"tie_word_embeddings": true}}"#,
        r#"{"tie_word_embeddings": "true"}"#,
        r#"{"text_config": 1}"#,
        "[]",
        "",
    ];
    for config in untied {
        let needles = ["tensor lm_head.weight: not found in any shard, expected b.safetensors"];
        without_head(&map("lm_head.weight"), config).refused(&needles);
    }
    for other in ["my_lm_head.weight", "lm_head.bias", "model.norm.weight"] {
        without_head(&map(other), tied).refused(&["not found in any shard"]);
    }
    // A head in another shard than the index says is not a tied one.
    let case = without_head(&map("lm_head.weight"), tied);
    let moved = case.shard("a.safetensors", &holding("lm_head.weight"), 1);
    moved.refused(&["tensor lm_head.weight: in another shard than the index says"]);
}

#[test]
fn an_index_of_the_single_file_beside_it_is_the_same_set_of_weights() {
    let both = |map: &str| {
        Case::new()
            .shard(SINGLE, &holding("x"), 1)
            .file(INDEX, format!(r#"{{"weight_map":{map}}}"#))
    };
    let case = both(r#"{"x":"model.safetensors"}"#);
    let opened = case.accepted();
    assert_eq!((opened.shards().len(), opened.shards()[0].name.as_str()), (1, SINGLE));
    both(r#"{"x":"model.safetensors","y":"model.safetensors"}"#)
        .blames(INDEX)
        .refused(&["tensor y: not found in any shard"]);
    both("{}").blames(INDEX).refused(&["empty weight_map"]);
    let stray = both(r#"{"x":"model.safetensors","y":"b.safetensors"}"#);
    stray.shard("b.safetensors", &holding("y"), 1).refused(&["two sets of weights", "both"]);
    both(r#"{"x":"a.safetensors"}"#).refused(&["two sets of weights", "both"]);
}
