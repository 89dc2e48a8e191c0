//! Runs that are killed, stopped, or let down by the machine: nothing half-done appears, and the
//! same command ends with the bytes of an undisturbed run.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use physarium_fixtures::{Fill, Kind, Noise, llama_tensors, write_checkpoint};

mod disk;
mod syscalls;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A checkpoint of three shards and what pruning it gives.
struct Fixture {
    dir: tempfile::TempDir,
    model: Files,
    expected: Files,
    /// How long the undisturbed run took.
    took: Duration,
}

impl Fixture {
    fn new(hidden: u64) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        let tensors = llama_tensors(Kind::Bf16, 3, hidden, hidden / 2, 3 * hidden);
        write_checkpoint(&model, &tensors, 3, Fill::Gaussian(8)).unwrap();
        fs::write(model.join("tokenizer.json"), vec![7; 100_000]).unwrap();
        let begin = Instant::now();
        let output = prune(dir.path(), "expected").output().unwrap();
        let took = begin.elapsed();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (model, expected) = (files(&model), files(&dir.path().join("expected")));
        Fixture { dir, model, expected, took }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The input is as it was; the output is absent or complete. Returns whether it is there.
    fn check(&self, context: &str) -> bool {
        assert!(files(&self.path().join("model")) == self.model, "{context}: input changed");
        let out = self.path().join("out");
        let there = out.exists();
        assert!(!there || files(&out) == self.expected, "{context}: output is not complete");
        there
    }

    /// Runs the command until the output is there, which must take one undisturbed run.
    fn finish(&self, context: &str) -> Output {
        let output = prune(self.path(), "out").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{context}: {said}");
        assert!(self.check(context), "{context}: no output");
        output
    }

    fn clean(&self) {
        for name in ["out", ".out.physarium-partial", ".out.physarium-replaced"] {
            let _ = fs::remove_dir_all(self.path().join(name));
        }
        let _ = fs::remove_file(self.path().join("out.lock"));
    }
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_physarium")
}

fn prune(dir: &Path, out: &str) -> Command {
    let mut command = Command::new(program());
    command
        .args(["prune", "model", "--out", out, "--threads", "1"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn files(dir: &Path) -> Files {
    let mut all = Files::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        all.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
    }
    all
}

/// Waits for a child, at most so long.
fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    None
}

fn signal(child: &Child, name: &str) {
    // A child that is over but not waited for can still be signalled.
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success() || name != "-CONT");
}

#[test]
fn killed_at_many_moments() {
    let fixture = Fixture::new(256);
    let rounds = std::env::var("PHYSARIUM_FAULT_ROUNDS").map_or(40, |n| n.parse().unwrap());
    let mut noise = Noise::new(1);
    let mut kills = 0;
    for round in 0..rounds {
        fixture.clean();
        let context = format!("round {round}");
        // Up to five kills in a row, each in whatever the one before left.
        for _ in 0..1 + noise.below(5) {
            let mut child = prune(fixture.path(), "out").spawn().unwrap();
            let micros = noise.below(fixture.took.as_micros() as u64 * 11 / 10);
            std::thread::sleep(Duration::from_micros(micros));
            let _ = child.kill();
            let status = child.wait().unwrap();
            kills += u32::from(status.signal() == Some(9));
            if fixture.check(&context) {
                break;
            }
        }
        if !fixture.check(&context) {
            fixture.finish(&context);
        }
    }
    // How many depends on what else the machine does.
    assert!(kills > 0, "no run was killed in time");
}

#[test]
fn stopped_by_a_signal() {
    let fixture = Fixture::new(256);
    for (name, number) in [("-INT", 2), ("-TERM", 15)] {
        // A run may be over before the signal comes: again then.
        let stopped = (0..100).any(|_| stop(&fixture, name, number));
        assert!(stopped, "{name} never came in time");
    }
}

/// Sends a signal to a run that has begun; whether it came in time.
fn stop(fixture: &Fixture, name: &str, number: i32) -> bool {
    fixture.clean();
    let mut child = prune(fixture.path(), "out").spawn().unwrap();
    let begun = fixture.path().join(".out.physarium-partial/physarium.journal.jsonl");
    while !begun.exists() && child.try_wait().unwrap().is_none() {}
    signal(&child, name);
    let status = wait(&mut child, Duration::from_secs(5)).expect("stops in time");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if fixture.check(name) {
        return false;
    }
    assert_eq!(status.code(), Some(128 + number), "{said}");
    assert!(said.contains("to go on: ") && said.contains("prune model --out out"), "{said}");
    fixture.finish(name);
    true
}

/// A run stopped while it holds the lock; `None` when it was over before.
fn hold(fixture: &Fixture, lock: &Path) -> Option<Child> {
    fixture.clean();
    let mut child = prune(fixture.path(), "out").spawn().unwrap();
    while fs::read_to_string(lock).map_or(true, |holder| !holder.ends_with('\n')) {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
    }
    signal(&child, "-STOP");
    let held = fs::read_to_string(lock).is_ok() && !fixture.path().join("out").exists();
    if !held {
        signal(&child, "-CONT");
        child.wait().unwrap();
    }
    held.then_some(child)
}

