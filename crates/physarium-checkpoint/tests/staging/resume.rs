//! Runs that stop at any point, and the runs that resume them.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use physarium_checkpoint::{Error, ErrorKind};

use crate::{SHARDS, Tree, Work, flip, says, tree};

/// Steps after which both shards are in the journal, and no other file is written.
const BOTH_SHARDS: usize = 11;
/// The same for the first shard.
const ONE_SHARD: usize = 6;

/// The output of a run that was not interrupted.
fn uninterrupted() -> Tree {
    let work = Work::new();
    work.finish();
    tree(&work.out())
}

#[test]
fn a_run_stopped_after_each_step_gives_the_same_bytes() {
    let expected = uninterrupted();
    for steps in 0.. {
        let work = Work::new();
        if work.run(steps).unwrap() {
            assert_eq!(steps, BOTH_SHARDS + 3 + 1);
            break;
        }
        assert!(!work.out().exists(), "after {steps} steps");
        assert!(!work.at("out.lock").exists(), "after {steps} steps");
        let resumed = work.begin().unwrap();
        let done = resumed.finished().len();
        let shards = usize::from(steps >= ONE_SHARD) + usize::from(steps >= BOTH_SHARDS);
        assert_eq!(done, shards, "after {steps} steps");
        assert!(work.run_from(resumed, usize::MAX).unwrap());
        assert!(tree(&work.out()) == expected, "other bytes after {steps} steps");
    }
}

#[test]
fn a_run_stopped_again_and_again_gives_the_same_bytes() {
    let work = Work::new();
    let mut runs = 0;
    // Six steps complete a shard each time, and then the rest.
    while !work.run(ONE_SHARD).unwrap() {
        runs += 1;
        assert!(runs < 5);
    }
    assert!(runs > 0 && tree(&work.out()) == uninterrupted());
}

/// A run that stopped when both shards were in the journal.
fn stopped() -> Work {
    let work = Work::new();
    assert!(!work.run(BOTH_SHARDS).unwrap());
    work
}

#[test]
fn finished_shards_are_verified_by_hashing_them_again() {
    let work = stopped();
    let mut hashed = 0;
    let resumed = work
        .begin_at(&work.out(), &mut |bytes| {
            hashed += bytes;
            Ok(())
        })
        .unwrap();
    let names: Vec<&str> = resumed.finished().iter().map(|done| done.shard.name.as_str()).collect();
    assert_eq!(names, SHARDS);
    assert_eq!(resumed.finished()[0].tensors.len(), 2);
    let sizes = SHARDS.map(|name| fs::metadata(work.partial(name)).unwrap().len());
    assert_eq!(hashed, sizes[0] + sizes[1]);
}

