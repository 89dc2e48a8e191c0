//! `eval` from a user's view, on the demo model.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Work;

/// A copy of the demo model, to be changed, and a text.
pub fn work() -> Work {
    let work = Work::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    fs::create_dir(work.path("demo")).unwrap();
    for entry in fs::read_dir(demo.join("model")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), work.path("demo").join(entry.file_name())).unwrap();
    }
    let text = fs::read_to_string(demo.join("heldout.txt")).unwrap();
    let end = text.floor_char_boundary(8000);
    fs::write(work.path("text.txt"), &text[..end]).unwrap();
    work
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap()
}

#[test]
fn the_result_has_the_perplexity_and_its_protocol() {
    let work = work();
    let eval = work.json("eval demo --text text.txt --window 256 --format json");
    assert_eq!(eval["schema"], "physarium.eval/1");
    assert!((1.1..4.0).contains(&number(&eval, "perplexity")), "{eval}");
    assert!((number(&eval, "mean_nll_nats").exp() - number(&eval, "perplexity")).abs() < 1e-9);
    assert_eq!(eval["partial"], false);
    let windows = eval["windows"].as_u64().unwrap();
    assert_eq!(eval["tokens_scored"], windows * 255);
    let protocol = &eval["protocol"];
    assert_eq!((&protocol["window"], &protocol["stride"]), (&256.into(), &256.into()));
    assert_eq!(protocol["weights"], "BF16");
    assert_eq!(protocol["bos"]["token"], "<s>");
    assert_eq!(protocol["text"]["sha256"].as_str().unwrap().len(), 64);
    assert!(protocol["tail_tokens"].as_u64().unwrap() < 256);
    assert!(eval.get("against").is_none());
    let bits = number(&eval, "bits_per_byte");
    assert!((0.1..1.5).contains(&bits), "{bits}");

    let text = work.ok("eval demo --text text.txt --window 256");
    for needle in ["perplexity", "bits per byte", "dropped", "BOS", "tokens/s"] {
        assert!(text.contains(needle), "no {needle:?} in {text}");
    }
}

#[test]
fn each_window_may_begin_as_a_text_does() {
    let work = work();
    let eval = |options: &str, limit: usize| {
        let command = format!("eval demo --text text.txt --window 64 --limit {limit} {options}");
        work.json(&format!("{command} --format json --per-token {limit}.jsonl"))
    };
    let one = eval("", 64);
    assert_eq!(one["protocol"]["bos"]["place"], "text");
    let first = fs::read_to_string(work.path("64.jsonl")).unwrap();
    let two = eval("--bos each-window", 128);
    assert_eq!(two["protocol"]["bos"]["place"], "each-window");
    assert_eq!((&two["windows"], &two["tokens_scored"]), (&2.into(), &126.into()));
    let both = fs::read_to_string(work.path("128.jsonl")).unwrap();
    // The first window is the same; the second begins where its text ends, with the same special token.
    assert!(both.starts_with(&first));
    let token = |text: &str, line: usize| -> Value {
        serde_json::from_str::<Value>(text.lines().nth(line).unwrap()).unwrap()["token"].clone()
    };
    let next = work.json(
        "eval demo --text text.txt --window 65 --limit 65 --format json --per-token 65.jsonl",
    );
    assert_eq!(next["tokens_scored"], 64);
    let longer = fs::read_to_string(work.path("65.jsonl")).unwrap();
    assert_eq!(token(&both, 63), token(&longer, 63));
    let text = work.ok("eval demo --text text.txt --window 64 --limit 128 --bos each-window");
    assert!(text.contains("<s> at the beginning of each window"), "{text}");
    let needles = ["--bos each-window", "a stride of the window, 64", "found 32"];
    work.fails(2, "eval demo --text text.txt --window 64 --stride 32 --bos each-window", &needles);
}

