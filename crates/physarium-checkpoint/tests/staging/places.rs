//! Paths of outputs, and locks.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use physarium_checkpoint::{Checkpoint, Error, ErrorKind, Overwrite, Staging, StagingRequest};

use crate::{Work, says, tree};

/// Asserts that a run into `out` fails before anything is written.
#[track_caller]
fn refused(work: &Work, out: impl AsRef<Path>, needles: &[&str]) {
    let before = tree(work.root.path());
    let error = work.begin_at(out.as_ref(), &mut |_| Ok(())).expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::Output, "{error}");
    says(&error, needles);
    assert!(tree(work.root.path()) == before, "something was written");
}

#[test]
fn the_output_is_not_the_input() {
    let work = Work::new();
    symlink("model", work.at("link")).unwrap();
    for out in ["model", "model/", "model/.", "model/../model", "link", "link/", "./model"] {
        refused(&work, work.root.path().join(out), &["output is the input"]);
    }
}

#[test]
fn the_output_is_not_inside_the_input() {
    let work = Work::new();
    symlink("model", work.at("link")).unwrap();
    symlink("model/a", work.at("deep")).unwrap();
    for out in
        ["model/out", "model/out/", "link/out", "deep/out", "model/a/b/out", "model/a", "deep"]
    {
        refused(&work, work.at(out), &["output is inside the input"]);
    }
    refused(&work, work.at("model/a/../out"), &["output is inside the input"]);
}

#[test]
fn the_output_is_not_around_the_input() {
    let work = Work::new();
    symlink(".", work.at("here")).unwrap();
    let root = work.root.path();
    refused(&work, root, &["input is inside the output"]);
    refused(&work, root.join("."), &["input is inside the output"]);
    refused(&work, root.join("here"), &["input is inside the output"]);
    refused(&work, root.join("model/.."), &["not a name for an output"]);
    refused(&work, "/", &["not a name for an output"]);
}

#[test]
fn an_input_that_is_a_link_is_resolved() {
    let work = Work::new();
    symlink("model", work.at("link")).unwrap();
    let checkpoint = Checkpoint::open(&work.at("link")).unwrap();
    for (out, what) in [
        ("model", "output is the input"),
        ("link", "output is the input"),
        ("model/out", "output is inside the input"),
    ] {
        let request = StagingRequest {
            out: &work.at(out),
            checkpoint: &checkpoint,
            run: work.run_record(&checkpoint),
            inputs: work.inputs(),
            output_bytes: 0,
            solved_bytes: 0,
            overwrite: work.overwrite,
            resume: work.resume,
        };
        says(&Staging::begin(request, &mut |_| Ok(())).unwrap_err(), &[what]);
    }
}

#[test]
fn other_files_at_the_outputs_path_are_kept() {
    for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
        let work = Work { overwrite, ..Work::new() };
        fs::create_dir(work.at("full")).unwrap();
        fs::write(work.at("full/thesis.txt"), "years").unwrap();
        refused(&work, work.at("full"), &["not empty", "not a physarium output"]);
        refused(&work, work.at("full/"), &["not empty"]);
        fs::write(work.at("file"), "x").unwrap();
        refused(&work, work.at("file"), &["output exists", "a file"]);
        fs::create_dir(work.at("empty")).unwrap();
        symlink("empty", work.at("to_empty")).unwrap();
        symlink("nowhere", work.at("to_nothing")).unwrap();
        for link in ["to_empty", "to_nothing"] {
            refused(&work, work.at(link), &["output is a link", "a symbolic link"]);
        }
    }
}

#[test]
fn an_empty_directory_is_replaced() {
    let work = Work::new();
    fs::create_dir(work.out()).unwrap();
    work.finish();
    Checkpoint::open(&work.out()).unwrap();
}

#[test]
fn the_parent_must_be_a_directory_that_exists() {
    let work = Work::new();
    fs::write(work.at("file"), "x").unwrap();
    symlink("nowhere", work.at("dangling")).unwrap();
    for out in ["none/out", "none/../out", "dangling/out", "file/sub/out"] {
        refused(&work, work.at(out), &["output's parent directory does not exist"]);
    }
    refused(&work, work.at("file/out"), &["output's parent is not a directory"]);
}

#[test]
fn names_that_cannot_be_recorded() {
    let work = Work::new();
    refused(&work, work.at(&"n".repeat(201)), &["too long", "at most 200 bytes", "201 bytes"]);
    let name = OsStr::from_bytes(b"out\xff");
    refused(&work, work.root.path().join(name), &["not UTF-8"]);
    drop(work.begin_at(&work.at(&"n".repeat(200)), &mut |_| Ok(())).unwrap());
}

