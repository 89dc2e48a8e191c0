//! One arithmetic gives the same bytes on every instruction set, and is on record.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use physarium::model::{Arithmetic, VectorKind};
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/model");
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/heldout.txt");
const CALIBRATION: &str = "--calibration-tokens 512 --window 256";
const METHODS: [(&str, &str); 4] = [
    ("wanda", "--method wanda --sparsity 0.5 --allocation flow"),
    ("sparsegpt", "--method sparsegpt --sparsity 0.5"),
    ("sparsegpt24", "--method sparsegpt --pattern 2:4"),
    ("activation-flow", "--method activation-flow --sparsity 0.5"),
];

/// The program on an instruction set, or on that of the machine.
fn physarium(instructions: Option<&str>, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_physarium"));
    command.args(arguments.split_whitespace()).env_remove("PHYSARIUM_INSTRUCTIONS");
    if let Some(instructions) = instructions {
        command.env("PHYSARIUM_INSTRUCTIONS", instructions);
    }
    command
}

/// Runs it; it must succeed. Returns its stdout.
fn ok(instructions: Option<&str>, arguments: &str) -> String {
    let output = physarium(instructions, arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{instructions:?} {arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it; it must be refused. Returns its stderr.
fn refused(instructions: Option<&str>, arguments: &str) -> String {
    let output = physarium(instructions, arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{instructions:?} {arguments}: {stderr}");
    stderr
}

/// The files of an output, without those that are copied.
fn written(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let ours = files
        .filter(|path| name(path).ends_with(".safetensors") || name(path).starts_with("physarium"));
    ours.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

#[test]
fn every_instruction_set_and_any_number_of_threads_writes_the_same_bytes() {
    let work = tempfile::tempdir().unwrap();
    let kinds = VectorKind::available();
    assert!(kinds.contains(&VectorKind::Portable));
    for (method, options) in METHODS {
        let mut first: Option<BTreeMap<String, Vec<u8>>> = None;
        let runs = kinds.iter().map(|kind| (Some(kind.name()), 2)).chain([(None, 1), (None, 3)]);
        for (instructions, threads) in runs {
            let out = work.path().join(format!("{method}-{instructions:?}-{threads}"));
            let shown = out.display();
            let prune = format!("prune {MODEL} --out {shown} {options} {CALIBRATION} --quiet");
            ok(instructions, &format!("{prune} --arithmetic f32 --threads {threads}"));
            let files = written(&out);
            assert!(files.keys().any(|name| name.ends_with(".safetensors")), "{method}");
            let first = first.get_or_insert_with(|| files.clone());
            assert!(*first == files, "{method}, {instructions:?}, {threads} threads");
        }
    }
}

#[test]
fn each_arithmetic_of_this_machine_writes_the_same_bytes_for_any_number_of_threads() {
    let work = tempfile::tempdir().unwrap();
    for arithmetic in Arithmetic::ALL.into_iter().filter(|arithmetic| arithmetic.check().is_ok()) {
        for (method, options) in METHODS {
            let [one, three] = [1, 3].map(|threads| {
                let out = work.path().join(format!("{method}-{arithmetic}-{threads}"));
                let options = format!("{options} {CALIBRATION} --quiet --threads {threads}");
                let prune = format!("prune {MODEL} --out {} {options}", out.display());
                ok(None, &format!("{prune} --arithmetic {arithmetic}"));
                written(&out)
            });
            assert!(one == three, "{method}, {arithmetic}");
        }
    }
}

#[test]
fn every_instruction_set_measures_the_same() {
    let scores = |instructions: Option<&str>| -> Value {
        let eval = format!("eval {MODEL} --text {TEXT} --window 128 --limit 1024");
        let text = ok(instructions, &format!("{eval} --arithmetic f32 --format json --quiet"));
        let mut report: Value = serde_json::from_str(&text).unwrap();
        let protocol = &report["protocol"];
        assert_eq!(protocol["arithmetic"], "f32 (float32)");
        if let Some(instructions) = instructions {
            assert_eq!(protocol["instructions"], instructions);
        }
        ["mean_nll_nats", "perplexity"].map(|field| report[field].take()).to_vec().into()
    };
    let best = scores(None);
    for kind in VectorKind::available() {
        assert_eq!(best, scores(Some(kind.name())), "{}", kind.name());
    }
}

#[test]
fn instructions_and_arithmetic_that_the_machine_does_not_have_are_refused() {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("out");
    let shown = out.display();
    let prune = format!("prune {MODEL} --out {shown}");
    // No command may run on other instructions than those that a test asks for.
    for unknown in ["sse9", "AVX2", ""] {
        let why = refused(Some(unknown), &prune);
        assert!(why.contains("PHYSARIUM_INSTRUCTIONS"), "{why}");
        assert!(why.contains("portable"), "{why}");
    }
    let bf16x2 = format!("{prune} --method wanda --sparsity 0.5 {CALIBRATION} --arithmetic bf16x2");
    let eval = format!("eval {MODEL} --text {TEXT} --limit 512 --arithmetic bf16x2");
    let run = format!("run {MODEL} --prompt Once --max-tokens 1 --arithmetic bf16x2");
    let compare =
        format!("compare {MODEL} --out {shown} --text {TEXT} --sparsity 0.5 --arithmetic bf16x2");
    for command in [&bf16x2, &eval, &run, &compare] {
        let why = refused(Some("portable"), command);
        assert!(why.contains("bf16x2") && why.contains("AMX") && why.contains("f32"), "{why}");
        assert!(!out.exists());
    }
    let in_bf16 = |command: &str| command.replace("bf16x2", "bf16");
    for command in [in_bf16(&bf16x2), in_bf16(&compare)] {
        let why = refused(Some("portable"), &command);
        assert!(why.contains("arithmetic bf16 needs a processor with AVX-512 BF16"), "{why}");
        assert!(!out.exists());
    }
}

/// The recipe in an output's manifest.
fn recipe(out: &Path) -> Value {
    let manifest = fs::read(out.join("physarium.manifest.json")).unwrap();
    serde_json::from_slice::<Value>(&manifest).unwrap()["recipe"].take()
}

#[test]
fn the_arithmetic_is_recorded_where_it_decides_bytes() {
    let work = tempfile::tempdir().unwrap();
    let out = |name: &str| work.path().join(name);
    let of_machine = Arithmetic::of_machine().name();
    for (name, given, expected) in [("default", "", of_machine), ("f32", "--arithmetic f32", "f32")]
    {
        let dir = out(name);
        let options = format!("--method wanda --sparsity 0.5 {CALIBRATION} --quiet {given}");
        ok(None, &format!("prune {MODEL} --out {} {options}", dir.display()));
        assert_eq!(recipe(&dir)["arithmetic"], expected, "{name}");
        let journal = fs::read_to_string(dir.join("physarium.journal.jsonl")).unwrap();
        let first: Value = serde_json::from_str(journal.lines().next().unwrap()).unwrap();
        assert_eq!(first["recipe"], recipe(&dir));
        // Repeated from its manifest, a run has the arithmetic of its record.
        let again = out(&format!("{name}-again"));
        let manifest = dir.join("physarium.manifest.json");
        let from = format!("--recipe {} --quiet", manifest.display());
        ok(None, &format!("prune {MODEL} --out {} {from}", again.display()));
        assert!(written(&dir) == written(&again), "{name}");
    }
    let plain = out("plain");
    ok(None, &format!("prune {MODEL} --out {} --sparsity 0.5 --quiet", plain.display()));
    assert!(recipe(&plain).get("arithmetic").is_none());
}

/// Kills a run when its journal is there.
fn killed(mut child: Child, journal: &Path) {
    for _ in 0..12_000 {
        if fs::metadata(journal).is_ok_and(|journal| journal.len() > 0) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The first line of a journal with other text in its recipe, and the check of it (docs/FORMATS.md).
fn rewritten(journal: &str, old: &str, new: &str) -> String {
    let line = journal.lines().next().unwrap();
    let (body, _) = line.split_once(r#","check":"#).unwrap();
    assert!(body.contains(old), "{body}");
    let body = body.replace(old, new);
    let check = blake3::hash(format!("{body}}}").as_bytes()).to_hex();
    format!("{body},\"check\":\"{}\"}}\n", &check[..16])
}

#[test]
fn a_run_of_another_arithmetic_is_not_resumed() {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("out");
    let options = "--method wanda --sparsity 0.5 --calibration-tokens 16384 --window 512 --quiet";
    let prune = format!("prune {MODEL} --out {} {options} --arithmetic f32", out.display());
    let mut command = physarium(None, &prune);
    let child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let journal = work.path().join(".out.physarium-partial/physarium.journal.jsonl");
    killed(child, &journal);
    let text = fs::read_to_string(&journal).unwrap();
    for (new, was) in [(r#","arithmetic":"bf16x2"}"#, "\"bf16x2\""), ("}", "was null")] {
        fs::write(&journal, rewritten(&text, r#","arithmetic":"f32"}"#, new)).unwrap();
        let why = refused(None, &prune);
        for needle in ["belongs to another run", "recipe.arithmetic", was, "f32", "--restart"] {
            assert!(why.contains(needle), "no {needle}: {why}");
        }
    }
    fs::write(&journal, &text).unwrap();
    ok(None, &prune);
}