#[test]
fn a_second_run_on_the_same_output_is_told_who_holds_it() {
    let fixture = Fixture::new(256);
    let lock = fixture.path().join("out.lock");
    let mut first = (0..100).find_map(|_| hold(&fixture, &lock)).expect("a run that is held");
    let second = prune(fixture.path(), "out").output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("locked by pid {}", first.id())), "{said}");
    signal(&first, "-CONT");
    assert!(first.wait().unwrap().success());
    assert!(fixture.check("after the lock"));
    assert!(!lock.exists());
}

/// Kills a run after its first shard is journalled.
fn interrupt_after_a_shard(fixture: &Fixture) {
    for _ in 0..200 {
        fixture.clean();
        let mut child = prune(fixture.path(), "out").spawn().unwrap();
        let journal = fixture.path().join(".out.physarium-partial/physarium.journal.jsonl");
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&journal).unwrap_or_default();
            if text.contains("{\"record\":\"shard\"") {
                let _ = child.kill();
            }
        }
        if !fixture.path().join("out").exists() {
            return;
        }
    }
    panic!("every run was over before it could be killed");
}

#[test]
fn another_recipe_or_another_input_is_refused() {
    let fixture = Fixture::new(256);
    interrupt_after_a_shard(&fixture);
    let refused = |command: &mut Command, needles: &[&str]| {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        for needle in needles {
            assert!(said.contains(needle), "no {needle:?} in {said}");
        }
    };
    let other = &mut prune(fixture.path(), "out");
    refused(other.args(["--inflow", "4"]), &["recipe.method.inflow was 5.16", "4.0", "--restart"]);
    let shard = fixture.path().join("model/model-00003-of-00003.safetensors");
    let times = fs::metadata(&shard).unwrap().modified().unwrap();
    let touched = fs::File::options().write(true).open(&shard).unwrap();
    touched.set_modified(times + Duration::from_secs(1)).unwrap();
    refused(&mut prune(fixture.path(), "out"), &["modified_ns", "--restart"]);
    touched.set_modified(times).unwrap();
    // The first shard's bytes changed with its times put back: only its digest can tell.
    let first = fixture.path().join("model/model-00001-of-00003.safetensors");
    let before = fs::read(&first).unwrap();
    let times = fs::metadata(&first).unwrap().modified().unwrap();
    let write = |bytes: &[u8]| {
        fs::write(&first, bytes).unwrap();
        fs::File::options().write(true).open(&first).unwrap().set_modified(times).unwrap();
    };
    let mut changed = before.clone();
    *changed.last_mut().unwrap() ^= 1;
    write(&changed);
    refused(&mut prune(fixture.path(), "out"), &["input changed", "SHA-256", "00001-of-00003"]);
    write(&before);
    let output = fixture.finish("unchanged again");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("of 3 shards already done and verified"), "{said}");
}

#[test]
fn a_damaged_staging_directory_is_not_trusted() {
    let fixture = Fixture::new(256);
    let staging = fixture.path().join(".out.physarium-partial");
    let damage = |change: &dyn Fn()| {
        interrupt_after_a_shard(&fixture);
        let _ = fs::remove_dir_all(fixture.path().join("out"));
        change();
    };
    // A finished shard whose bytes rotted is made again.
    damage(&|| {
        let path = staging.join("model-00001-of-00003.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        bytes[5000] ^= 1;
        fs::write(&path, bytes).unwrap();
    });
    fixture.finish("rotten shard");
    // A torn last line is what a crash leaves.
    damage(&|| {
        let path = staging.join("physarium.journal.jsonl");
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 7);
        fs::write(&path, bytes).unwrap();
    });
    fixture.finish("torn line");
    // A changed line in the middle is not.
    damage(&|| {
        let path = staging.join("physarium.journal.jsonl");
        let text = fs::read_to_string(&path).unwrap().replacen("\"pruned\":", "\"pruned\":1", 1);
        fs::write(&path, text).unwrap();
    });
    let output = prune(fixture.path(), "out").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("journal line"), "{said}");
    let output = prune(fixture.path(), "out").arg("--restart").output().unwrap();
    assert!(output.status.success() && fixture.check("restart"));
    // An unfinished directory is no checkpoint.
    interrupt_after_a_shard(&fixture);
    let inspect = Command::new(program()).arg("inspect").arg(&staging).output().unwrap();
    assert_eq!(inspect.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&inspect.stderr).contains("unfinished output"));
}

/// A command of this process group's own, so that a whole tree can be ended.
fn in_own_group(command: &mut Command) -> &mut Command {
    command.process_group(0)
}