#[test]
fn free_space_is_checked_before_anything_is_written() {
    let work = Work::new();
    let before = tree(work.root.path());
    let checkpoint = Checkpoint::open(&work.model()).unwrap();
    let request = StagingRequest {
        out: &work.out(),
        checkpoint: &checkpoint,
        run: work.run_record(&checkpoint),
        inputs: work.inputs(),
        output_bytes: 1 << 60,
        solved_bytes: 0,
        overwrite: work.overwrite,
        resume: work.resume,
    };
    let error = Staging::begin(request, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    let needed = (1u64 << 60) + (1 << 60) / 20;
    says(&error, &["not enough free space", &format!("{needed} bytes"), "5 %"]);
    assert!(tree(work.root.path()) == before);
}

/// Solved weights need space beside the output; what an unfinished run has written needs none again.
#[test]
fn free_space_is_needed_for_solved_weights_and_not_for_what_is_there() {
    let work = Work::new();
    let checkpoint = Checkpoint::open(&work.model()).unwrap();
    let begin = |output_bytes: u64, solved_bytes: u64| {
        let request = StagingRequest {
            out: &work.out(),
            checkpoint: &checkpoint,
            run: work.run_record(&checkpoint),
            inputs: work.inputs(),
            output_bytes,
            solved_bytes,
            overwrite: work.overwrite,
            resume: work.resume,
        };
        Staging::begin(request, &mut |_| Ok(()))
    };
    let much = 1 << 40;
    let refused = |error: Error| assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    refused(begin(100, much).unwrap_err());
    assert!(!work.run(3).unwrap());
    refused(begin(100, much).unwrap_err());
    // A file of that size without any blocks.
    let solved = work.partial("physarium.solved");
    fs::create_dir(&solved).unwrap();
    fs::File::create(solved.join("layer-00000.safetensors")).unwrap().set_len(much).unwrap();
    drop(begin(100, much).unwrap());
    refused(begin(much, much).unwrap_err());
}

#[test]
fn two_runs_cannot_write_one_output() {
    let work = Work::new();
    let first = work.begin().unwrap();
    let error = work.begin().unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Output);
    says(&error, &["out.lock", &format!("locked by pid {} since", std::process::id())]);
    // The same output by another path, and a restart, which must not discard the first run.
    says(&work.begin_at(&work.at("model/../out/"), &mut |_| Ok(())).unwrap_err(), &["locked by"]);
    let restart = Work { resume: physarium_checkpoint::Resume::Restart, ..work };
    says(&restart.begin().unwrap_err(), &["locked by"]);
    assert!(restart.journal().is_file());
    drop(restart.begin_at(&restart.at("other"), &mut |_| Ok(())).unwrap());
    drop(first);
    assert!(!restart.at("out.lock").exists());
    restart.finish();
    assert!(!restart.at("out.lock").exists());
}

#[test]
fn the_lock_file_of_a_killed_run_is_replaced() {
    let work = Work::new();
    fs::write(work.at("out.lock"), "pid 1 since 12:01:00 UTC\n").unwrap();
    let held = work.begin().unwrap();
    let note = fs::read_to_string(work.at("out.lock")).unwrap();
    assert!(note.starts_with(&format!("pid {} since ", std::process::id())), "{note:?}");
    assert!(note.ends_with(" UTC\n"), "{note:?}");
    drop(held);
    assert!(!work.at("out.lock").exists());
}

/// For example `Cargo.lock` and an output named `Cargo`.
#[test]
fn anything_else_with_the_name_of_the_lock_is_kept() {
    let work = Work::new();
    let lock = work.at("out.lock");
    let needles = ["out.lock", "a file that physarium did not write", "choose another name"];
    let notes = ["", "pi", "pid ", "pid 1", "pid of my daemon\n", "[[package]]\n", "\u{ff}"];
    for text in notes {
        fs::write(&lock, text).unwrap();
        refused(&work, work.out(), &needles);
    }
    // A second name of an important file.
    fs::write(work.at("important"), "pid 1 since 12:01:00 UTC\n").unwrap();
    fs::remove_file(&lock).unwrap();
    fs::hard_link(work.at("important"), &lock).unwrap();
    refused(&work, work.out(), &needles);
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    refused(&work, work.out(), &needles);
    fs::remove_dir(&lock).unwrap();
    for target in ["important", "nowhere"] {
        symlink(target, &lock).unwrap();
        refused(&work, work.out(), &needles);
        fs::remove_file(&lock).unwrap();
    }
    let made = std::process::Command::new("mkfifo").arg(&lock).status().unwrap();
    assert!(made.success());
    says(&work.begin().unwrap_err(), &needles);
    fs::remove_file(&lock).unwrap();
}

/// A run does not remove a lock file that it no longer holds.
#[test]
fn a_lock_that_was_replaced_during_the_run_is_kept() {
    let work = Work::new();
    let held = work.begin().unwrap();
    fs::remove_file(work.at("out.lock")).unwrap();
    fs::write(work.at("out.lock"), "mine").unwrap();
    drop(held);
    assert_eq!(fs::read(work.at("out.lock")).unwrap(), b"mine");
}