#[test]
fn the_verification_can_be_interrupted_and_nothing_is_lost() {
    let work = stopped();
    let before = tree(&work.partial(""));
    let error = work.begin_at(&work.out(), &mut |_| Err(Error::Interrupted)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(tree(&work.partial("")) == before);
    assert_eq!(work.begin().unwrap().finished().len(), 2);
}

#[test]
fn staged_shards_that_differ_from_the_journal_are_written_again() {
    let expected = uninterrupted();
    let damage: [fn(&Path); 4] = [
        |path| flip(path, 100, 3),
        |path| File::options().write(true).open(path).unwrap().set_len(50).unwrap(),
        |path| fs::remove_file(path).unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
    ];
    for (at, name) in SHARDS.iter().enumerate() {
        for damage in damage {
            let work = stopped();
            damage(&work.partial(name));
            let resumed = work.begin().unwrap();
            // The journal is resumed after the last verified shard; later ones are written again.
            assert_eq!(resumed.finished().len(), at);
            assert!(!work.partial(name).exists());
            assert!(work.run_from(resumed, usize::MAX).unwrap());
            assert!(tree(&work.out()) == expected);
        }
    }
}

#[test]
fn files_that_are_not_in_the_journal_are_removed() {
    let work = stopped();
    fs::write(work.partial("config.json"), "torn").unwrap();
    fs::write(work.partial("model-00003.safetensors.part"), "torn").unwrap();
    fs::create_dir_all(work.partial("a/b")).unwrap();
    drop(work.begin().unwrap());
    let mut left: Vec<String> = tree(&work.partial("")).into_keys().collect();
    left.retain(|name| !name.ends_with(".json") && !name.ends_with(".jsonl"));
    assert_eq!(left, SHARDS);
    work.finish();
    assert!(tree(&work.out()) == uninterrupted());
}

/// Asserts that resuming fails with an error that contains all of `needles`, and changes nothing.
#[track_caller]
fn refused(work: &Work, kind: ErrorKind, needles: &[&str]) {
    let before = tree(work.root.path());
    let error = work.begin().expect_err("must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    says(&error, needles);
    says(&error, &["--restart"]);
    assert!(tree(work.root.path()) == before, "something was written");
}

#[test]
fn another_recipe_is_refused() {
    let mut work = stopped();
    work.sparsity = "0.6";
    let needles = ["belongs to another run", "recipe.method.sparsity was 0.5, this run has 0.6"];
    refused(&work, ErrorKind::Output, &needles);
    work.sparsity = "0.5";
    work.finish();
}

#[test]
fn another_input_is_refused() {
    let shard = |work: &Work, at: usize| work.model().join(SHARDS[at]);

    // A later modification time, of a finished shard and of another.
    for (steps, at) in [(BOTH_SHARDS, 0), (ONE_SHARD, 1)] {
        let work = Work::new();
        work.run(steps).unwrap();
        let file = File::options().write(true).open(shard(&work, at)).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
        let field = format!("shards.{}.modified_ns was", SHARDS[at]);
        refused(&work, ErrorKind::Output, &["belongs to another run", &field]);
    }

    // Another file of the same name, bytes and modification time.
    let work = stopped();
    let path = shard(&work, 1);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::copy(&path, work.at("copy")).unwrap();
    File::options().write(true).open(work.at("copy")).unwrap().set_modified(modified).unwrap();
    fs::rename(work.at("copy"), &path).unwrap();
    refused(&work, ErrorKind::Output, &[SHARDS[1], "inode was"]);

    // Another header.
    let work = stopped();
    let path = shard(&work, 0);
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(2).position(|pair| pair == b"pt").unwrap();
    flip(&path, at, 0);
    refused(&work, ErrorKind::Output, &[SHARDS[0], "header_sha256 was"]);
}

#[test]
fn other_bytes_of_the_same_size_and_time_are_detected_by_their_digest() {
    let work = stopped();
    let path = work.model().join(SHARDS[0]);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let last = fs::metadata(&path).unwrap().len() as usize - 1;
    flip(&path, last, 0);
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let needles = [SHARDS[0], "input changed", "SHA-256 was"];
    refused(&work, ErrorKind::InputChanged, &needles);
}

#[test]
fn a_journal_truncated_anywhere_is_resumed() {
    let work = stopped();
    let whole = fs::read(work.journal()).unwrap();
    let staged = tree(&work.partial(""));
    let shard_ends: Vec<usize> = whole
        .split_inclusive(|byte| *byte == b'\n')
        .scan(0, |end, line| {
            *end += line.len();
            Some((*end, line.starts_with(b"{\"record\":\"shard\"")))
        })
        .filter_map(|(end, is_shard)| is_shard.then_some(end))
        .collect();
    assert_eq!(shard_ends.len(), 2);
    for length in 0..whole.len() {
        for (name, bytes) in &staged {
            fs::write(work.partial(name), bytes).unwrap();
        }
        fs::write(work.journal(), &whole[..length]).unwrap();
        let resumed = work.begin().unwrap_or_else(|e| panic!("at {length}: {e}"));
        let expected = shard_ends.iter().filter(|end| **end <= length).count();
        assert_eq!(resumed.finished().len(), expected, "at {length}");
    }
    work.finish();
    assert!(tree(&work.out()) == uninterrupted());
}

#[test]
fn a_changed_journal_is_refused_unless_only_its_last_line_changed() {
    let work = stopped();
    let whole = fs::read(work.journal()).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    // Without the newline before it, the last line is part of the line before, which then is the last.
    for at in 0..last_line - 1 {
        flip(&work.journal(), at, (at % 8) as u32);
        let error = work.begin().expect_err("must be refused");
        assert_eq!(error.kind(), ErrorKind::Output, "at {at}: {error}");
        says(&error, &["journal line", "hint: use --restart"]);
        fs::write(work.journal(), &whole).unwrap();
    }
    let staged = tree(&work.partial(""));
    for at in (last_line - 1..whole.len()).step_by(7).chain([whole.len() - 1]) {
        for (name, bytes) in &staged {
            fs::write(work.partial(name), bytes).unwrap();
        }
        flip(&work.journal(), at, (at % 8) as u32);
        assert_eq!(work.begin().unwrap().finished().len(), 1, "at {at}");
    }
    work.finish();
    assert!(tree(&work.out()) == uninterrupted());
}
