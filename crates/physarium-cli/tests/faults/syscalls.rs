//! Every file operation of a run fails once, or the run is killed there (`strace` injects the fault). Without
//! strace, or if tracing is not permitted, these tests are skipped with a message.
//!
//! `when=K` counts the calls of each thread separately, so a run may meet a fault in more than one thread. To
//! reach faults in later shards and in recovery, runs start from the remains of an earlier, killed run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Fixture, Ran, prepare, program};

/// Whether strace can be used.
pub(super) fn strace_works() -> bool {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let works = probe.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: no strace here, or tracing is not permitted");
    }
    works
}

/// strace in `dir`, following threads, logging to `log`.
pub(super) fn strace(dir: &Path, log: &Path) -> Command {
    let mut command = Command::new("strace");
    prepare(command.args(["-f", "-qq", "-o"]).arg(log), dir);
    command
}

/// What exists when a run begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// Nothing.
    Fresh,
    /// A run killed while it renamed its second shard.
    AfterOneShard,
    /// A run killed before its last step.
    BeforePublishing,
    /// A finished output, to be replaced.
    Forced,
}

const STARTS: [Start; 4] =
    [Start::Fresh, Start::AfterOneShard, Start::BeforePublishing, Start::Forced];

/// A fixture and the directories that its runs begin with.
struct Bench {
    fixture: Fixture,
    points: u32,
}

impl Bench {
    fn new() -> Bench {
        let fixture = Fixture::new(32);
        for (start, rename) in [(Start::AfterOneShard, 2), (Start::BeforePublishing, 4)] {
            let fault = format!("renameat2:signal=SIGKILL:when={rename}");
            let ran = Bench::run(&fixture, "renameat2", &fault, &[]).0;
            assert_eq!(ran.code(), -1, "{}", ran.stderr);
            fs::rename(fixture.staging(), saved(&fixture, start)).unwrap();
        }
        let before = |name: &str| saved(&fixture, Start::BeforePublishing).join(name).exists();
        assert!(before("physarium.manifest.json") && !before("physarium.unfinished.json"));
        Bench { fixture, points: 0 }
    }

    fn begin(&self, start: Start) {
        self.fixture.clean();
        match start {
            Start::Fresh => {}
            Start::AfterOneShard | Start::BeforePublishing => {
                copy_dir(&saved(&self.fixture, start), &self.fixture.staging());
            }
            Start::Forced => {
                copy_dir(&self.fixture.path().join("expected"), &self.fixture.out());
            }
        }
    }

    /// A run with one injection, and whether the fault occurred.
    fn run(fixture: &Fixture, call: &str, inject: &str, arguments: &[&str]) -> (Ran, bool) {
        let log = fixture.path().join("strace.log");
        let mut command = strace(fixture.path(), &log);
        command
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={inject}")])
            .args([program(), "prune", "model", "--out", "out", "--threads", "1"])
            .args(arguments);
        let ran = Ran::end_of(command.spawn().unwrap(), Duration::from_secs(60), inject);
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(log).unwrap();
        (ran, text.contains("(INJECTED)") || text.contains("killed by SIGKILL"))
    }

    /// Injects a fault: no incomplete output may appear, and the same command must then finish the run. Returns
    /// whether there was such a call.
    fn inject(&self, start: Start, call: &str, fault: &str, nth: u32) -> bool {
        self.begin(start);
        let inject = format!("{call}:{fault}:when={nth}");
        let context = format!("{start:?}: {inject}");
        let forced = start == Start::Forced;
        let arguments: &[&str] = if forced { &["--force"] } else { &[] };
        let (ran, injected) = Bench::run(&self.fixture, call, &inject, arguments);
        // The dynamic loader makes calls too: the program has not begun then.
        let not_begun = ran.code() == 127 || ran.stderr.contains("shared libraries");
        // The standard library assumes that closing a directory cannot fail, which is true on Linux.
        let closedir = call == "close" && ran.stderr.contains("unexpected error during closedir");
        if !fault.starts_with("signal") && !not_begun && !closedir {
            assert!(matches!(ran.code(), 0 | 2), "{context}: {}: {}", ran.status, ran.stderr);
        }
        if ran.code() == 2 {
            assert!(ran.stderr.contains("error: "), "{context}: {}", ran.stderr);
        }
        let there = self.fixture.check(&context);
        assert!(there || ran.code() != 0, "{context}: success without output");
        assert!(injected || ran.code() == 0, "{context}: {}", ran.stderr);
        if forced {
            let ran = Ran::of(super::prune(self.fixture.path(), "out").arg("--force"));
            assert_eq!(ran.code(), 0, "{context}: {}", ran.stderr);
            assert!(self.fixture.check(&context), "{context}");
            self.fixture.nothing_is_left(&context);
        } else if injected {
            self.fixture.settle(&context);
        }
        injected
    }

