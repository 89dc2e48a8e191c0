//! `eval --choices` from a user's view, on the demo model. Scores are compared in `crates/physarium/tests/evaluation`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Work;
use super::eval::fields;

/// A copy of the demo model, a text, and 16 items, of which the model has 7 right, and 12 per character.
fn work() -> Work {
    let work = super::eval::work();
    let items = "../physarium/tests/evaluation/items.jsonl";
    let items = Path::new(env!("CARGO_MANIFEST_DIR")).join(items);
    fs::copy(items, work.path("items.jsonl")).unwrap();
    work
}

fn without_times(mut result: Value) -> Value {
    for varies in ["seconds", "tokens_per_second", "peak_rss_bytes"] {
        result.as_object_mut().unwrap().remove(varies);
    }
    result
}

const JSON: &str = "--choices items.jsonl --arithmetic f32 --format json";

#[test]
fn accuracy_needs_no_text_and_names_its_denominator() {
    let work = work();
    let found = work.json(&format!("eval demo {JSON}"));
    assert_eq!(found["schema"], "physarium.choices/1");
    let accuracy = &found["accuracy"];
    assert_eq!((&accuracy["part"], &accuracy["whole"]), (&7.into(), &16.into()));
    assert_eq!((&accuracy["of"], &accuracy["share"]), (&"items".into(), &0.4375.into()));
    assert_eq!(found["accuracy_normalised"]["share"], 0.75);
    assert_eq!((&found["partial"], &found["protocol"]["items"]), (&false.into(), &16.into()));
    let said = work.ok("eval demo --choices items.jsonl --arithmetic f32");
    for needle in ["43.75 % of items (7 of 16) ± 12.81 %", "75.00 % of items", "per character"] {
        assert!(said.contains(needle), "no {needle:?} in {said}");
    }
    assert!(!said.contains("perplexity"), "{said}");
    let help = work.ok("eval --help");
    for needle in ["<--text <FILE>|--choices <FILE>>", "acc_norm", "--per-item"] {
        assert!(help.contains(needle), "no {needle:?} in {help}");
    }
}

/// The last token of a choice is predicted and not read.
#[test]
fn a_choice_outside_the_vocabulary_is_refused() {
    let work = work();
    let path = work.path("demo/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let added = serde_json::json!({
        "id": 512, "content": "<zz>", "special": false, "normalized": false,
        "single_word": false, "lstrip": false, "rstrip": false,
    });
    tokenizer["added_tokens"].as_array_mut().unwrap().push(added);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let item = "{\"context\":\"The cell\",\"choices\":[\"wall\",\"<zz>\"],\"answer\":0}";
    fs::write(work.path("zz.jsonl"), item).unwrap();
    let needles = ["demo: token 512 is outside the vocabulary of 512"];
    work.fails(2, "eval demo --choices zz.jsonl", &needles);
}

#[test]
fn a_text_and_items_are_measured_by_one_command() {
    let work = work();
    let text = "--text text.txt --window 256";
    let mut both = work.json(&format!("eval demo {text} {JSON}"));
    let choices = both.as_object_mut().unwrap().remove("choices").unwrap();
    assert_eq!(without_times(choices), without_times(work.json(&format!("eval demo {JSON}"))));
    let alone = work.json(&format!("eval demo {text} --arithmetic f32 --format json"));
    assert_eq!(without_times(both), without_times(alone));
    let said = work.ok(&format!("eval demo {text} --choices items.jsonl"));
    assert!(said.starts_with("perplexity") && said.contains("\naccuracy "), "{said}");
    // The items are checked before the text is scored.
    fs::write(work.path("bad.jsonl"), "{}").unwrap();
    let bad = format!("eval demo {text} --choices bad.jsonl --per-token tokens");
    work.fails(2, &bad, &["bad.jsonl", "line 1", "missing field"]);
    assert!(!work.path("tokens").exists());
}

#[test]
fn the_documentation_lists_every_field() {
    let work = work();
    let (mut found, mut documented) = (Vec::new(), Vec::new());
    let choices = work.json(&format!("eval demo --against demo {JSON} --per-item scores"));
    fields(&choices, "", &mut found);
    let example = super::formats::block("json choices");
    fields(&serde_json::from_str(&example).unwrap(), "", &mut documented);
    assert_eq!(found, documented);
    let lines = fs::read_to_string(work.path("scores")).unwrap();
    let keys = |line: &str| {
        let mut keys = Vec::new();
        fields(&serde_json::from_str(line).unwrap(), "", &mut keys);
        keys
    };
    let example = super::formats::block("json per-item").replace('\n', " ");
    assert_eq!(keys(lines.lines().next().unwrap()), keys(&example));
    // The documented items are items.
    fs::write(work.path("items.jsonl"), super::formats::block("jsonl choices")).unwrap();
    work.ok(&format!("eval demo {JSON}"));
}