/// Gemma, whose tokenizer's words are `<bos>`, `a` and `b`.
fn gemma(work: &Work) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = golden.join("../physarium-model/tests/golden/gemma3");
    fs::create_dir(work.path("gemma")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(file), work.path("gemma").join(file)).unwrap();
    }
    let tokenizer = serde_json::json!({
        "added_tokens": [{"id": 0, "content": "<bos>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false}],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [0], "tokens": ["<bos>"]}}},
        "model": {"type": "WordLevel", "vocab": {"<bos>": 0, "a": 1, "b": 2}, "unk_token": "b"},
    });
    fs::write(work.path("gemma/tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(work.path("letters.txt"), "a b b a ".repeat(16)).unwrap();
}

#[test]
fn a_model_that_needs_bos_is_named_where_windows_lack_it() {
    let work = work();
    gemma(&work);
    let notes = |options: &str| {
        let command = format!("eval gemma --text letters.txt --window 16 {options} --format json");
        work.json(&command).get("notes").map_or(String::new(), Value::to_string)
    };
    let missing = notes("");
    assert!(missing.contains("windows without BOS: gemma3_text"), "{missing}");
    assert!(missing.contains("expected --bos each-window"), "{missing}");
    for options in ["--bos each-window", "--limit 16"] {
        assert!(!notes(options).contains("BOS"), "{options}");
    }
    let tokenizer = fs::read_to_string(work.path("gemma/tokenizer.json")).unwrap();
    let without = tokenizer.replace("post_processor", "unused");
    assert_ne!(without, tokenizer);
    fs::write(work.path("gemma/tokenizer.json"), without).unwrap();
    for options in ["--bos each-window", "--limit 16"] {
        assert!(notes(options).contains("expected a tokenizer that adds it"), "{options}");
    }
}

#[test]
fn results_replace_no_input_and_are_not_lost() {
    let work = work();
    fs::write(work.path("items.jsonl"), "{\"context\":\"a\",\"choices\":[\"b\"],\"answer\":0}")
        .unwrap();
    let text = fs::read(work.path("text.txt")).unwrap();
    let eval = "eval demo --text text.txt --choices items.jsonl --window 256";
    for (options, needle) in [
        ("--per-token text.txt", "--per-token text.txt: would replace text.txt"),
        ("--per-token ./demo/../text.txt", "would replace text.txt"),
        ("--per-item items.jsonl", "--per-item items.jsonl: would replace items.jsonl"),
        ("--per-item demo/scores", "demo/scores: would be written into the checkpoint"),
        ("--per-token scores --per-item scores", "--per-item scores: would replace scores"),
        ("--per-token nowhere/scores", "--per-token nowhere/scores: cannot write there"),
        ("--per-item .", "--per-item .: "),
    ] {
        work.fails(2, &format!("{eval} {options}"), &[needle]);
    }
    assert_eq!(fs::read(work.path("text.txt")).unwrap(), text);
}

/// Names of all fields of an object; those of nested objects with their path.
pub fn fields(value: &Value, path: &str, names: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        names.push(format!("{path}{name}"));
        fields(value, &format!("{path}{name}."), names);
    }
}

#[test]
fn the_documentation_lists_every_field() {
    let work = work();
    let command = "eval demo --against demo --text text.txt --window 256 --format json";
    let (mut found, mut documented) = (Vec::new(), Vec::new());
    fields(&work.json(command), "", &mut found);
    let example = super::formats::block("json eval");
    fields(&serde_json::from_str(&example).unwrap(), "", &mut documented);
    assert_eq!(found, documented);
}

#[test]
fn threads_change_no_bit() {
    let work = work();
    let of = |threads: u32| {
        work.ok(&format!(
            "eval demo --text text.txt --window 200 --stride 77 --per-token {threads}.jsonl \
             --threads {threads} --format json"
        ));
        fs::read_to_string(work.path(&format!("{threads}.jsonl"))).unwrap()
    };
    let one = of(1);
    assert!(one.lines().count() > 500);
    assert_eq!(one, of(3));
    // A stride below the window scores every token but the first exactly once.
    let positions: Vec<u64> = one
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["position"].as_u64().unwrap())
        .collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_model_is_compared_with_itself_and_with_its_pruned_copy() {
    let work = work();
    work.ok("prune demo --out half --method magnitude --sparsity 0.5 --quiet");
    let eval = |model: &str| {
        let command = "--against demo --text text.txt --window 256 --limit 1024 --format json";
        work.json(&format!("eval {model} {command}"))
    };
    let same = &eval("demo")["against"];
    assert_eq!(same["ratio"], 1.0);
    assert_eq!(same["ratio_stderr"], 0.0);
    assert_eq!(same["top1_agreement"], 1.0);
    assert!(number(same, "kl_nats").abs() < 1e-9);
    let half = eval("half");
    assert_eq!((&half["windows"], &half["tokens_scored"]), (&4.into(), &1020.into()));
    let half = &half["against"];
    assert!(number(half, "ratio") > 1.01, "{half}");
    assert!(number(half, "ratio_stderr") > 0.0);
    assert!(number(half, "kl_nats") > 0.001);
    assert!((0.3..0.999).contains(&number(half, "top1_agreement")));
}

#[test]
fn json_lines_are_documents() {
    let work = work();
    let lines = "{\"text\": \"Once upon a time\"}\n\n{\"text\": \"there was a cat.\", \"id\": 7}\n";
    fs::write(work.path("docs.jsonl"), lines).unwrap();
    fs::write(work.path("docs.txt"), "Once upon a time\n\nthere was a cat.").unwrap();
    let of = |arguments: &str| {
        let eval = work.json(&format!("eval demo --window 8 --format json --text {arguments}"));
        eval["mean_nll_nats"].clone()
    };
    assert_eq!(of("docs.jsonl"), of("docs.txt"));
    fs::write(work.path("other"), lines.replace("text", "body")).unwrap();
    assert_eq!(of("other --field body"), of("docs.txt"));
    work.fails(2, "eval demo --text other --field text", &["other", "line 1", "only fields body"]);
    fs::write(work.path("bad.jsonl"), "{\"text\": \"a\"}\n{\"text\": 1}\n").unwrap();
    work.fails(2, "eval demo --text bad.jsonl", &["bad.jsonl", "line 2", "a number"]);
    fs::write(work.path("bad.jsonl"), "{\"text\": \"a\"}\nnot json\n").unwrap();
    work.fails(2, "eval demo --text bad.jsonl", &["bad.jsonl", "line 2", "documents in JSON"]);
}

#[test]
fn invalid_texts_and_windows_are_refused() {
    let work = work();
    work.fails(2, "eval demo --text nowhere.txt", &["nowhere.txt", "No such file"]);
    fs::write(work.path("empty.txt"), "").unwrap();
    work.fails(2, "eval demo --text empty.txt", &["empty.txt", "some text"]);
    fs::write(work.path("short.txt"), "Once").unwrap();
    let short = ["short.txt", "at least one window of 512 tokens", "hint: a smaller window"];
    work.fails(2, "eval demo --text short.txt", &short);
    fs::write(work.path("latin.txt"), b"caf\xe9 au lait").unwrap();
    work.fails(2, "eval demo --text latin.txt", &["latin.txt", "UTF-8", "0xe9", "byte offset 3"]);
    work.fails(2, "eval demo --text text.txt --limit 100", &["text.txt", "100 tokens"]);
    let most = ["a window of 513 tokens", "at most 512 positions"];
    work.fails(2, "eval demo --text text.txt --window 513", &most);
    work.fails(2, "eval demo --text text.txt --window 1", &["--window 1", "at least 2"]);
    work.fails(2, "eval demo --text text.txt --window 64 --stride 65", &["--stride 65", "64"]);
    work.fails(2, "eval demo --text text.txt --window 0", &["--window"]);
}

#[test]
fn unsupported_models_are_refused_with_the_reason() {
    let work = work();
    let change = |file: &str, from: &str, to: &str| {
        let path = work.path("demo").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        text
    };
    let command = "eval demo --text text.txt";
    let config = change("config.json", "\"model_type\": \"llama\"", "\"model_type\": \"gpt2\"");
    work.fails(2, command, &["config.json", "gpt2", "llama, mistral, qwen2, qwen3"]);
    fs::write(work.path("demo/config.json"), config).unwrap();
    let tokenizer = change("tokenizer.json", "\"model\"", "\"nodel\"");
    work.fails(2, command, &["tokenizer.json", "tokenizers library"]);
    fs::write(work.path("demo/tokenizer.json"), tokenizer).unwrap();
    change("tokenizer_config.json", "\"bos_token\": \"<s>\"", "\"bos_token\": \"<none>\"");
    work.fails(2, command, &["tokenizer_config.json", "bos_token", "<none>"]);
    fs::remove_file(work.path("demo/tokenizer.json")).unwrap();
    work.fails(2, command, &["tokenizer.json", "tokenizer is missing", "hint"]);
    work.fails(2, "eval model --text text.txt", &["config.json"]);
}

/// Processes that share the parts, at the same time, give the result of one.
#[test]
fn workers_share_the_parts() {
    let work = work();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/heldout.txt");
    fs::copy(demo, work.path("long.txt")).unwrap();
    let eval = "eval demo --text long.txt --window 256 --limit 40000 --format json";
    let whole = work.json(eval);
    let parts = format!("{eval} --parts parts");
    let done = std::thread::scope(|scope| {
        let (work, parts) = (&work, &parts);
        let worker =
            |index: usize| scope.spawn(move || work.json(&format!("{parts} --worker {index}/2")));
        let workers = [worker(0), worker(1)];
        workers.map(|worker| worker.join().unwrap()["scored"].as_u64().unwrap())
    });
    assert_eq!(done, [2, 2]);
    let both = work.run(&parts);
    assert!(both.stderr.contains("resuming: scores of 4 of 4 parts kept"), "{}", both.stderr);
    let both: Value = serde_json::from_str(&both.stdout).unwrap();
    for field in ["perplexity", "mean_nll_nats", "bits_per_byte", "tokens_scored", "windows"] {
        assert_eq!(both[field], whole[field], "{field}");
    }
    let other = "eval demo --text text.txt --parts parts --window 256";
    work.fails(2, other, &["parts", "another evaluation, which differs in: evaluation"]);
    for (refused, why) in [
        ("--choices c.jsonl --parts p", "--text"),
        ("--text text.txt --worker 0/2", "--parts"),
        ("--text text.txt --parts p --worker 0/2 --per-token t", "--per-token"),
        ("--text text.txt --parts p --worker 2/2", "below N"),
    ] {
        work.fails(2, &format!("eval demo {refused}"), &[why]);
    }
}
