//! Runs that are killed, stopped, or meet errors of the system: no incomplete output appears, and the same command
//! completes with the bytes of an undisturbed run.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use physarium_fixtures::{Fill, Kind, llama_tensors, write_checkpoint};

mod disk;
mod durable;
mod earlier_run;
mod input_changed;
mod kill;
mod scratch;
mod signals;
mod solved_layers;
mod syscalls;

/// Files of a directory and its subdirectories, by path.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Shards of every fixture.
const SHARDS: usize = 3;
const JOURNAL: &str = "physarium.journal.jsonl";

/// A directory with `model`, a checkpoint of three shards with sidecars, and `expected`, the output of an
/// undisturbed run.
struct Fixture {
    dir: tempfile::TempDir,
    model: Files,
    expected: Files,
    /// Duration of the undisturbed run.
    took: Duration,
}

impl Fixture {
    /// A hidden size of 128 gives shards of 0.5 MB, 256 of 2 MB, 32 very small ones.
    fn new(hidden: u64) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        let tensors = llama_tensors(Kind::Bf16, 3, [hidden, hidden / 2, 3 * hidden]);
        write_checkpoint(&model, &tensors, SHARDS, Fill::Gaussian(8)).unwrap();
        fs::write(model.join("tokenizer.json"), vec![7; 100_000]).unwrap();
        fs::create_dir_all(model.join("original/deep")).unwrap();
        fs::write(model.join("original/deep/params.json"), "{}\n").unwrap();
        let begin = Instant::now();
        let ran = Ran::of(&mut prune(dir.path(), "expected"));
        let took = begin.elapsed();
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        let (model, expected) = (files(&model), files(&dir.path().join("expected")));
        Fixture { dir, model, expected, took }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn out(&self) -> PathBuf {
        self.path().join("out")
    }

    fn staging(&self) -> PathBuf {
        self.path().join(".out.physarium-partial")
    }

    /// A shard of the input; the first is 1.
    fn shard(&self, number: usize) -> PathBuf {
        self.path().join("model").join(shard_name(number))
    }

    /// Checks that the input is unchanged and the output absent or complete. Returns whether the output exists.
    fn check(&self, context: &str) -> bool {
        assert!(files(&self.path().join("model")) == self.model, "{context}: input changed");
        let exists = self.out().exists();
        assert!(
            !exists || files(&self.out()) == self.expected,
            "{context}: output is not complete"
        );
        exists
    }

    /// Runs the command, which must complete with the undisturbed bytes and leave nothing beside them. If shards
    /// are journalled, the run must report how many it kept.
    fn finish(&self, context: &str) -> Ran {
        let kept = self.journalled_shards();
        let ran = Ran::of(&mut prune(self.path(), "out"));
        assert_eq!(ran.code(), 0, "{context}: {}", ran.stderr);
        let note = format!("resuming: {kept} of {SHARDS} shards kept, verified by digest");
        assert_eq!(ran.stderr.contains(&note), kept > 0, "{context}: {kept} in {}", ran.stderr);
        assert!(self.check(context), "{context}: no output");
        self.nothing_is_left(context);
        ran
    }

    /// Checks that a finished output is not written again.
    fn refuses_to_repeat(&self, context: &str) {
        let ran = Ran::of(&mut prune(self.path(), "out"));
        ran.fails(context, &["output exists", "--force"]);
        assert!(self.check(context), "{context}: the output is gone");
        self.nothing_is_left(context);
    }

    /// Finishes the run if it is unfinished.
    fn settle(&self, context: &str) {
        if self.check(context) {
            self.refuses_to_repeat(context);
        } else {
            self.finish(context);
        }
    }

    fn nothing_is_left(&self, context: &str) {
        for name in ["out.lock", ".out.physarium-partial", ".out.physarium-replaced"] {
            let path = self.path().join(name);
            assert!(path.symlink_metadata().is_err(), "{context}: {name} is left");
        }
    }

    /// Number of shards in whole lines of an unfinished run's journal.
    fn journalled_shards(&self) -> usize {
        let text = fs::read_to_string(self.staging().join(JOURNAL)).unwrap_or_default();
        text.split_inclusive('\n')
            .filter(|line| line.starts_with("{\"record\":\"shard\"") && line.ends_with('\n'))
            .count()
    }

    fn clean(&self) {
        for dir in [self.out(), self.staging(), self.path().join(".out.physarium-replaced")] {
            let _ = fs::remove_dir_all(dir);
        }
        let _ = fs::remove_file(self.path().join("out.lock"));
    }

    /// Starts a run and stops it (SIGSTOP) as soon as `begun` holds, before its output exists.
    fn stopped_when(&self, begun: impl Fn() -> bool) -> Child {
        for _ in 0..200 {
            self.clean();
            let mut child = prune(self.path(), "out").spawn().unwrap();
            let mut ended = false;
            while !ended && !begun() {
                ended = child.try_wait().unwrap().is_some();
            }
            if !ended {
                signal(&child, "-STOP");
                if begun() && !self.out().exists() && child.try_wait().unwrap().is_none() {
                    return child;
                }
                signal(&child, "-CONT");
            }
            child.wait().unwrap();
        }
        panic!("every run ended before it could be stopped");
    }

    /// Kills a run once so many shards are journalled.
    fn killed_after(&self, shards: usize) {
        let mut child = self.stopped_when(|| self.journalled_shards() == shards);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The result of a run.
struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(command: &mut Command) -> Ran {
        command.output().unwrap().into()
    }

    /// Waits for a run; one that takes longer than the limit is killed.
    fn end_of(mut child: Child, limit: Duration, context: &str) -> Ran {
        let begin = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begin.elapsed() > limit {
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.kill();
                let _ = child.wait();
                panic!("{context}: still runs after {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait_with_output().unwrap().into()
    }

    /// The exit code; -1 if a signal ended the run.
    fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    fn fails(&self, context: &str, needles: &[&str]) {
        assert_eq!(self.code(), 2, "{context}: {}{}", self.stdout, self.stderr);
        let reasons = self.stderr.matches("(os error").count();
        assert!(reasons <= 1, "{context}: the reason twice: {}", self.stderr);
        for needle in needles {
            assert!(self.stderr.contains(needle), "{context}: no {needle:?} in {}", self.stderr);
        }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_physarium")
}

fn shard_name(number: usize) -> String {
    format!("model-{number:05}-of-{SHARDS:05}.safetensors")
}

/// The command that is disturbed, in its own process group.
fn prune(dir: &Path, out: &str) -> Command {
    let mut command = Command::new(program());
    let arguments = ["prune", "model", "--out", out, "--threads", "1"];
    prepare(command.args(arguments), dir);
    command
}

/// Sets directory, pipes, and a process group, so that a whole tree can be killed.
fn prepare(command: &mut Command, dir: &Path) {
    command.current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
}

fn files(dir: &Path) -> Files {
    fn add(root: &Path, dir: &Path, all: &mut Files) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                add(root, &path, all);
            } else if kind.is_file() {
                all.insert(path.strip_prefix(root).unwrap().into(), fs::read(&path).unwrap());
            }
        }
    }
    let mut all = Files::new();
    add(dir, dir, &mut all);
    all
}

fn signal(child: &Child, name: &str) {
    // A child that has ended can be signalled until it is waited for.
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success(), "kill {name}");
}
