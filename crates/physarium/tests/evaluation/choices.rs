//! Multiple-choice items: the scores are those of lm-evaluation-harness, and of the evaluator of texts.

use std::fs;
use std::path::{Path, PathBuf};

use physarium::checkpoint::{Arithmetic, BosPlace};
use physarium::{
    Cancel, Choices, ChoicesRequest, ChoicesResult, Error, EvalRequest, Silent, evaluate,
};
use serde_json::{Value, json};

use crate::StopAfter;

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo/model")
}

fn items() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/evaluation/items.jsonl")
}

/// A request for the bundled model, in float32.
fn request<'a>(model: &'a Path, file: &'a Path) -> ChoicesRequest<'a> {
    let arithmetic = Some(Arithmetic::F32);
    ChoicesRequest { model, against: None, file, threads: 2, arithmetic }
}

fn score(request: &ChoicesRequest<'_>) -> Result<ChoicesResult, String> {
    let choices = Choices::read(request, &mut Silent).map_err(|e| e.to_string())?;
    choices.score(&Cancel::default(), &mut Silent).map_err(|e| e.to_string())
}

/// The score of items by the bundled model, or the error.
fn score_items(items: &[Value]) -> Result<ChoicesResult, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("items.jsonl");
    let lines: Vec<String> = items.iter().map(Value::to_string).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    score(&request(&demo(), &file))
}

