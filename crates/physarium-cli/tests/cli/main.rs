//! The program from a user's view: exit codes, stdout and stderr, error messages.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use physarium_fixtures::{Fill, Kind, Tensor, llama_tensors, write_checkpoint};
use serde_json::Value;

mod calibrated;
mod choices;
mod eval;
mod exact;
mod experts;
mod field;
mod formats;
mod judging;
mod memory;
mod packed;
mod progress;
mod texts;

/// A working directory with `model`, a small checkpoint in two shards.
struct Work(tempfile::TempDir);

/// The result of a run.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Work {
    fn new() -> Work {
        let work = Work(tempfile::tempdir().unwrap());
        work.write("model", &llama_tensors(Kind::Bf16, 2, [32, 16, 48]), 2);
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, tensors: &[Tensor], shards: usize) {
        write_checkpoint(&self.path(name), tensors, shards, Fill::Gaussian(3)).unwrap();
    }

    /// Fills the second half of a BF16 shard with NaN.
    fn fill_with_nan(&self, shard: &str) {
        let path = self.path(shard);
        let mut bytes = fs::read(&path).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let begin = 8 + header + (bytes.len() - 8 - header) / 4 * 2;
        bytes[begin..].as_chunks_mut::<2>().0.fill([0xc0, 0x7f]);
        fs::write(&path, bytes).unwrap();
    }

    fn run(&self, arguments: &str) -> Ran {
        self.run_with_stdin(arguments, "")
    }

    /// Runs a command that reads the file `stdin`, or nothing for an empty name.
    fn run_with_stdin(&self, arguments: &str, stdin: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_physarium"));
        command.current_dir(self.0.path()).args(arguments.split_whitespace());
        if !stdin.is_empty() {
            command.pipe_stdin(self.path(stdin)).unwrap();
        }
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed, and returns its stdout.
    fn ok(&self, arguments: &str) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments}: {}", ran.stderr);
        ran.stdout
    }

    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// Runs a command that must fail with `code` and print `needles` on stderr.
    fn fails(&self, code: i32, arguments: &str, needles: &[&str]) {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "{arguments}: {}{}", ran.stdout, ran.stderr);
        for needle in needles {
            assert!(ran.stderr.contains(needle), "{arguments}: no {needle:?} in {}", ran.stderr);
        }
        if code == 2 {
            assert!(ran.stdout.is_empty(), "{arguments}: {}", ran.stdout);
        }
    }

    fn nothing_was_written(&self, out: &str) {
        let left = [out.to_owned(), format!("{out}.lock"), format!(".{out}.physarium-partial")];
        for name in left {
            assert!(self.path(&name).symlink_metadata().is_err(), "{name} exists");
        }
    }
}

