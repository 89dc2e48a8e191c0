//! Outputs that another run has locked, and remains of an earlier run: damaged, or unfinished.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Fixture, JOURNAL, Ran, program, prune, shard_name, signal};

#[test]
fn a_second_run_on_the_same_output_names_the_holder_of_the_lock() {
    let fixture = Fixture::new(256);
    let lock = fixture.path().join("out.lock");
    let held = || fs::read_to_string(&lock).is_ok_and(|holder| holder.ends_with('\n'));
    let mut first = fixture.stopped_when(held);
    let second = Ran::of(&mut prune(fixture.path(), "out"));
    let holder = format!("locked by pid {}", first.id());
    second.fails("second run", &[&holder]);
    signal(&first, "-CONT");
    assert!(first.wait().unwrap().success());
    assert!(fixture.check("after the lock"));
    fixture.nothing_is_left("after the lock");
}

/// Kills a run after its first shard, and changes a file that it left.
fn damage(fixture: &Fixture, name: &str, change: impl Fn(&mut Vec<u8>)) {
    fixture.killed_after(1);
    let path = fixture.staging().join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

/// Runs to the end, with or without kept shards.
fn recovers(fixture: &Fixture, context: &str) {
    let ran = Ran::of(&mut prune(fixture.path(), "out"));
    assert_eq!(ran.code(), 0, "{context}: {}", ran.stderr);
    assert!(fixture.check(context));
    fixture.nothing_is_left(context);
}

#[test]
fn a_damaged_staging_directory_is_not_trusted() {
    let fixture = Fixture::new(256);
    let first = shard_name(1);
    damage(&fixture, &first, |bytes| bytes[5000] ^= 1);
    recovers(&fixture, "changed shard");
    damage(&fixture, &first, |bytes| bytes.truncate(5000));
    recovers(&fixture, "short shard");
    damage(&fixture, &first, |bytes| bytes.push(0));
    recovers(&fixture, "long shard");
    fixture.killed_after(1);
    fs::remove_file(fixture.staging().join(&first)).unwrap();
    recovers(&fixture, "no shard");
    // A crash can leave a torn last line, also as the only line of the journal.
    damage(&fixture, JOURNAL, |bytes| bytes.truncate(bytes.len() - 7));
    recovers(&fixture, "torn line");
    damage(&fixture, JOURNAL, |bytes| bytes.truncate(40));
    recovers(&fixture, "torn first line");
    // A crash cannot change a line in the middle.
    damage(&fixture, JOURNAL, |bytes| {
        let text = String::from_utf8(std::mem::take(bytes)).unwrap();
        *bytes = text.replacen("\"pruned\":", "\"pruned\":1", 1).into_bytes();
    });
    Ran::of(&mut prune(fixture.path(), "out")).fails("changed line", &["journal line"]);
    let ran = Ran::of(prune(fixture.path(), "out").arg("--restart"));
    assert!(ran.code() == 0 && fixture.check("restart"), "{}", ran.stderr);
    fixture.nothing_is_left("restart");
}

#[test]
fn an_unfinished_output_is_not_a_checkpoint() {
    let fixture = Fixture::new(256);
    fixture.killed_after(1);
    let refuse = |arguments: &[&Path]| {
        let ran = Ran::of(Command::new(program()).args(arguments).current_dir(fixture.path()));
        ran.fails(&format!("{arguments:?}"), &["unfinished output"]);
    };
    let staging = fixture.staging();
    let model = Path::new("model");
    refuse(&["inspect".as_ref(), &staging]);
    refuse(&["audit".as_ref(), &staging, "--against".as_ref(), model]);
    let mut verify = Command::new(program());
    verify.arg("verify").arg(&staging).arg("--against").arg(model).current_dir(fixture.path());
    assert_eq!(Ran::of(&mut verify).code(), 1);
}

/// `--force`: the old output stays until the new one is complete.
#[test]
fn a_killed_forced_run_keeps_the_old_output() {
    let fixture = Fixture::new(256);
    fixture.finish("first");
    let mut force = prune(fixture.path(), "out");
    force.args(["--force", "--sparsity", "0.5"]);
    for micros in (0..fixture.took.as_micros() as u64).step_by(8000) {
        let mut child = force.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(micros));
        child.kill().unwrap();
        child.wait().unwrap();
        if fixture.out().exists() && super::files(&fixture.out()) != fixture.expected {
            break;
        }
    }
    let ran = Ran::of(&mut force);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let ran = Ran::of(
        Command::new(program())
            .args(["verify", "out", "--against", "model"])
            .current_dir(fixture.path()),
    );
    assert_eq!(ran.code(), 0, "{}{}", ran.stdout, ran.stderr);
    fixture.nothing_is_left("forced");
}
