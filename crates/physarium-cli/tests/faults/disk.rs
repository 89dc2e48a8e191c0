//! Full and read-only disks, limits, and invalid output paths. Small file systems are mounted in a namespace of
//! the test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Fixture, Ran, prepare, program, prune};

/// Runs a shell script, with the program in `$PHYSARIUM`.
fn script(fixture: &Fixture, shell: &[&str], script: &str) -> Ran {
    script_at(fixture.path(), shell, script)
}

fn script_at(dir: &Path, shell: &[&str], script: &str) -> Ran {
    let mut command = Command::new(shell[0]);
    prepare(command.args(&shell[1..]).arg(script), dir);
    Ran::of(command.env("PHYSARIUM", program()))
}

/// The same with a private mount table; `None` if the system does not permit it.
fn in_namespace(fixture: &Fixture, text: &str) -> Option<Ran> {
    in_namespace_at(fixture.path(), text)
}

/// The same in any directory.
pub fn in_namespace_at(dir: &Path, text: &str) -> Option<Ran> {
    let probe = Command::new("unshare").args(["-Urm", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no unshare here, or user name spaces are not permitted");
        return None;
    }
    Some(script_at(dir, &["unshare", "-Urm", "sh", "-ec"], text))
}

/// A fixture with a mount point, and the size of its output in bytes.
fn with_mount_point() -> (Fixture, usize) {
    let fixture = Fixture::new(128);
    fs::create_dir(fixture.path().join("small")).unwrap();
    let bytes = fixture.expected.values().map(Vec::len).sum();
    (fixture, bytes)
}

/// The bytes needed and free that the message about space states.
fn needed_and_free(text: &str) -> (u64, u64) {
    let after = |word: &str| {
        let rest = text.split_once(word).unwrap_or_else(|| panic!("no {word:?} in {text}")).1;
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    (after("expected "), after("found "))
}

#[test]
fn a_disk_that_is_full_at_the_start() {
    let (fixture, bytes) = with_mount_point();
    // With no free space, and with too little.
    for filler in [bytes / 2, bytes / 3] {
        let text = format!(
            "mount -t tmpfs -o size={size} none small\n\
             head -c {filler} /dev/zero > small/filler 2> /dev/null || true\n\
             if $PHYSARIUM prune model --out small/out; then exit 9; else code=$?; fi\n\
             rm small/filler; ls -A small; exit $code",
            size = bytes / 2,
        );
        let Some(ran) = in_namespace(&fixture, &text) else { return };
        ran.fails(
            "full",
            &[
                "not enough free space",
                "small: ",
                "for the output and what is kept beside it meanwhile, + 5 %",
            ],
        );
        assert_eq!(ran.stdout, "", "something was written");
        let (needed, free) = needed_and_free(&ran.stderr);
        assert!(needed > bytes as u64 && free < bytes as u64, "{}", ran.stderr);
    }
}

/// Free space just below and just above the requirement: the run is refused or completes.
#[test]
fn a_disk_around_the_threshold() {
    let (fixture, bytes) = with_mount_point();
    let (mut refused, mut finished) = (0, 0);
    for percent in [95, 100, 105, 110, 120, 140] {
        let text = format!(
            "mount -t tmpfs -o size={size} none small\n\
             $PHYSARIUM prune model --out small/out && diff -r small/out expected >&2",
            size = bytes / 100 * percent,
        );
        let Some(ran) = in_namespace(&fixture, &text) else { return };
        if ran.code() == 0 {
            finished += 1;
        } else {
            ran.fails("threshold", &["not enough free space"]);
            assert_eq!(finished, 0, "a smaller disk was enough");
            refused += 1;
        }
    }
    assert!(refused > 0 && finished > 0);
}

/// An activation-aware method writes its targets twice, and removes solved layers as shards are written: the check knows both.
#[test]
fn a_disk_without_room_for_solved_layers() {
    let (fixture, _) = with_mount_point();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/model");
    let once: usize = super::files(demo.as_ref()).values().map(Vec::len).sum();
    let prune = format!(
        "$PHYSARIUM prune {demo} --out small/out --method wanda --sparsity 0.5 \
         --calibration-tokens 512 --window 256 --threads 1 -q"
    );
    // Room for the output, and not for the solved layers.
    let text = format!(
        "mount -t tmpfs -o size={} none small\n\
         if {prune}; then exit 9; else code=$?; fi; ls -A small; exit $code",
        once / 100 * 120,
    );
    let Some(ran) = in_namespace(&fixture, &text) else { return };
    ran.fails("solved layers", &["not enough free space"]);
    assert_eq!(ran.stdout, "", "something was written");
    // Room for the output and half of the solved layers, but not a second time: what a killed run left counts as there.
    let text = format!(
        "mount -t tmpfs -o size={} none small\n\
         solved=small/.out.physarium-partial/physarium.solved/layer-00003.safetensors\n\
         until [ -e $solved ]; do\n\
             rm -rf small/out\n\
             {prune} & run=$!\n\
             while [ ! -e $solved ] && [ ! -e small/out ]; do :; done\n\
             kill -KILL $run || true; wait $run || true\n\
         done\n\
         {prune} >&2; ls small",
        once / 100 * 170,
    );
    let Some(ran) = in_namespace(&fixture, &text) else { return };
    assert_eq!((ran.code(), &*ran.stdout), (0, "out\n"), "{}", ran.stderr);
}

/// Another process fills the disk during the run: finished shards are kept, and the same command resumes once
/// there is space.
#[test]
fn a_disk_that_fills_up_during_the_run() {
    let (fixture, bytes) = with_mount_point();
    let (mut full, mut kept) = (0, 0);
    for free in [0, 20, 45, 70, 95, 99] {
        // The run is stopped while the disk is filled.
        let text = format!(
            "mount -t tmpfs -o size={room} none small\n\
             $PHYSARIUM prune model --out small/out --threads 1 2> said & run=$!\n\
             while [ ! -e small/.out.physarium-partial/{journal} ]; do :; done\n\
             kill -STOP $run\n\
             head -c {filler} /dev/zero > small/filler 2> /dev/null || true\n\
             kill -CONT $run\n\
             if wait $run; then code=0; else code=$?; fi\n\
             if [ $code = 2 ]; then\n\
                 cat said; [ ! -e small/out ]; [ -e small/.out.physarium-partial/{journal} ]\n\
                 rm small/filler\n\
                 $PHYSARIUM prune model --out small/out\n\
             fi\n\
             diff -r small/out expected >&2\n\
             rm -f said; ls -A small >&2",
            room = 2 * bytes,
            filler = 2 * bytes - bytes * free / 100,
            journal = super::JOURNAL,
        );
        let Some(ran) = in_namespace(&fixture, &text) else { return };
        let said = format!("{free} %: {}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code(), 0, "{said}");
        if ran.stdout.contains("error: ") {
            full += 1;
            let space = ["not enough free space", "No space left on device"];
            assert!(space.iter().any(|s| ran.stdout.contains(s)), "{said}");
            if ran.stdout.contains("not enough free space") {
                let (needed, free) = needed_and_free(&ran.stdout);
                assert!(needed > 0 && free < bytes as u64, "{said}");
            }
        }
        kept += u32::from(ran.stderr.contains("kept, verified by digest"));
        assert!(!ran.stderr.contains("physarium-partial"), "{said}");
    }
    eprintln!("{full} of 6 runs met the full disk, {kept} had finished shards");
    assert!(full > 0, "the disk was never full in time");
}

#[test]
fn a_file_size_limit_during_the_run() {
    let fixture = Fixture::new(128);
    let largest = fixture.expected.values().map(Vec::len).max().unwrap();
    let limit = largest / 1024 / 2;
    let text =
        format!("trap '' XFSZ; ulimit -f {limit}; $PHYSARIUM prune model --out out --threads 1");
    let Ok(bash) = Command::new("bash").arg("--version").stdout(Stdio::null()).status() else {
        eprintln!("skipped: no bash here");
        return;
    };
    assert!(bash.success());
    let ran = script(&fixture, &["bash", "-c"], &text);
    ran.fails("limited", &["cannot write", ".part", "File too large"]);
    assert!(!fixture.check("limited"));
    assert!(fixture.staging().join(super::JOURNAL).exists(), "staging is gone");
    fixture.finish("unlimited");
}

#[test]
fn a_read_only_parent() {
    let fixture = Fixture::new(32);
    fs::create_dir(fixture.path().join("sealed")).unwrap();
    let text = "mount --bind sealed sealed && mount -o remount,ro,bind sealed\n\
                $PHYSARIUM prune model --out sealed/out";
    let Some(ran) = in_namespace(&fixture, text) else { return };
    ran.fails("read-only", &["sealed/out.lock", "Read-only file system"]);
}

#[test]
fn invalid_output_paths_are_refused() {
    let fixture = Fixture::new(32);
    let at = |name: &str| fixture.path().join(name);
    fs::write(at("file"), "mine").unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/file"), "mine").unwrap();
    symlink("full", at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("model", at("to-model")).unwrap();
    let long = "n".repeat(201);
    let before = super::files(fixture.path());
    let cases: [(&str, &[&str]); 13] = [
        ("missing/out", &["missing/out", "parent"]),
        ("file/out", &["file/out", "parent"]),
        (&long, &["output name is too long", "at most 200 bytes", "201 bytes"]),
        ("file", &["output exists", "a file"]),
        ("full", &["output exists and is not empty"]),
        ("link", &["output is a link"]),
        ("dangling", &["output is a link"]),
        ("..", &["not a name"]),
        ("model", &["output is the input"]),
        ("model/", &["output is the input"]),
        ("to-model", &["output is the input"]),
        ("model/out", &["output is inside the input"]),
        ("to-model/out", &["output is inside the input"]),
    ];
    for (out, needles) in cases {
        for option in [None, Some("--force"), Some("--restart")] {
            let ran = Ran::of(prune(fixture.path(), out).args(option));
            ran.fails(&format!("{out} {option:?}"), needles);
        }
    }
    assert!(super::files(fixture.path()) == before, "something was written");
    // The longest accepted name also works for lock and staging directory.
    let longest = "n".repeat(200);
    let ran = Ran::of(&mut prune(fixture.path(), &longest));
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(super::files(&at(&longest)) == fixture.expected);
}

/// stdout or stderr is full or closed: the output is complete all the same.
#[test]
fn full_or_closed_stdout_and_stderr() {
    let fixture = Fixture::new(128);
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    // A resumed run reports on stderr from the start.
    fixture.killed_after(1);
    let mut silent = prune(fixture.path(), "out");
    let ran = Ran::of(silent.arg("--progress=json").stderr(full()));
    assert_eq!(ran.code(), 0, "stderr is full");
    assert!(fixture.check("stderr is full"));
    // The result cannot be printed: that is an error, but the output is complete.
    fixture.clean();
    let ran = Ran::of(prune(fixture.path(), "out").stdout(full()));
    ran.fails("stdout is full", &["No space left on device"]);
    fixture.refuses_to_repeat("stdout is full");
    // The reader has closed the pipe: SIGPIPE is ignored, and writing returns EPIPE.
    for (context, pipe) in [("stdout", "| true"), ("stderr", "2>&1 >/dev/null | true")] {
        fixture.clean();
        let text = format!(
            "($PHYSARIUM prune model --out out --progress=json; echo $? > code) {pipe}; wait"
        );
        script(&fixture, &["sh", "-c"], &text);
        let code = fixture.path().join("code");
        let ended = fs::read_to_string(&code).unwrap();
        fs::remove_file(code).unwrap();
        assert_eq!(ended, "0\n", "{context} is closed");
        assert!(fixture.check(context), "{context} is closed: no output");
    }
}
