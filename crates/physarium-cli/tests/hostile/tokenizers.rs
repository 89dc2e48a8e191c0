//! Tokenizers, and the files beside them.

use serde_json::{Value, json};

use super::{Case, MODEL, case, check};

const RUN: [&str; 8] = [
    "run",
    "MODEL",
    "--prompt",
    "aaaaaaaaaaaaaaaaaaaaaaa é",
    "--max-tokens",
    "1",
    "--threads",
    "1",
];

/// The demo model's tokenizer with one field replaced.
fn with(field: &str, value: Value) -> String {
    let text = std::fs::read_to_string(format!("{MODEL}/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    match field.split_once('.') {
        Some((part, field)) => tokenizer[part][field] = value,
        None => tokenizer[field] = value,
    }
    tokenizer.to_string()
}

/// The demo model's tokenizer with a field of raw JSON.
fn with_raw(field: &str, raw: &str) -> String {
    with(field, "@raw@".into()).replace("\"@raw@\"", raw)
}

fn with_token(token: &str, id: i64) -> String {
    let text = with("model.merges", json!([]));
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    tokenizer["model"]["vocab"][token] = id.into();
    tokenizer.to_string()
}

fn regex(pattern: &str) -> String {
    with("pre_tokenizer", split(pattern))
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

fn sequence(member: Value, count: usize) -> Value {
    json!({"type": "Sequence", "normalizers": vec![member; count]})
}

fn added(content: &str, id: u32) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true})
}

fn unigram(vocab: Value, unk: Value) -> String {
    with("model", json!({"type": "Unigram", "unk_id": unk, "vocab": vocab}))
}

fn charsmap(trie: u32, rest: &[u8]) -> String {
    let bytes = [&trie.to_le_bytes(), rest].concat();
    let map = base64::encode(bytes);
    with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": map}))
}

fn components() -> Vec<Case> {
    let sequences = "{\"type\":\"Sequence\",\"normalizers\":[".repeat(100_000);
    let ends = "]}".repeat(100_000);
    let a = json!({"Sequence": {"id": "A", "type_id": 0}});
    let template = json!({"type": "TemplateProcessing", "single": vec![&a; 40], "pair": [], "special_tokens": {}});
    let disguised = json!({"type": "Sequence", "processors": [], "single": vec![&a; 40], "pair": [],
        "special_tokens": {}});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false});
    let many = json!({"type": "Sequence", "pretokenizers": vec![bytes; 30]});
    vec![
        case(
            "sequences in sequences",
            with_raw("normalizer", &(sequences + &ends)),
            "recursion limit",
        ),
        case("lists in lists", with_raw("decoder", &"[".repeat(1_000_000)), "tokenizer"),
        case(
            "many components",
            with("normalizer", sequence(json!({"type": "NFC"}), 99)),
            "components",
        ),
        case(
            "an unknown component",
            with("decoder", json!({"type": "\u{1b}[31mX"})),
            "\\u{1b}[31mX",
        ),
        case(
            "replacements that double",
            with("normalizer", sequence(replace("a", "aa"), 40)),
            "32 times",
        ),
        case("empty patterns", with("normalizer", sequence(replace("", "aa"), 40)), "27 times"),
        case(
            "a long replacement",
            with("normalizer", replace("a", &"b".repeat(5000))),
            "5000 times",
        ),
        case(
            "a long prefix",
            with("normalizer", json!({"type": "Prepend", "prepend": "a".repeat(5000)})),
            "5000 bytes",
        ),
        case("a decoder that doubles", with("decoder", replace("a", &"b".repeat(99))), "99 times"),
        case("bytes of bytes", with("pre_tokenizer", many), "components that add"),
        case(
            "a length of 0",
            with("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
            "length 0",
        ),
        case("a text many times", with("post_processor", template), "a text twice"),
        case("a text many times, disguised", with("post_processor", disguised), "nothing else"),
        case(
            "a decoder that strips",
            with(
                "decoder",
                json!({"type": "Strip", "content": "a", "start": 0, "stop": 1u64 << 60}),
            ),
            "number",
        ),
        case(
            "a map without its trie",
            charsmap(u32::MAX - 3, b"abc"),
            "4294967292 bytes in 3 bytes",
        ),
        case(
            "a trie out of bounds",
            charsmap(8, b"\xff\xff\xff\x7f\xff\xff\xff\x7fab"),
            "fails on",
        ),
        case(
            "a map to long texts",
            charsmap(4, &[&[0; 4][..], &[b'a'; 5000]].concat()),
            "5000 bytes",
        ),
        case(
            "no map",
            with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "!"})),
            "precompiled_charsmap",
        ),
        case("a pattern that backtracks", regex("(?=(a+)+$)(a|a)*\\1b"), ""),
        case("a pattern that looks ahead", regex(".(?=.*z)|(?=.*y)q"), ""),
        case("a pattern of 10⁹", regex("((\\p{L}{1000}){1000}){1000}"), "Regex error"),
        case("groups in groups", regex(&("(".repeat(2000) + &")".repeat(2000))), "nested"),
        case("a long pattern", regex(&"a".repeat(100_000)), "a pattern of 100000 bytes"),
        case(
            "padding",
            with(
                "padding",
                json!({"strategy": {"Fixed": 1u64 << 60}, "direction": "Right",
                "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}),
            ),
            "",
        ),
        case(
            "truncation",
            with("truncation", json!({"max_length": 1u64 << 60, "stride": 1u64 << 60})),
            "",
        ),
    ]
}

