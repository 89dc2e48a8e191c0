//! Disks that are full or read-only: small file systems in a name space of the test's own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::{Fixture, program};

/// Runs a shell script with a private mount table; `None` where that is not permitted.
fn in_namespace(dir: &Path, script: &str) -> Option<Output> {
    let probe = Command::new("unshare").args(["-Urm", "true"]).output().ok()?;
    if !probe.status.success() {
        eprintln!("skipped: user name spaces are not permitted here");
        return None;
    }
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-ec", script])
        .env("PHYSARIUM", program())
        .current_dir(dir)
        .output()
        .unwrap();
    Some(output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_full_disk() {
    let fixture = Fixture::new(128);
    fs::create_dir(fixture.path().join("small")).unwrap();
    let bytes: usize = fixture.expected.values().map(Vec::len).sum();
    // Too small from the beginning: refused before anything is written.
    let script = format!(
        "mount -t tmpfs -o size={} none small\n\
         if $PHYSARIUM prune model --out small/out; then exit 9; else code=$?; fi\n\
         ls -A small; exit $code",
        bytes / 2
    );
    let Some(output) = in_namespace(fixture.path(), &script) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("not enough free space") && text.contains("5 %"), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{text}");
    // Filled up by somebody else while it runs: kept, and finished once there is room.
    for free in [20, 35, 50, 65, 80, 95] {
        let script = format!(
            "mount -t tmpfs -o size={room} none small\n\
             (while [ ! -e small/.out.physarium-partial/physarium.journal.jsonl ]; do :; done\n\
              head -c {filler} /dev/zero > small/filler 2> /dev/null || true) &\n\
             if $PHYSARIUM prune model --out small/out; then wait; exit 0; else code=$?; fi\n\
             wait\n\
             [ $code = 2 ] && [ ! -e small/out ] || exit 9\n\
             rm small/filler\n\
             $PHYSARIUM prune model --out small/out\n\
             diff -r small/out expected",
            room = 2 * bytes,
            filler = 2 * bytes - bytes * free / 100,
        );
        let output = in_namespace(fixture.path(), &script).expect("permitted above");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(0), "{free} %: {text}");
    }
}

#[test]
fn a_file_size_limit_in_mid_run() {
    let fixture = Fixture::new(128);
    let largest = fixture.expected.values().map(Vec::len).max().unwrap();
    let script =
        format!("trap '' XFSZ; ulimit -f {}; $PHYSARIUM prune model --out out", largest / 1024 / 2);
    let run = |script: &str| {
        Command::new("bash")
            .args(["-c", script])
            .env("PHYSARIUM", program())
            .current_dir(fixture.path())
            .output()
            .unwrap()
    };
    let output = run(&script);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("cannot write") && !fixture.check("limited"), "{text}");
    fixture.finish("unlimited");
}

#[test]
fn a_read_only_parent() {
    let fixture = Fixture::new(64);
    fs::create_dir(fixture.path().join("sealed")).unwrap();
    let script = "mount --bind sealed sealed && mount -o remount,ro,bind sealed\n\
                  $PHYSARIUM prune model --out sealed/out";
    let Some(output) = in_namespace(fixture.path(), script) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
}
