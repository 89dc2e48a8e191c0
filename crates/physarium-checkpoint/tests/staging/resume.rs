//! Runs that stop at any point, and the runs that resume them.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use physarium_checkpoint::{Error, ErrorKind, Sha256};

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
            assert_eq!(steps, BOTH_SHARDS + 4 + 1);
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
    work.tool = "physarium next";
    let needles = ["belongs to another run", "tool was \"physarium test\"", "physarium next"];
    refused(&work, ErrorKind::Output, &needles);
    work.tool = "physarium test";
    work.finish();
}

/// Replaces a file by other bytes of the same length, with the same modification time.
fn change(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let last = fs::metadata(path).unwrap().len() as usize - 1;
    flip(path, last, 0);
    File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn an_identical_copy_of_the_input_is_the_same_input() {
    let expected = uninterrupted();
    for work in [Work::new(), Work::calibrated()] {
        assert!(!work.run(ONE_SHARD).unwrap());
        for name in tree(&work.model()).keys().filter(|name| !name.ends_with('/')) {
            let path = work.model().join(name);
            fs::copy(&path, work.at("copy")).unwrap();
            fs::rename(work.at("copy"), &path).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
        }
        let resumed = work.begin().unwrap();
        assert_eq!(resumed.finished().len(), 1);
        assert!(work.run_from(resumed, usize::MAX).unwrap());
        assert!(tree(&work.out()) == expected);
    }
}

#[test]
fn another_header_is_refused() {
    let work = stopped();
    let path = work.model().join(SHARDS[0]);
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(2).position(|pair| pair == b"pt").unwrap();
    flip(&path, at, 0);
    refused(&work, ErrorKind::Output, &[SHARDS[0], "header_sha256 was"]);
}

/// Every input on which finished parts depend, changed one at a time: of the same size and modification time.
#[test]
fn every_changed_input_is_refused_by_its_name() {
    let files = ["config.json", "model.safetensors.index.json", "tokenizer.json"];
    for (name, steps) in files.map(|name| (name, ONE_SHARD)) {
        let work = Work::new();
        work.run(steps).unwrap();
        let before = fs::read(work.model().join(name)).unwrap();
        let other = [&before[..], b" "].concat();
        fs::write(work.model().join(name), &other).unwrap();
        refused(&work, ErrorKind::Output, &[&format!("the SHA-256 of {name} was"), "this run has"]);
        if name == "tokenizer.json" {
            fs::remove_file(work.model().join(name)).unwrap();
            refused(&work, ErrorKind::Output, &["the SHA-256 of tokenizer.json", "none"]);
        }
        fs::write(work.model().join(name), &before).unwrap();
        fs::write(work.model().join("added_tokens.json"), "{}").unwrap();
        refused(&work, ErrorKind::Output, &["the SHA-256 of added_tokens.json was none"]);
        fs::remove_file(work.model().join("added_tokens.json")).unwrap();
        work.finish();
    }
    // A shard of which nothing was written yet.
    let work = Work::calibrated();
    work.run(ONE_SHARD).unwrap();
    change(&work.model().join(SHARDS[1]));
    refused(&work, ErrorKind::Output, &[&format!("the SHA-256 of {} was", SHARDS[1])]);
    change(&work.model().join(SHARDS[1]));
    work.finish();
    // Where each shard depends on its own only, nothing has been made from that one.
    let work = Work::new();
    work.run(ONE_SHARD).unwrap();
    change(&work.model().join(SHARDS[1]));
    work.finish();

    let mut work = Work::calibrated();
    work.run(ONE_SHARD).unwrap();
    work.calibration_tokens = Some(Sha256::of(b"other tokens"));
    refused(&work, ErrorKind::Output, &["the SHA-256 of the calibration tokens was"]);
}

#[test]
fn an_input_that_changes_after_it_was_hashed_is_not_published() {
    let work = Work::calibrated();
    let staging = work.begin().unwrap();
    change(&work.model().join(SHARDS[1]));
    let error = work.run_from(staging, usize::MAX).expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
    says(&error, &[SHARDS[1], "SHA-256"]);

    let work = Work::new();
    let staging = work.begin().unwrap();
    fs::write(work.model().join("config.json"), "{\"model_type\": \"qwen2\"}").unwrap();
    let error = work.run_from(staging, usize::MAX).expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
    says(&error, &["config.json", "SHA-256"]);
    assert!(!work.out().exists());
}

/// A run that is killed after the marker is removed, before the output has its name.
#[test]
fn a_changed_input_is_refused_in_the_last_steps_too() {
    let work = Work::calibrated();
    work.finish();
    let config = fs::read(work.model().join("config.json")).unwrap();
    fs::rename(work.out(), work.partial("")).unwrap();
    fs::write(work.model().join("config.json"), "{\"model_type\": \"qwen2\"}").unwrap();
    refused(&work, ErrorKind::Output, &["the SHA-256 of config.json was"]);
    fs::write(work.model().join("config.json"), config).unwrap();
    change(&work.model().join(SHARDS[1]));
    refused(&work, ErrorKind::Output, &[&format!("the SHA-256 of {} was", SHARDS[1])]);
    change(&work.model().join(SHARDS[1]));
    work.finish();
}

#[test]
fn the_key_of_kept_work_depends_on_everything() {
    let key = |work: &Work| work.begin().unwrap().key();
    let base = Work::calibrated();
    let first = key(&base);
    assert_eq!(first, key(&base));
    assert_eq!(first, key(&Work::calibrated()), "of another directory");
    let changes: [fn(&mut Work); 7] = [
        |work| work.tool = "physarium next",
        |work| work.sparsity = "0.6",
        |work| work.calibration_tokens = Some(Sha256::of(b"other tokens")),
        |work| change(&work.model().join(SHARDS[0])),
        |work| fs::write(work.model().join("tokenizer.json"), "[]").unwrap(),
        |work| fs::write(work.model().join("added_tokens.json"), "{}").unwrap(),
        |work| fs::write(work.model().join("config.json"), "{}").unwrap(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut work = Work::calibrated();
        change(&mut work);
        assert_ne!(first, key(&work), "change {index}");
    }
}

#[test]
fn other_bytes_of_the_same_size_and_time_are_detected_by_their_digest() {
    let work = stopped();
    change(&work.model().join(SHARDS[0]));
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