fn models() -> Vec<Case> {
    let pieces = |count: usize, tail: usize| -> Value {
        (0..count).map(|i| json!([format!("{i:06}{}", "x".repeat(tail)), -1.0])).collect()
    };
    let words = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "",
        "max_input_chars_per_word": 1u64 << 60, "vocab": {"a": 0}});
    let tokens: Value = (0..1_100_000)
        .map(|i| (format!("t{i}"), json!(i)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let added_tokens: Vec<Value> =
        (0..60_000).map(|i| added(&format!("<token {i}>"), 600 + i)).collect();
    vec![
        case("nothing", "", "EOF"),
        case("no object", "null", "tokenizer"),
        case("no model", "{}", "missing field `model`"),
        case("another version", with("version", "2.0".into()), "version 2.0"),
        case("a large file", " ".repeat(65 << 20), "at most 67108864 bytes"),
        case("an id of 2³² − 1", with_token("zz", 4_294_967_295), "id 4294967295"),
        case("an id of 2⁴⁰", with_token("zz", 1 << 40), "expected u32"),
        case("a negative id", with_token("zz", -1), "expected u32"),
        case("many tokens", with("model.vocab", tokens), "more than 1048576 tokens"),
        case("a long token", with_token(&"z".repeat(100_000), 600), "a token of 100000 bytes"),
        case("a merge of no tokens", with("model.merges", json!([["zz", "zz"]])), "no such token"),
        case(
            "a merge of a merge",
            with("model.merges", json!(["Ġbrought Ġbrought"])),
            "no such token",
        ),
        case(
            "a prefix in a character",
            with("model.continuing_subword_prefix", "aaaa".into()),
            "no such token",
        ),
        case(
            "a long prefix",
            with("model.continuing_subword_prefix", "a".repeat(99).into()),
            "99 bytes",
        ),
        case("random tokens", with("model.dropout", 0.5.into()), "dropout"),
        case(
            "an unknown token out of range",
            unigram(json!([["a", -1.0]]), json!(1u64 << 60)),
            "unk_id",
        ),
        case(
            "an infinite score",
            unigram(json!([["a", -1.0]]), json!(0)).replace("-1.0", "1e999"),
            "out of range",
        ),
        case("huge scores", unigram(json!([["a", -1e308], ["aa", 1e308]]), json!(0)), ""),
        case("no tokens", unigram(json!([]), Value::Null), "on the prompt"),
        case(
            "a deep tree of tokens",
            unigram(json!([["a".repeat(4000), -1.0]]), json!(0)),
            "4000 bytes",
        ),
        case("a wide tree of tokens", unigram(pieces(9000, 400), json!(0)), "different beginnings"),
        case("long words", with("model", words), "max_input_chars_per_word"),
        case("an empty added token", with("added_tokens", json!([added("", 0)])), ""),
        case(
            "a long added token",
            with("added_tokens", json!([added(&"x".repeat(5000), 600)])),
            "5000 bytes",
        ),
        case(
            "an added id of 2³² − 1",
            with("added_tokens", json!([added("zz", u32::MAX)])),
            "id 4294967295",
        ),
        case("many added tokens", with("added_tokens", added_tokens.into()), ""),
    ]
}

#[test]
fn hostile_components_are_answered() {
    check("tokenizer.json", &RUN, components());
}

#[test]
fn hostile_models_and_tokens_are_answered() {
    check("tokenizer.json", &RUN, models());
}

#[test]
fn hostile_files_beside_the_tokenizer_are_answered() {
    let decoder = |count: u32, length: usize| {
        let tokens = (0..count).map(|i| {
            let content = format!("<token {i}{}>", "x".repeat(length));
            (format!("{}", 512 + i), json!({ "content": content }))
        });
        json!({"added_tokens_decoder": tokens.collect::<serde_json::Map<_, _>>()}).to_string()
    };
    let id = json!({"added_tokens_decoder": {"4294967295": {"content": "zz"}}}).to_string();
    let cases = vec![
        // Each was added by itself, and the table of all built anew: 60 s.
        case("many added tokens", decoder(20_000, 0), ""),
        case("a long added token", decoder(1, 5000), "a token of"),
        case("an added id of 2³² − 1", id, "id 4294967295"),
        case("lists in lists", "[".repeat(1_000_000), "recursion limit"),
        case("a large file", " ".repeat(9 << 20), "at most 8388608 bytes"),
    ];
    check("tokenizer_config.json", &RUN, cases);
    let deep = || case("lists in lists", "[".repeat(1_000_000), "recursion limit");
    check("special_tokens_map.json", &RUN, vec![deep()]);
    check("added_tokens.json", &RUN, vec![deep()]);
    let large = || case("a large file", " ".repeat(5 << 20), "at most 4194304 bytes");
    check("generation_config.json", &RUN, vec![deep(), large()]);
    check("config.json", &RUN, vec![deep(), large()]);
}
