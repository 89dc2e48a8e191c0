//! Runs that stop anywhere, and what the next one makes of what they left.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use physarium_checkpoint::{Error, ErrorKind};

use crate::{SHARDS, Tree, Work, flip, says, tree};

/// Steps after which both shards are journalled and nothing else is there.
const BOTH_SHARDS: usize = 11;
/// The same for the first shard.
const ONE_SHARD: usize = 6;

fn undisturbed() -> Tree {
    let work = Work::new();
    work.finish();
    tree(&work.out())
}

#[test]
fn a_run_stopped_after_each_step_gives_the_same_bytes() {
    let expected = undisturbed();
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
        assert!(work.go_on(resumed, usize::MAX).unwrap());
        assert!(tree(&work.out()) == expected, "other bytes after {steps} steps");
    }
}

#[test]
fn a_run_stopped_again_and_again_gives_the_same_bytes() {
    let work = Work::new();
    let mut runs = 0;
    // Six steps get one shard further each time; then there is more to copy than six.
    while !work.run(ONE_SHARD).unwrap() {
        runs += 1;
        assert!(runs < 5);
    }
    assert!(runs > 0 && tree(&work.out()) == undisturbed());
}

/// A run that stopped with both shards journalled.
fn stopped() -> Work {
    let work = Work::new();
    assert!(!work.run(BOTH_SHARDS).unwrap());
    work
}

#[test]
fn finished_shards_are_proven_by_hashing_them_again() {
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
fn the_proof_can_be_interrupted_and_nothing_is_lost() {
    let work = stopped();
    let before = tree(&work.partial(""));
    let error = work.begin_at(&work.out(), &mut |_| Err(Error::Interrupted)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(tree(&work.partial("")) == before);
    assert_eq!(work.begin().unwrap().finished().len(), 2);
}

#[test]
fn staged_shards_that_are_not_as_journalled_are_made_again() {
    let expected = undisturbed();
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
            // The journal goes on after the last shard that is proven: later ones are made again.
            assert_eq!(resumed.finished().len(), at);
            assert!(!work.partial(name).exists());
            assert!(work.go_on(resumed, usize::MAX).unwrap());
            assert!(tree(&work.out()) == expected);
        }
    }
}

#[test]
fn files_that_nobody_journalled_are_cleared_away() {
    let work = stopped();
    fs::write(work.partial("config.json"), "torn").unwrap();
    fs::write(work.partial("model-00003.safetensors.part"), "torn").unwrap();
    fs::create_dir_all(work.partial("a/b")).unwrap();
    drop(work.begin().unwrap());
    let mut left: Vec<String> = tree(&work.partial("")).into_keys().collect();
    left.retain(|name| !name.ends_with(".json") && !name.ends_with(".jsonl"));
    assert_eq!(left, SHARDS);
    work.finish();
    assert!(tree(&work.out()) == undisturbed());
}

/// Asserts that going on is refused, naming all of `needles`, and changes nothing.
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

    // A later time of modification, of a shard that is done and of one that is not.
    for (steps, at) in [(BOTH_SHARDS, 0), (ONE_SHARD, 1)] {
        let work = Work::new();
        work.run(steps).unwrap();
        let file = File::options().write(true).open(shard(&work, at)).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
        let field = format!("shards.{}.modified_ns was", SHARDS[at]);
        refused(&work, ErrorKind::Output, &["belongs to another run", &field]);
    }

    // Another file under the name, with the same bytes and times.
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
fn other_bytes_of_the_same_size_and_time_are_found_by_their_digest() {
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
fn a_journal_cut_anywhere_is_gone_on_with() {
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
    assert!(tree(&work.out()) == undisturbed());
}

#[test]
fn a_changed_journal_is_refused_but_for_its_last_line() {
    let work = stopped();
    let whole = fs::read(work.journal()).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    // Without the newline before it, the last line is part of a longer one that is not whole.
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
    assert!(tree(&work.out()) == undisturbed());
}
