//! SIGINT and SIGTERM stop a run in order, and the command it names finishes the work.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Fixture, JOURNAL, Ran, program, signal};

/// The promise is 2 s; a loaded machine gets more.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_signal_stops_the_run_and_keeps_its_shards() {
    let fixture = Fixture::new(256);
    for (name, number) in [("-INT", 2), ("-TERM", 15)] {
        for shards in 0..3 {
            let context = format!("{name} after {shards} shards");
            // A run that has only its last step before it ends without looking: again then.
            let ran = (0..100).find_map(|_| stop(&fixture, name, shards));
            let ran = ran.unwrap_or_else(|| panic!("{context}: never came in time"));
            assert_eq!(ran.code(), 128 + number, "{context}: {}", ran.stderr);
            assert_eq!(ran.stdout, "", "{context}");
            let command = command_to_go_on(&ran, &context);
            assert!(fixture.staging().join(JOURNAL).exists(), "{context}: staging is gone");
            assert!(!fixture.path().join("out.lock").exists(), "{context}: the lock is left");
            assert!(ran.stderr.contains(".out.physarium-partial"), "{context}: {}", ran.stderr);
            go_on(&fixture, &command, &context);
        }
    }
}

/// Sends a signal to a run with so many shards finished; `None` when it came too late.
fn stop(fixture: &Fixture, name: &str, shards: usize) -> Option<Ran> {
    let child = fixture.stopped_when(|| {
        fixture.staging().join(JOURNAL).exists() && fixture.journalled_shards() >= shards
    });
    signal(&child, name);
    signal(&child, "-CONT");
    let ran = Ran::end_of(child, LIMIT, name);
    (!fixture.check(name)).then_some(ran)
}

/// What stands on the one line that names the command.
fn command_to_go_on(ran: &Ran, context: &str) -> String {
    let lines: Vec<_> =
        ran.stderr.lines().filter_map(|line| line.strip_prefix("to go on: ")).collect();
    let [command] = lines[..] else { panic!("{context}: no command in {}", ran.stderr) };
    assert!(command.starts_with(program()) && command.contains("prune model --out out"));
    command.to_owned()
}

/// Runs the very text that was printed.
fn go_on(fixture: &Fixture, command: &str, context: &str) {
    let kept = fixture.journalled_shards();
    let ran = Ran::of(Command::new("sh").args(["-c", command]).current_dir(fixture.path()));
    assert_eq!(ran.code(), 0, "{context}: {}", ran.stderr);
    assert_eq!(ran.stderr.contains(&format!("resuming: {kept} of 3")), kept > 0, "{context}");
    assert!(fixture.check(context));
    fixture.nothing_is_left(context);
}

/// A signal while an earlier run's shards are hashed again is no different.
#[test]
fn a_signal_while_a_run_is_continued() {
    let fixture = Fixture::new(256);
    fixture.killed_after(2);
    let journal = fs::read(fixture.staging().join(JOURNAL)).unwrap();
    let mut stopped = 0;
    for micros in (0..fixture.took.as_micros() as u64).step_by(5000) {
        let child = super::prune(fixture.path(), "out").spawn().unwrap();
        std::thread::sleep(Duration::from_micros(micros));
        signal(&child, "-TERM");
        let ran = Ran::end_of(child, LIMIT, "continued");
        if fixture.check("continued") {
            break;
        }
        // Before it watches for signals, the system's own way ends it.
        if ran.status.code().is_some() {
            assert_eq!(ran.code(), 143, "{}", ran.stderr);
            command_to_go_on(&ran, "continued");
            stopped += 1;
        }
        let now = fs::read(fixture.staging().join(JOURNAL)).unwrap();
        assert!(now.len() >= journal.len() || fixture.journalled_shards() >= 2, "shards are lost");
    }
    eprintln!("{stopped} continued runs stopped in order");
    fixture.settle("continued");
}

/// The second signal ends the run at once, with the same code and nothing published.
#[test]
fn two_signals() {
    let fixture = Fixture::new(256);
    let child = fixture.stopped_when(|| fixture.staging().join(JOURNAL).exists());
    // Delivered together when it goes on: the handler of one sees what the other raised.
    signal(&child, "-INT");
    signal(&child, "-TERM");
    signal(&child, "-CONT");
    let ran = Ran::end_of(child, LIMIT, "two signals");
    assert!(matches!(ran.code(), 130 | 143), "{}: {}", ran.status, ran.stderr);
    assert!(!fixture.check("two signals"));
    fixture.finish("two signals");
}
