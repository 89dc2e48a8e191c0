//! Texts and prompts as people have them, on the demo model. Numbers of tokens are those of transformers 5.

use std::fs;

use super::{Ran, Work};

const EVAL: &str = "--window 256 --limit 1024 --format json";

/// Perplexity of the demo model on a file.
fn perplexity(work: &Work, text: &str) -> f64 {
    work.json(&format!("eval demo --text {text} {EVAL}"))["perplexity"].as_f64().unwrap()
}

#[test]
fn json_is_never_scored_as_prose() {
    let work = super::eval::work();
    let text = fs::read_to_string(work.path("text.txt")).unwrap();
    let rows: Vec<String> = text
        .split("\n\n")
        .filter(|part| !part.trim().is_empty())
        .map(|part| serde_json::json!({"text": part, "url": "https://example.org"}).to_string())
        .collect();
    fs::write(work.path("rows.jsonl"), rows.join("\n")).unwrap();
    let expected = perplexity(&work, "rows.jsonl");
    fs::write(work.path("c4.json"), rows.join("\n")).unwrap();
    fs::write(work.path("unnamed"), rows.join("\n")).unwrap();
    fs::write(work.path("list.JSON"), format!("\u{feff}[{}]", rows.join(",\n"))).unwrap();
    for name in ["c4.json", "unnamed", "list.JSON"] {
        assert_eq!(perplexity(&work, name), expected, "{name}");
    }
    fs::write(work.path("other.json"), "{\"content\": \"x\"}").unwrap();
    work.fails(2, "eval demo --text other.json", &["other.json", "content", "--field"]);
    fs::write(work.path("text.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
    work.fails(
        2,
        "prune demo --out out --method wanda --sparsity 0.5 --calibration text.gz",
        &["gzip"],
    );
}

#[test]
fn a_short_calibration_text_is_used_whole_with_a_note() {
    let work = super::eval::work();
    let prune = "--method wanda --sparsity 0.5 --calibration text.txt --format json";
    let ran = work.run(&format!("prune demo --out out {prune}"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("fewer than 131,072 tokens, the default: all of it"),
        "{}",
        ran.stderr
    );
    let text = fs::read_to_string(work.path("text.txt")).unwrap();
    fs::write(work.path("text.txt"), &text[..400]).unwrap();
    let run = work.json(&format!("prune demo --out short {prune}"));
    let calibration = &run["recipe"]["method"]["calibration"];
    assert_eq!(calibration["window"], calibration["tokens"], "one window: {calibration}");
    assert!(calibration["tokens"].as_u64().unwrap() < 400);
    work.fails(2, &format!("prune demo --out no --window 512 {prune}"), &["too short"]);
}

/// Prompt tokens of a chat with the demo model and this template.
fn prompt_tokens(work: &Work, template: &str) -> u64 {
    fs::write(work.path("demo/chat_template.jinja"), template).unwrap();
    fs::write(work.path("prompt"), "What is a slime mould? <b>\"é\"").unwrap();
    let ran: Ran = work.run_with_stdin("run demo --chat --max-tokens 1 --format json", "prompt");
    assert_eq!(ran.code, 0, "{template}: {}", ran.stderr);
    serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["prompt_tokens"]
        .as_u64()
        .unwrap()
}

#[test]
fn chat_templates_give_the_tokens_of_transformers() {
    let work = super::eval::work();
    let user = "{% for m in messages %}[U]{{ m.content }}{% endfor %}[A]";
    let tools =
        format!("{{% if tools is not none %}}Tools: {{{{ tools | tojson }}}}\n{{% endif %}}{user}");
    assert_eq!(prompt_tokens(&work, &tools), 27);
    assert_eq!(
        prompt_tokens(&work, &format!("{{% if tools is none %}}No tools.\n{{% endif %}}{user}")),
        34
    );
    assert_eq!(prompt_tokens(&work, &tools.replace("tools", "documents")), 27);
    let marked = "{% for m in messages %}{% if m.role == 'user' %}[U]{{ m.content }}{% else %}\
                  {% generation %}[A]{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}\
                  {% if add_generation_prompt %}[A]{% endif %}";
    assert_eq!(prompt_tokens(&work, marked), 27);
}

#[test]
fn a_missing_tokenizer_is_named_with_what_is_there() {
    let work = super::eval::work();
    fs::rename(work.path("demo/tokenizer.json"), work.path("demo/tokenizer.model")).unwrap();
    work.fails(
        2,
        "eval demo --text text.txt",
        &["tokenizer.model", "SentencePiece", "save_pretrained"],
    );
}
