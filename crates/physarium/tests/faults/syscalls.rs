//! Every file operation of a run fails once, or is where the run is killed (`strace` injects it).
//! Without strace, or where tracing is not permitted, these tests say so and do nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Fixture, in_own_group, program, wait};

fn strace_works() -> bool {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let works = probe.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: no strace here, or tracing is not permitted");
    }
    works
}

/// What one injection came to.
enum Came {
    /// The run ended as it does without: there was no such call.
    Undisturbed,
    Disturbed,
}

/// Runs with one injection; whatever comes of it, nothing half-done may be there, and the same
/// command must finish the work.
fn inject(fixture: &Fixture, call: &str, fault: &str, nth: u32) -> Came {
    fixture.clean();
    let context = format!("{call}:{fault}:when={nth}");
    let log = fixture.path().join("strace.log");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .args(["-e", &format!("trace={call}"), "-e", &format!("inject={context}")])
        .arg(program())
        .args(["prune", "model", "--out", "out", "--threads", "1", "--quiet"])
        .current_dir(fixture.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = in_own_group(&mut command).spawn().unwrap();
    let status = wait(&mut child, Duration::from_secs(30)).unwrap_or_else(|| {
        panic!("{context}: hangs");
    });
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let injected = fs::read_to_string(&log).unwrap().contains("(INJECTED)")
        || fs::read_to_string(&log).unwrap().contains("killed by SIGKILL");
    // The first reads are the system's loader's: the program has not begun.
    let not_begun = status.code() == Some(127) && said.contains("shared libraries");
    if !fault.starts_with("signal") && !not_begun {
        assert!(matches!(status.code(), Some(0 | 2)), "{context}: {status}: {said}");
    }
    let there = fixture.check(&context);
    assert!(there || !status.success(), "{context}: success without output");
    if !there {
        fixture.finish(&context);
    }
    if injected { Came::Disturbed } else { Came::Undisturbed }
}

/// Fails the first, second, third … call until a run has no such call; returns how many.
fn sweep(fixture: &Fixture, call: &str, fault: &str, step: u32) -> u32 {
    let mut nth = 1;
    let mut points = 0;
    while let Came::Disturbed = inject(fixture, call, fault, nth) {
        points += 1;
        nth += step;
        assert!(nth < 3000, "{call}: {fault}: no end");
    }
    points
}

/// Calls that the commit protocol makes, with the errors that each can give.
const FAULTS: [(&str, &[&str]); 8] = [
    ("write", &["error=ENOSPC", "error=EIO"]),
    ("fsync", &["error=EIO"]),
    ("fdatasync", &["error=EIO"]),
    ("renameat2", &["error=EIO", "error=ENOSPC"]),
    ("pread64", &["error=EIO"]),
    ("mkdir", &["error=ENOSPC"]),
    ("ftruncate", &["error=EIO"]),
    ("unlink", &["error=EIO"]),
];

#[test]
fn every_call_fails_once() {
    if !strace_works() {
        return;
    }
    let fixture = Fixture::new(32);
    let full = std::env::var("PHYSARIUM_FAULT_SWEEP").is_ok_and(|v| v == "full");
    let mut points = 0;
    for (call, faults) in FAULTS {
        for fault in faults {
            // There are many writes (a journal line each); they differ little.
            let step = if full || call != "write" { 1 } else { 5 };
            points += sweep(&fixture, call, fault, step);
        }
        if full {
            points += sweep(&fixture, call, "error=EINTR", 1);
            points += sweep(&fixture, call, "signal=SIGKILL", 1);
        }
    }
    eprintln!("{points} injected faults");
    assert!(points > 40, "{points}");
}

#[test]
fn killed_at_every_step_of_the_protocol() {
    if !strace_works() {
        return;
    }
    let fixture = Fixture::new(32);
    let mut points = 0;
    for call in ["fsync", "renameat2", "mkdir", "unlink"] {
        points += sweep(&fixture, call, "signal=SIGKILL", 1);
    }
    assert!(points > 15, "{points}");
}

/// The order that the protocol promises, in one undisturbed run.
#[test]
fn names_appear_only_when_what_they_name_is_durable() {
    if !strace_works() {
        return;
    }
    let fixture = Fixture::new(32);
    fixture.clean();
    let log = fixture.path().join("order.log");
    let status = Command::new("strace")
        .args(["-f", "-y", "-qq", "-s", "64", "-o"])
        .arg(&log)
        .args(["-e", "trace=openat,write,fsync,fdatasync,renameat2,rename,unlink"])
        .arg(program())
        .args(["prune", "model", "--out", "out", "--threads", "1", "--quiet"])
        .current_dir(fixture.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let find = |from: usize, needles: &[&str]| {
        let found = lines[from..].iter().position(|l| needles.iter().all(|n| l.contains(n)));
        from + found.unwrap_or_else(|| panic!("no {needles:?} after line {from}"))
    };
    let mut at = 0;
    for shard in 1..=3 {
        let name = format!("model-0000{shard}-of-00003.safetensors");
        let part = format!("{name}.part");
        let synced = find(at, &["fsync(", &part]);
        let renamed = find(synced, &["renameat2(", &part]);
        let directory = find(renamed, &["fsync(", ".out.physarium-partial>"]);
        let journalled = find(directory, &["write(", "journal.jsonl", "shard"]);
        at = find(journalled, &["fsync(", "journal.jsonl"]);
        let last_write = lines.iter().rposition(|l| l.contains("write(") && l.contains(&part));
        assert!(last_write.unwrap() < synced, "{name} is written after its sync");
    }
    let manifest = find(at, &["fsync(", "physarium.manifest.json"]);
    let directory = find(manifest, &["fsync(", ".out.physarium-partial>"]);
    let marker = find(directory, &["unlink(", "physarium.unfinished.json"]);
    let published = find(marker, &["renameat2(", "/out\""]);
    find(published, &["fsync("]);
    let opened = lines.iter().filter(|l| l.contains("openat(") && l.contains("model/"));
    for line in opened {
        assert!(!line.contains("O_WRONLY") && !line.contains("O_RDWR"), "{line}");
    }
}