#[test]
fn scores_and_accuracies_are_those_of_lm_evaluation_harness() {
    let golden = fs::read(items().with_file_name("lm_eval.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let found = score(&request(&demo(), &items())).unwrap();
    let theirs = golden["items"].as_array().unwrap();
    assert_eq!((found.items, found.scores.len()), (theirs.len(), theirs.len()));
    for (own, theirs) in found.scores.iter().zip(theirs) {
        let expected = theirs["log_likelihoods"].as_array().unwrap();
        assert_eq!(own.taken.log_likelihoods.len(), expected.len());
        for (own, theirs) in own.taken.log_likelihoods.iter().zip(expected) {
            let theirs = theirs.as_f64().unwrap();
            assert!((own - theirs).abs() < 2e-6 * theirs.abs() + 1e-5, "{own} {theirs}");
        }
        let right = |choice| f64::from(u8::from(choice == own.answer));
        assert_eq!(theirs["acc"], right(own.taken.choice), "line {}", own.line);
        assert_eq!(theirs["acc_norm"], right(own.taken.choice_normalised), "line {}", own.line);
    }
    for (name, own) in [("acc", &found.accuracy), ("acc_norm", &found.accuracy_normalised)] {
        assert_eq!(golden[name].as_f64(), own.right.share);
        let theirs = golden[format!("{name}_stderr")].as_f64().unwrap();
        assert!((theirs - own.stderr.unwrap()).abs() < 1e-12);
    }
    // The last item has a longer context than the model supports.
    assert_eq!((found.cut_contexts, found.protocol.positions), (1, Some(512)));
    assert_eq!((found.partial, &found.accuracy.right.of[..]), (false, "items"));
}

#[test]
fn the_score_of_a_choice_is_that_of_its_tokens_in_a_text() {
    let (context, choices) = (
        "Tilda hid the ring under the bed and went to the school.",
        ["At the school she drew pictures on the wall.", "x", "Fog hid the houses, et déjà vu."],
    );
    let item = json!({"context": context, "choices": choices, "answer": 0});
    let found = score_items(&[item]).unwrap();
    let (dir, model) = (tempfile::tempdir().unwrap(), demo());
    let text = dir.path().join("text.txt");
    for (choice, log_likelihood) in choices.iter().zip(&found.scores[0].taken.log_likelihoods) {
        let nlls = |whole: &str, window: Option<usize>| {
            fs::write(&text, whole).unwrap();
            let request = EvalRequest {
                model: &model,
                against: None,
                text: &text,
                field: None,
                window,
                stride: window.map_or(Some(1), |_| None),
                limit: None,
                bos: BosPlace::Text,
                threads: 2,
                arithmetic: Some(Arithmetic::F32),
            };
            let request = EvalRequest { window: window.or(Some(2)), ..request };
            let scores = evaluate(&request, &Cancel::default(), &mut Silent).unwrap().tokens;
            scores.iter().map(|score| score.nll).collect::<Vec<f64>>()
        };
        // Every token but the first is scored, in windows of any length.
        let before = nlls(context, None).len();
        let whole = format!("{context} {choice}");
        let tokens = nlls(&whole, None).len() + 1;
        let own: f64 = nlls(&whole, Some(tokens))[before..].iter().sum();
        assert_eq!(-own, *log_likelihood, "{choice}");
    }
}

#[test]
fn the_score_of_an_item_depends_on_no_other() {
    let all = fs::read_to_string(items()).unwrap();
    let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let together = score_items(&lines).unwrap();
    for (line, expected) in lines.iter().zip(&together.scores) {
        let alone = score_items(std::slice::from_ref(line)).unwrap();
        assert_eq!(alone.scores[0].taken, expected.taken, "{line}");
    }
}

#[test]
fn a_cancelled_evaluation_returns_its_whole_items() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("many.jsonl");
    fs::write(&file, fs::read_to_string(items()).unwrap().repeat(5)).unwrap();
    let model = demo();
    let request = request(&model, &file);
    let whole = score(&request).unwrap();
    let stop_after = |tokens| {
        let cancel = Cancel::default();
        let mut progress = StopAfter { tokens, cancel: cancel.clone(), done: 0 };
        Choices::read(&request, &mut Silent).unwrap().score(&cancel, &mut progress)
    };
    let partial = stop_after(9_000).unwrap();
    assert!(partial.partial && (1..80).contains(&partial.items), "{}", partial.items);
    assert_eq!(partial.scores[..], whole.scores[..partial.items]);
    assert_eq!(partial.accuracy.right.whole, partial.items as u64);
    assert!(matches!(stop_after(10), Err(Error::Stopped)));
}

#[test]
fn items_without_context_begin_with_a_special_token() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(demo()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let file = dir.path().join("items.jsonl");
    let configure = |config: Value| {
        fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        score(&request(dir.path(), &file))
    };
    // Blanks belong to the choice, and what is left is no context.
    let items = [("", "Long ago a girl"), (" \n", "Long ago a girl"), ("", "Fog")];
    let line = |(context, choice): &(&str, &str)| {
        json!({"context": context, "choices": [choice, "x"], "answer": 0}).to_string() + "\n"
    };
    fs::write(&file, items.iter().map(line).collect::<String>()).unwrap();
    let added = configure(json!({"add_bos_token": true, "bos_token": "<s>"})).unwrap();
    assert_eq!(added.protocol.empty_context, None);
    let without = configure(json!({"add_bos_token": false, "bos_token": "<s>"})).unwrap();
    assert_eq!(without.protocol.empty_context.as_deref(), Some("<s>"));
    assert_eq!(without.scores, added.scores);
    let end = configure(json!({"add_bos_token": false, "eos_token": "</s>"})).unwrap();
    assert_eq!(end.protocol.empty_context.as_deref(), Some("</s>"));
    assert_ne!(end.scores, added.scores);
    let refused = configure(json!({"add_bos_token": false})).unwrap_err();
    for needle in ["items.jsonl", "line 1", "no bos_token and no eos_token"] {
        assert!(refused.contains(needle), "{refused}");
    }
}

#[test]
fn a_choice_is_at_most_as_long_as_the_model_supports() {
    let item =
        |words: usize| json!({"context": "a", "choices": ["b", "1 ".repeat(words)], "answer": 0});
    let refused = score_items(&[item(2), item(400)]).unwrap_err();
    for needle in ["items.jsonl", "line 2", "at most 512", "choice 1"] {
        assert!(refused.contains(needle), "no {needle} in {refused}");
    }
    let found = score_items(&[item(2), item(250)]).unwrap();
    assert!(found.scores.iter().all(|score| score.taken.log_likelihoods.iter().all(|l| *l < 0.0)));
}
