//! `pack`, `unpack` and `run` from a user's view, on the demo model.

use std::fs;

use serde_json::Value;

use super::Work;
use super::eval::work as demo_work;

/// The demo model, pruned to one half, as a directory and packed.
fn work() -> Work {
    let work = demo_work();
    work.ok("prune demo --out half --method magnitude --sparsity 0.5");
    work.ok("pack half --out half.physpack");
    work
}

/// An object has the fields that the documentation lists.
fn assert_documented(found: &Value, info: &str) {
    let documented: Value = serde_json::from_str(&super::formats::block(info)).unwrap();
    let names = |value: &Value| -> Vec<String> {
        let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(found), names(&documented), "{info}");
}

#[test]
fn a_packed_file_is_smaller_and_unpacks_to_the_same_bytes() {
    let work = work();
    let sizes = work.json("pack half --out again.physpack --format json");
    assert_documented(&sizes, "json pack");
    let bytes = |name: &str| sizes[name].as_u64().unwrap();
    assert!(bytes("output_bytes") < bytes("input_bytes") * 7 / 10, "{sizes}");
    let mask = &sizes["projections"]["mask"];
    let share = mask["packed_bytes"].as_f64().unwrap() / mask["dense_bytes"].as_f64().unwrap();
    assert!(share <= 0.57, "{share}");
    assert_eq!(bytes("output_bytes"), fs::metadata(work.path("again.physpack")).unwrap().len());
    assert_eq!(
        fs::read(work.path("again.physpack")).unwrap(),
        fs::read(work.path("half.physpack")).unwrap()
    );

    let back = work.json("unpack half.physpack --out back --format json");
    assert_documented(&back, "json unpack");
    for entry in fs::read_dir(work.path("half")).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |dir: &str| fs::read(work.path(dir).join(&name)).unwrap();
        assert!(read("half") == read("back"), "{name:?}");
    }
    assert_eq!(
        fs::read_dir(work.path("half")).unwrap().count(),
        fs::read_dir(work.path("back")).unwrap().count()
    );
    work.ok("verify back --against demo");
}

#[test]
fn commands_that_read_directories_say_which_read_packed_files() {
    let work = work();
    for command in ["audit half.physpack", "verify half.physpack --against demo"] {
        let needles = ["half.physpack: not a directory", "run, eval and unpack read packed files"];
        work.fails(2, command, &needles);
    }
    work.fails(2, "verify nowhere --against demo", &["nowhere: cannot open", "nothing there"]);
}

#[test]
fn packed_file_and_directory_give_the_same_text_and_evaluation() {
    let work = work();
    let of = |model: &str, more: &str| {
        work.ok(&format!("run {model} --prompt Once --max-tokens 60 --quiet {more}"))
    };
    let text = of("half", "");
    assert!(text.len() > 40, "{text}");
    assert_eq!(text, of("half.physpack", ""));
    assert_eq!(text, of("half.physpack", "--threads 1"));
    let drawn = of("half.physpack", "--temperature 1.5 --seed 3 --top-p 0.95");
    assert_eq!(drawn, of("half", "--temperature 1.5 --seed 3 --top-p 0.95"));
    assert_ne!(drawn, of("half", "--temperature 1.5 --seed 4 --top-p 0.95"));

    let eval = |model: &str| {
        let command = format!("eval {model} --against demo --text text.txt --window 256");
        let mut found = work.json(&format!("{command} --format json"));
        for varies in ["seconds", "tokens_per_second", "peak_rss_bytes"] {
            found.as_object_mut().unwrap().remove(varies);
        }
        found
    };
    assert_eq!(eval("half"), eval("half.physpack"));
}

#[test]
fn a_run_reports_counts_and_speed() {
    let work = work();
    let run = work.json("run half.physpack --prompt Once --max-tokens 7 --format json --quiet");
    assert_documented(&run, "json run");
    assert_eq!(run["generated_tokens"], 7);
    assert_eq!(run["stopped"], "max_tokens");
    // The model supports 512 positions.
    let long = work.json("run demo --prompt Once --max-tokens 9999 --format json --quiet");
    assert!(long["stopped"] == "positions" || long["stopped"] == "end_of_text", "{long}");
    let ran = work.run("run demo --prompt Once --max-tokens 3");
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("tokens/s"), "{}", ran.stderr);
    // A prompt of several hundred tokens is processed in parts.
    let text = fs::read_to_string(work.path("text.txt")).unwrap();
    let prompt = &text[..text.floor_char_boundary(1200)];
    let long = |threads: &str| {
        assert_cmd::Command::new(env!("CARGO_BIN_EXE_physarium"))
            .current_dir(work.0.path())
            .args(["run", "half.physpack", "--max-tokens", "20", "--format", "json", "--quiet"])
            .args(["--threads", threads])
            .write_stdin(prompt)
            .output()
            .unwrap()
    };
    let ran: Value = serde_json::from_slice(&long("1").stdout).unwrap();
    assert!((257..512).contains(&ran["prompt_tokens"].as_u64().unwrap()), "{ran}");
    let again: Value = serde_json::from_slice(&long("2").stdout).unwrap();
    assert_eq!(ran["text"], again["text"]);
    // A prompt from stdin is the same prompt.
    let from_stdin = assert_cmd::Command::new(env!("CARGO_BIN_EXE_physarium"))
        .current_dir(work.0.path())
        .args(["run", "demo", "--max-tokens", "20", "--quiet"])
        .write_stdin("Once\n")
        .output()
        .unwrap();
    let direct = work.ok("run demo --prompt Once --max-tokens 20 --quiet");
    assert_eq!(String::from_utf8(from_stdin.stdout).unwrap(), direct);
}