#[test]
fn threads_and_packing_change_no_bit() {
    let work = work();
    work.ok("prune demo --out half --method magnitude --sparsity 0.5 --quiet");
    work.ok("pack half --out half.physpack --quiet");
    let of = |model: &str, threads: u32| {
        let more = format!("--against demo --threads {threads} --per-item scores {JSON}");
        let mut found = without_times(work.json(&format!("eval {model} {more}")));
        found["protocol"].as_object_mut().unwrap().remove("threads");
        (found, fs::read_to_string(work.path("scores")).unwrap())
    };
    let (found, scores) = of("half", 1);
    assert_eq!(scores.lines().count(), 16);
    assert_eq!((&found, &scores), (&of("half", 3).0, &of("half", 3).1));
    assert_eq!((&found, &scores), (&of("half.physpack", 2).0, &of("half.physpack", 2).1));

    // What differs from the dense model is counted item by item.
    let lines = || scores.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    for (by, against, name) in [
        ("choice", "against_choice", "accuracy"),
        ("choice_normalised", "against_choice_normalised", "accuracy_normalised"),
    ] {
        let count = |of: &dyn Fn(&Value, &Value, &Value) -> bool| {
            lines().filter(|line| of(&line[by], &line[against], &line["answer"])).count()
        };
        let compared = &found["against"][name];
        assert_eq!(found[name]["part"], count(&|own, _, answer| own == answer));
        assert_eq!(compared["part"], count(&|_, other, answer| other == answer));
        assert_eq!(compared["changed"], count(&|own, other, _| own != other));
        let gained = count(&|own, other, answer| own == answer && other != answer);
        let lost = count(&|own, other, answer| own != answer && other == answer);
        assert_eq!((&compared["gained"], &compared["lost"]), (&gained.into(), &lost.into()));
        let difference = (gained as f64 - lost as f64) / 16.0;
        assert_eq!(compared["difference"], difference);
    }
    assert_ne!(found["against"]["accuracy"]["changed"], 0, "half of the weights are zero: {found}");
    let dense = work.json(&format!("eval demo {JSON}"));
    assert_eq!(found["against"]["accuracy"]["part"], dense["accuracy"]["part"]);
}

#[test]
fn what_is_not_an_item_is_refused() {
    let work = work();
    let good = r#"{"context": "a", "choices": ["b", "c"], "answer": 1}"#;
    let refused = |content: &str, needles: &[&str]| {
        fs::write(work.path("bad.jsonl"), content).unwrap();
        work.fails(2, "eval demo --choices bad.jsonl", &[&["bad.jsonl"], needles].concat());
    };
    refused("", &["no item"]);
    refused(&format!("{good}\n{{"), &["line 2", "column 1"]);
    refused(&good.replace("answer", "label"), &["line 1", "unknown field `label`"]);
    refused(&good.replace("1}", "2}"), &["line 1", "0 to 1", "hint: choices are counted from 0"]);
    refused(&good.replace("\"c\"", "\"\""), &["line 1", "choice 1 is empty"]);
    refused(&good.replace(", \"c\"", ""), &["line 1", "at least 2 choices"]);
    refused(&good.replace("\"a\"", "\"\u{1b}[2J\", \"\u{1b}\": 3"), &["line 1"]);
    work.fails(2, "eval demo --choices nowhere.jsonl", &["nowhere.jsonl", "No such file"]);
    work.fails(2, "eval demo --choices demo", &["demo"]);
}

#[test]
fn models_that_cannot_be_scored_are_refused() {
    let work = work();
    let command = "eval demo --choices items.jsonl";
    // The same tokens, but no token before the context.
    work.ok("prune demo --out half --method magnitude --sparsity 0.5 --quiet");
    let path = work.path("half/tokenizer_config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("\"add_bos_token\": true", "\"add_bos_token\": false"))
        .unwrap();
    work.fails(2, &format!("{command} --against half"), &["half", "different tokenizers"]);

    work.fill_with_nan("demo/model-00001-of-00002.safetensors");
    work.fails(2, command, &["demo", "NaN"]);
    fs::remove_file(work.path("demo/tokenizer.json")).unwrap();
    work.fails(2, command, &["tokenizer.json", "tokenizer is missing"]);
}
