//! SIGINT and SIGTERM stop a run cleanly, and the command that it prints resumes the run.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Fixture, JOURNAL, Ran, program, signal};

/// The documented limit is 2 s; a loaded machine needs more.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_signal_stops_the_run_and_keeps_its_shards() {
    let fixture = Fixture::new(256);
    for (name, number) in [("-INT", 2), ("-TERM", 15)] {
        for shards in 0..3 {
            let context = format!("{name} after {shards} shards");
            // A run in its last step ends without checking for signals: try again.
            let ran = (0..100).find_map(|_| stop(&fixture, name, shards));
            let ran = ran.unwrap_or_else(|| panic!("{context}: never in time"));
            assert_eq!(ran.code(), 128 + number, "{context}: {}", ran.stderr);
            assert_eq!(ran.stdout, "", "{context}");
            let command = resume_command(&ran, &context);
            assert!(fixture.staging().join(JOURNAL).exists(), "{context}: staging is gone");
            assert!(!fixture.path().join("out.lock").exists(), "{context}: the lock is left");
            assert!(ran.stderr.contains(".out.physarium-partial"), "{context}: {}", ran.stderr);
            resume(&fixture, &command, &context);
        }
    }
}

/// Sends a signal to a run with so many finished shards; `None` if the signal came too late.
fn stop(fixture: &Fixture, name: &str, shards: usize) -> Option<Ran> {
    let child = fixture.stopped_when(|| {
        fixture.staging().join(JOURNAL).exists() && fixture.journalled_shards() >= shards
    });
    signal(&child, name);
    signal(&child, "-CONT");
    let ran = Ran::end_of(child, LIMIT, name);
    (!fixture.check(name)).then_some(ran)
}

/// The command in the one line that says how to resume.
fn resume_command(ran: &Ran, context: &str) -> String {
    let lines: Vec<_> =
        ran.stderr.lines().filter_map(|line| line.strip_prefix("to resume: ")).collect();
    let [command] = lines[..] else { panic!("{context}: no command in {}", ran.stderr) };
    assert!(command.starts_with(program()) && command.contains("prune model --out out"));
    command.to_owned()
}

/// Runs the printed command.
fn resume(fixture: &Fixture, command: &str, context: &str) {
    let kept = fixture.journalled_shards();
    let ran = Ran::of(Command::new("sh").args(["-c", command]).current_dir(fixture.path()));
    assert_eq!(ran.code(), 0, "{context}: {}", ran.stderr);
    assert_eq!(ran.stderr.contains(&format!("resuming: {kept} of 3")), kept > 0, "{context}");
    assert!(fixture.check(context));
    fixture.nothing_is_left(context);
}

/// A signal while a resumed run hashes the earlier run's shards has the same effect.
#[test]
fn a_signal_while_a_run_is_resumed() {
    let fixture = Fixture::new(256);
    fixture.killed_after(2);
    let journal = fs::read(fixture.staging().join(JOURNAL)).unwrap();
    let mut stopped = 0;
    for micros in (0..fixture.took.as_micros() as u64).step_by(5000) {
        let child = super::prune(fixture.path(), "out").spawn().unwrap();
        std::thread::sleep(Duration::from_micros(micros));
        signal(&child, "-TERM");
        let ran = Ran::end_of(child, LIMIT, "resumed");
        if fixture.check("resumed") {
            break;
        }
        // Before its handlers are installed, the signal kills the process.
        if ran.status.code().is_some() {
            assert_eq!(ran.code(), 143, "{}", ran.stderr);
            resume_command(&ran, "resumed");
            stopped += 1;
        }
        let now = fs::read(fixture.staging().join(JOURNAL)).unwrap();
        assert!(now.len() >= journal.len() || fixture.journalled_shards() >= 2, "shards are lost");
    }
    eprintln!("{stopped} resumed runs stopped cleanly");
    fixture.settle("resumed");
}

/// The second signal ends the run at once, with the same code and no output.
#[test]
fn two_signals() {
    let fixture = Fixture::new(256);
    let child = fixture.stopped_when(|| fixture.staging().join(JOURNAL).exists());
    // Both are delivered when the run continues: one handler sees what the other raised.
    signal(&child, "-INT");
    signal(&child, "-TERM");
    signal(&child, "-CONT");
    let ran = Ran::end_of(child, LIMIT, "two signals");
    assert!(matches!(ran.code(), 130 | 143), "{}: {}", ran.status, ran.stderr);
    assert!(!fixture.check("two signals"));
    fixture.finish("two signals");
}