#[test]
fn chat_uses_the_models_template() {
    let work = work();
    work.fails(2, "run demo --chat --prompt Once", &["no chat template", "without --chat"]);
    let template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}";
    fs::write(work.path("demo/chat_template.jinja"), template).unwrap();
    let plain = work.ok("run demo --prompt Once --max-tokens 20 --quiet");
    assert_eq!(plain, work.ok("run demo --chat --prompt Once --max-tokens 20 --quiet"));
    fs::write(work.path("demo/chat_template.jinja"), "{{ raise_exception('not me') }}").unwrap();
    work.fails(2, "run demo --chat --prompt Once", &["chat_template.jinja", "not me"]);
    let path = work.path("demo/tokenizer_config.json");
    fs::remove_file(work.path("demo/chat_template.jinja")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["chat_template"] = template.into();
    fs::write(&path, config.to_string()).unwrap();
    assert_eq!(plain, work.ok("run demo --chat --prompt Once --max-tokens 20 --quiet"));
}

#[test]
fn nan_logits_are_an_error() {
    let work = demo_work();
    work.fill_with_nan("demo/model-00001-of-00002.safetensors");
    work.fails(2, "run demo --prompt Once", &["demo", "NaN"]);
}

#[test]
fn invalid_input_is_refused_and_nothing_is_written() {
    let work = work();
    let before = fs::read(work.path("half.physpack")).unwrap();
    work.fails(2, "pack half --out half.physpack", &["output exists", "--force"]);
    assert_eq!(before, fs::read(work.path("half.physpack")).unwrap());
    work.ok("pack demo --out half.physpack --force");
    assert_ne!(before, fs::read(work.path("half.physpack")).unwrap());
    work.fails(2, "pack half --out half/inside.physpack", &["inside the input"]);
    work.fails(2, "pack nowhere --out x.physpack", &["nowhere"]);
    work.nothing_was_written("x.physpack");
    work.fails(2, "unpack half.physpack --out half", &["output exists"]);
    let dense = "unpack half/model-00001-of-00002.safetensors --out x";
    work.fails(2, dense, &["not a packed file", "physarium pack"]);
    work.fails(2, "prune half.physpack --out x", &["not a directory", "packed file"]);

    // A byte of some projection's values, which only its digest covers.
    let mut damaged = before.clone();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    fs::write(work.path("damaged.physpack"), &damaged).unwrap();
    for command in ["unpack damaged.physpack --out x", "run damaged.physpack --prompt Once"] {
        work.fails(2, command, &["damaged.physpack", "does not match its digest", "byte offset"]);
    }
    let eval = "eval damaged.physpack --text text.txt --window 256";
    work.fails(2, eval, &["damaged.physpack", "does not match its digest"]);
    fs::write(work.path("short.physpack"), &before[..before.len() - 1]).unwrap();
    work.fails(2, "run short.physpack --prompt Once", &["short.physpack"]);
    work.nothing_was_written("x");
    for (options, needle) in [
        ("--temperature=-1", "--temperature"),
        ("--top-p 0 --temperature 1", "--top-p"),
        ("--top-p 0.9", "--top-p has no effect without --temperature"),
        ("--seed 1", "--seed has no effect without --temperature"),
        ("--max-tokens 0", "--max-tokens"),
    ] {
        work.fails(2, &format!("run half --prompt Once {options}"), &[needle]);
    }
    let long = "word ".repeat(2000);
    let ran = assert_cmd::Command::new(env!("CARGO_BIN_EXE_physarium"))
        .current_dir(work.0.path())
        .args(["run", "demo"])
        .write_stdin(long)
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8(ran.stderr).unwrap().contains("a prompt of"));
}