    /// Fails every `step`th call in turn, until a run has no such call.
    fn sweep(&mut self, start: Start, call: &str, fault: &str, step: u32) {
        let mut nth = 1;
        while self.inject(start, call, fault, nth) {
            self.points += 1;
            nth += step;
            assert!(nth < 3000, "{call}: {fault}: no end");
        }
    }
}

fn saved(fixture: &Fixture, start: Start) -> PathBuf {
    fixture.path().join(format!("saved-{start:?}"))
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn full() -> bool {
    std::env::var("PHYSARIUM_FAULT_SWEEP").is_ok_and(|v| v == "full")
}

/// Calls with errors that disks return for them, and the step between the calls that are tried.
const LIKELY: [(&str, &str, u32); 15] = [
    ("write", "error=ENOSPC", 7),
    ("write", "error=EIO", 11),
    ("write", "error=EINTR", 11),
    ("fsync", "error=EIO", 1),
    ("fsync", "error=ENOSPC", 4),
    ("rename", "error=EIO", 1),
    ("renameat2", "error=EIO", 1),
    ("renameat2", "error=ENOSPC", 2),
    ("openat", "error=EMFILE", 6),
    ("close", "error=EIO", 7),
    ("pread64", "error=EIO", 3),
    ("ftruncate", "error=EIO", 1),
    ("mkdir", "error=ENOSPC", 1),
    ("unlink", "error=EIO", 1),
    ("getdents64", "error=EIO", 2),
];

/// All calls of a run that access files.
const CALLS: [&str; 18] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat2",
    "openat",
    "close",
    "pread64",
    "read",
    "ftruncate",
    "mkdir",
    "unlink",
    "unlinkat",
    "getdents64",
    "statx",
    "flock",
    "statfs",
];

#[test]
fn calls_that_fail_once() {
    if !strace_works() {
        return;
    }
    let mut bench = Bench::new();
    for (call, fault, step) in LIKELY {
        bench.sweep(Start::Fresh, call, fault, step);
    }
    for start in [Start::AfterOneShard, Start::BeforePublishing] {
        for (call, fault) in [("fsync", "error=EIO"), ("pread64", "error=EIO")] {
            bench.sweep(start, call, fault, 3);
        }
    }
    for call in ["rename", "renameat2", "unlinkat"] {
        bench.sweep(Start::Forced, call, "error=EIO", 2);
    }
    eprintln!("{} injected faults", bench.points);
    assert!(bench.points > 60, "{}", bench.points);
}

#[test]
fn killed_at_every_step_of_the_protocol() {
    if !strace_works() {
        return;
    }
    let mut bench = Bench::new();
    for call in ["fsync", "rename", "renameat2", "mkdir", "unlink", "ftruncate"] {
        bench.sweep(Start::Fresh, call, "signal=SIGKILL", 1);
    }
    for start in [Start::AfterOneShard, Start::BeforePublishing] {
        for call in ["fsync", "renameat2", "rename", "unlink"] {
            bench.sweep(start, call, "signal=SIGKILL", 2);
        }
    }
    for call in ["rename", "renameat2", "unlinkat"] {
        bench.sweep(Start::Forced, call, "signal=SIGKILL", 1);
    }
    eprintln!("{} kills", bench.points);
    assert!(bench.points > 25, "{}", bench.points);
}

/// A run that cannot start its threads ends with an error like any other.
#[test]
fn threads_that_cannot_be_started() {
    if !strace_works() {
        return;
    }
    let mut bench = Bench::new();
    for start in [Start::Fresh, Start::AfterOneShard] {
        for call in ["clone3", "clone"] {
            bench.sweep(start, call, "error=EAGAIN", 1);
        }
    }
}

/// All calls, all errors, all starts; takes minutes. Runs with `PHYSARIUM_FAULT_SWEEP=full`.
#[test]
fn every_call_fails_once() {
    if !full() || !strace_works() {
        return;
    }
    let mut bench = Bench::new();
    for start in STARTS {
        for call in CALLS {
            let before = bench.points;
            let errors = ["ENOSPC", "EIO", "EMFILE", "EINTR"];
            let faults = errors.map(|error| format!("error={error}"));
            for fault in faults.iter().map(String::as_str).chain(["signal=SIGKILL"]) {
                bench.sweep(start, call, fault, 1);
            }
            eprintln!("{start:?}: {call}: {} injected faults", bench.points - before);
        }
    }
    eprintln!("{} injected faults", bench.points);
}