#[test]
fn inspect_prune_audit_and_verify_agree() {
    let work = Work::new();
    let inspected = work.json("inspect model --format json");
    assert_eq!(inspected["target"]["tensors"], 14);
    assert_eq!(inspected["target"]["of_model"]["of"], "model");
    let pruned = work.json("prune model --out out --format json");
    let audited = work.json("audit out --against model --format json");
    assert_eq!(audited["schema"], "physarium.audit/1");
    assert_eq!(audited["denominator_correct"], true);
    assert_eq!(audited["pruned"]["elements"], pruned["pruned"]["elements"]);
    assert_eq!(audited["pruned"]["of_target"]["of"], "target");
    let verified = work.json("verify out --against model --format json");
    assert_eq!(
        (&verified["verified"], &verified["pruned"]),
        (&true.into(), &pruned["pruned"]["elements"])
    );
    let left: Vec<_> =
        fs::read_dir(work.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn every_percentage_states_its_denominator() {
    let work = Work::new();
    let said = work.ok("prune model --out out");
    assert!(said.contains("% of target") && said.contains("% of model"), "{said}");
    let said = work.ok("audit out --against model");
    assert!(
        said.contains("of target") && said.contains("checks of the counts: 14 of 14 hold"),
        "{said}"
    );
    assert!(work.ok("inspect model --tensors").contains("skipped  lm_head.weight  head\n"));
    assert!(!said.contains('\u{1b}'));
}

#[test]
fn audit_reports_are_written_to_the_report_directory() {
    let work = Work::new();
    work.ok("prune model --out out");
    work.ok("audit out --against model --report reports");
    let json: Value =
        serde_json::from_slice(&fs::read(work.path("reports/physarium.audit.json")).unwrap())
            .unwrap();
    assert_eq!(json["basis"], "bytes");
    work.fails(
        2,
        "audit out --report out/reports",
        &["out/reports: would be written into the checkpoint"],
    );
    let markdown = fs::read_to_string(work.path("reports/physarium.audit.md")).unwrap();
    assert!(markdown.contains("| pruned |"), "{markdown}");
}

#[test]
fn wrong_claims_and_differences_exit_with_1() {
    let work = Work::new();
    work.ok("prune model --out out");
    let claim = "[[claim]]\nid = \"c\"\nsource = \"s\"\nsentence = \"t\"\ncount = \"pruned\"\n";
    fs::write(work.path("c.toml"), format!("{claim}value = \"99 %\"\nof = \"target\"\n")).unwrap();
    let ran = work.run("audit out --against model --claims c.toml");
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("claim c: 99 % of target -> wrong; should say"), "{}", ran.stdout);
    let shard = work.path("out/model-00001-of-00002.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(shard, bytes).unwrap();
    let swapped = work.run("verify model --against out");
    assert_eq!(swapped.code, 1);
    assert!(swapped.stderr.contains("the directories look swapped"), "{}", swapped.stderr);
    work.fails(2, "prune org/name --out hub", &["hf download"]);
    let ran = work.run("verify out --against model");
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("NOT verified") && ran.stdout.contains("weight"), "{}", ran.stdout);
}

#[test]
fn conflicting_options_and_options_without_effect_are_refused() {
    let work = Work::new();
    for (options, needle) in [
        ("--method magnitude", "--method magnitude needs --sparsity or --pattern"),
        ("--sparsity 0.5 --pattern 2:4", "--pattern cannot be combined with --sparsity"),
        ("--sparsity 1.5", "between 0 and 1"),
        ("--sparsity -0.1", "between 0 and 1, found -0.1"),
        ("--sparsity 50", "for 50 % write 0.5"),
        ("--sparsity NaN", "between 0 and 1"),
        ("--pattern 4:4", "0 < N < M"),
        ("--scope model", "--sparsity"),
        ("--sparsity 0.5 --beta 3", "--beta has no effect"),
        ("--pattern 2:4 --inflow 3", "--inflow has no effect"),
        ("--pattern 2:4 --block-size 8", "--block-size has no effect"),
        ("--sparsity 0.5 --scope tensor --block-size 8", "--block-size has no effect"),
        ("--block-size 0", "between 1 and 1024"),
        ("--block-size 2000", "between 1 and 1024"),
        ("--beta 1", "beta must be above 1"),
        ("--iterations 0", "iterations"),
        ("--inflow -1", ""),
        ("--threads 0", "threads"),
        ("--target nothing*", "matches no tensor"),
        ("--skip [", "not a valid pattern"),
        ("--quiet --progress json", "cannot be used with"),
        ("--colour", "unexpected argument"),
    ] {
        work.fails(2, &format!("prune model --out out {options}"), &[needle]);
        work.nothing_was_written("out");
    }
    let no_weights_are_read = "audit model --from-journal journal.jsonl --threads 2";
    work.fails(2, no_weights_are_read, &["--threads", "cannot be used with"]);
    let compare = "compare model --out out --text text.txt";
    for (options, needle) in [
        ("", "at least one --sparsity S"),
        ("--methods magnitude --sparsity 0.5 --allocation flow", "--allocation has no effect"),
        ("--methods magnitude --sparsity 0.5 --window 64", "--window has no effect"),
        ("--methods wanda --sparsity 0.5 --effort quick", "--effort has no effect"),
        ("--methods magnitude --pattern 2:4 --calibration c.txt", "--calibration has no effect"),
        ("--pattern 2:4 --allocation flow", "--allocation has no effect without --sparsity"),
    ] {
        work.fails(2, &format!("{compare} {options}"), &["error: ", needle]);
        work.nothing_was_written("out");
    }
}

#[test]
fn invalid_output_paths_are_refused() {
    let work = Work::new();
    let fails = |out: &str, needle: &str| {
        work.fails(2, &format!("prune model --out {out}"), &["error: ", needle]);
    };
    fails("model", "output is the input");
    fails("model/", "output is the input");
    fails("model/../model", "output is the input");
    fails("model/inside", "output is inside the input");
    fails(".", "not a name");
    fails("..", "not a name");
    fails("missing/out", "output's parent");
    fails("model/config.json/out", "parent");
    fails(&"n".repeat(230), "too long");
    std::os::unix::fs::symlink("model", work.path("link")).unwrap();
    fails("link", "output is the input");
    std::os::unix::fs::symlink("nowhere", work.path("dangling")).unwrap();
    fails("dangling", "output is a link");
    fs::write(work.path("file"), "x").unwrap();
    fails("file", "output exists");
    fs::create_dir(work.path("full")).unwrap();
    fs::write(work.path("full/mine.txt"), "x").unwrap();
    fails("full", "not a physarium output");
    work.fails(2, "prune model --out full --force", &["not a physarium output"]);
    assert!(work.path("full/mine.txt").exists());
    // The input is inside the output.
    fs::create_dir(work.path("around")).unwrap();
    fs::rename(work.path("model"), work.path("around/model")).unwrap();
    work.fails(2, "prune around/model --out around", &["input is inside the output"]);
}

#[test]
fn results_are_not_written_into_a_checkpoint() {
    let work = Work::new();
    work.ok("prune model --out out");
    work.ok("prune model --out other --sparsity 0.5");
    // A damaged checkpoint is one too.
    fs::create_dir(work.path("damaged")).unwrap();
    fs::write(work.path("damaged/model.safetensors"), "x").unwrap();
    fs::write(work.path("text.txt"), "x").unwrap();
    work.ok("audit out --against model --report reports");
    for (place, into) in [
        ("model", "model"),
        ("model/", "model"),
        ("model/new/sub", "model"),
        ("model/../other", "other"),
        ("damaged/sub", "damaged"),
    ] {
        for command in [
            "audit out --against model --report",
            "audit --from-report reports --report",
            "eval model --text text.txt --parts",
            "eval model --text text.txt --per-token",
            "compare model --text text.txt --methods magnitude --sparsity 0.5 --out",
            "man",
            "demo --out",
            "report reports --out",
            "report reports --pictures",
            "plan model --out planned --sparsity 0.5 --plan",
        ] {
            let into = format!("/{into}, expected a place outside");
            let needles = ["would be written into the checkpoint ", &into];
            work.fails(2, &format!("{command} {place}"), &needles);
        }
    }
    assert_eq!(fs::read_dir(work.path("damaged")).unwrap().count(), 1);
    work.ok("verify out --against model");
    work.ok("verify other --against model");
}

#[test]
fn a_plan_replaces_nothing_but_an_earlier_plan() {
    let work = Work::new();
    let texts = ["calibration.txt", "recipe.toml", "claims.toml", "other.json"];
    for name in texts {
        fs::write(work.path(name), "{\"schema\": \"physarium.eval/1\"}").unwrap();
    }
    fs::create_dir(work.path("full")).unwrap();
    std::os::unix::fs::symlink("claims.toml", work.path("link")).unwrap();
    let shard = "model/model-00001-of-00002.safetensors";
    let before = fs::read(work.path(shard)).unwrap();
    let plan = "plan model --out planned --sparsity 0.5 --plan";
    for (file, needle) in [
        (shard, "would be written into the checkpoint"),
        ("model/config.json", "would be written into the checkpoint"),
        ("claims.toml", "--plan claims.toml: would replace claims.toml, which is no plan"),
        ("other.json", "which is no plan"),
        ("link", "which is no plan"),
        ("full", "--plan full: a directory"),
        ("planned", "--plan planned: would replace planned, or a file in it"),
        ("./full/../planned", "would replace planned"),
        ("nowhere/plan.json", "--plan nowhere/plan.json: cannot write there"),
        ("recipe.toml --recipe recipe.toml", "--plan recipe.toml: would replace recipe.toml, or"),
        ("calibration.txt --method wanda --calibration calibration.txt", "would replace calib"),
    ] {
        let planned = format!("{plan} {file}");
        let planned = match file.contains("--recipe") {
            true => planned.replace("--sparsity 0.5 ", ""),
            false => planned,
        };
        work.fails(2, &planned, &[needle]);
    }
    assert_eq!(fs::read(work.path(shard)).unwrap(), before);
    for name in texts {
        assert!(fs::read_to_string(work.path(name)).unwrap().contains("eval/1"), "{name}");
    }
    // An empty file, and plans of this and another version.
    fs::write(work.path("plan.json"), "").unwrap();
    work.ok(&format!("{plan} plan.json"));
    let made = fs::read_to_string(work.path("plan.json")).unwrap();
    work.ok(&format!("{plan} plan.json"));
    let earlier = made.replacen("physarium.units/1", "physarium.units/0", 1);
    fs::write(work.path("plan.json"), earlier.replacen("{", "{\"new\": 1,", 1)).unwrap();
    work.ok(&format!("{plan} plan.json"));
    work.ok("unit plan.json --worker 0/1");
    work.ok("finish plan.json");
}

#[test]
fn an_empty_output_is_used_and_a_finished_one_is_kept_unless_forced() {
    let work = Work::new();
    fs::create_dir(work.path("out")).unwrap();
    work.ok("prune model --out out");
    let before = fs::read(work.path("out/physarium.manifest.json")).unwrap();
    work.fails(2, "prune model --out out --sparsity 0.5", &["output exists", "--force"]);
    assert_eq!(fs::read(work.path("out/physarium.manifest.json")).unwrap(), before);
    work.ok("prune model --out out --sparsity 0.5 --force");
    work.ok("verify out --against model");
    assert_ne!(fs::read(work.path("out/physarium.manifest.json")).unwrap(), before);
    let left: Vec<_> =
        fs::read_dir(work.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn unprunable_models_are_refused_with_the_reason() {
    let work = Work::new();
    work.fails(2, "inspect missing", &["missing", "nothing there"]);
    let fp8 = [Tensor::new("model.layers.0.mlp.up_proj.weight", Kind::Bytes("F8_E4M3"), &[4, 4])];
    work.write("fp8", &fp8, 1);
    work.fails(2, "prune fp8 --out out", &["nothing to prune", "1 projections", "F8_E4M3"]);
    let mut mixed = llama_tensors(Kind::Bf16, 1, [16, 8, 16]);
    mixed.extend(fp8);
    mixed.last_mut().unwrap().name = "model.layers.1.mlp.up_proj.weight".to_owned();
    work.write("mixed", &mixed, 1);
    work.fails(2, "prune mixed --out out --strict", &["model.layers.1.mlp.up_proj", "--strict"]);
    work.nothing_was_written("out");
    let ran = work.run("prune mixed --out out");
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("1 projection copied without pruning"), "{}", ran.stderr);
    let conv = [Tensor::new("h.0.attn.c_attn.weight", Kind::F32, &[8, 24])];
    work.write("gpt2", &conv, 1);
    work.fails(2, "prune gpt2 --out o --target *c_attn.weight --pattern 2:4", &["Conv1D"]);
    work.ok("prune gpt2 --out o --target *c_attn.weight");
}

#[test]
fn non_finite_weights_are_refused_or_kept() {
    let work = Work::new();
    let name = "model.layers.0.mlp.up_proj.weight";
    work.write("nan", &[Tensor::new(name, Kind::F32, &[3, 5])], 1);
    let path = work.path("nan/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 4 * 15;
    bytes[at + 4 * 7..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes[at + 4 * 9..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    for options in ["", "--sparsity 0.5 --scope tensor --method magnitude", "--pattern 1:2"] {
        let needles = [name, "found 2", "row 1, column 2", "--allow-nonfinite"];
        work.fails(2, &format!("prune nan --out out {options}"), &needles);
        work.nothing_was_written("out");
        work.ok(&format!("prune nan --out kept {options} --allow-nonfinite --force"));
        work.ok("verify kept --against nan");
    }
}

#[test]
fn a_dry_run_writes_nothing_and_bounds_memory() {
    let work = Work::new();
    work.write("wide", &[Tensor::new("a.q_proj.weight", Kind::F32, &[600, 4000])], 1);
    for threads in [1, 64, 1024] {
        for options in ["", "--block-size 1024"] {
            let plan = work.json(&format!(
                "prune wide --out out --dry-run --format json --threads {threads} {options}"
            ));
            assert!(plan["resident_bytes"].as_u64().unwrap() < 512 << 20, "{plan}");
        }
    }
    let said = work.ok("prune model --out out --dry-run");
    assert!(said.contains("free needed, ") && said.contains("nothing was written"), "{said}");
    work.nothing_was_written("out");
}

#[test]
fn progress_is_on_stderr_and_can_be_silenced() {
    let work = Work::new();
    let ran = work.run("prune model --out out --progress json");
    let first: Value = serde_json::from_str(ran.stderr.lines().next().unwrap()).unwrap();
    assert_eq!((first["event"].as_str(), first["task"].as_str()), (Some("started"), Some("prune")));
    assert_eq!(work.run("prune model --out quiet --quiet").stderr, "");
    assert!(!work.run("prune model --out bar --progress bar").stdout.contains('\r'));
}

#[test]
fn help_completions_and_manual_pages() {
    let work = Work::new();
    for command in [
        "",
        "inspect",
        "prune",
        "audit",
        "verify",
        "eval",
        "compare",
        "pack",
        "unpack",
        "run",
        "demo",
        "completions",
        "man",
    ] {
        let said = work.ok(&format!("{command} --help"));
        assert!(said.contains("Usage: physarium"), "{command}");
    }
    assert!(work.ok("prune --help").contains("Examples:"));
    assert!(work.ok("completions bash").contains("_physarium"));
    work.ok("man pages");
    assert!(work.path("pages/physarium-prune.1").exists());
    assert_eq!(work.ok("--version"), format!("physarium {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_demo_runs_in_any_directory() {
    let work = Work::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let said = work.ok(&format!("demo --demo {} --quiet", demo.display()));
    for needle in ["$ physarium inspect", "% of target", "-> correct", "verified: ", "Next, on a"] {
        assert!(said.contains(needle), "no {needle:?} in {said}");
    }
    assert!(work.path("demo-out/physarium.audit.md").exists());
    // A second demo replaces the first.
    work.ok("demo --quiet");
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    let work = Work::new();
    let script =
        format!("{} inspect model --format json | head -c 10", env!("CARGO_BIN_EXE_physarium"));
    let output = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {script}")])
        .current_dir(work.0.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
