//! The last steps: what exists at the output's path, and when.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use physarium_checkpoint::journal::{self, Checks, Journal};
use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{Checkpoint, Error, Overwrite, Resume, Sha256};

use crate::{MARKER, SHARDS, Work, says, tree};

#[test]
fn a_published_output_is_complete_and_nothing_else_remains() {
    let work = Work::new();
    let input = tree(&work.model());
    work.finish();
    assert!(tree(&work.model()) == input, "the input changed");
    let names: Vec<String> = tree(work.root.path())
        .into_keys()
        .filter(|name| !name.starts_with("model/") && !name.starts_with("out/"))
        .collect();
    assert!(names.is_empty(), "left next to the output: {names:?}");

    let mut output = tree(&work.out());
    let manifest = Manifest::read(&work.out().join(manifest::FILE_NAME)).unwrap();
    output.remove(manifest::FILE_NAME).unwrap();
    for shard in &manifest.shards {
        assert_eq!(Sha256::of(&input[&shard.name]), shard.input_sha256);
        let bytes = output.remove(&shard.name).unwrap();
        assert_eq!(
            (Sha256::of(&bytes), bytes.len() as u64),
            (shard.output_sha256, shard.size_bytes)
        );
    }
    for file in &manifest.files {
        let bytes = output.remove(&file.path).unwrap();
        assert_eq!((Sha256::of(&bytes), bytes.len() as u64), (file.sha256, file.size_bytes));
        assert!(file.path == journal::FILE_NAME || input[&file.path] == bytes, "{}", file.path);
    }
    let left: Vec<&String> = output.keys().collect();
    assert_eq!(left, ["a/", "a/b/"]);
    assert_eq!(manifest.left_out[0].path, "old.bin");
    assert_eq!(Checkpoint::open(&work.out()).unwrap().tensors().count(), 3);
}

#[test]
fn files_have_the_mode_of_any_new_file() {
    let work = Work::new();
    fs::write(work.at("any"), "").unwrap();
    work.finish();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    for name in [SHARDS[0], "config.json", journal::FILE_NAME, manifest::FILE_NAME] {
        assert_eq!(mode(work.out().join(name)), mode(work.at("any")), "{name}");
    }
}

#[test]
fn a_finished_output_is_replaced_only_with_force_and_by_a_complete_one() {
    let mut work = Work::new();
    work.finish();
    let first = tree(&work.out());
    let error = work.begin().unwrap_err();
    says(&error, &["output exists", "--force", "a finished physarium output"]);

    work.sparsity = "0.6";
    work.overwrite = Overwrite::Replace;
    let mut steps = 0;
    while !work.run(steps).unwrap() {
        assert!(tree(&work.out()) == first, "after {steps} steps");
        steps += 1;
    }
    assert!(steps > 4);
    let second = tree(&work.out());
    assert!(second[manifest::FILE_NAME] != first[manifest::FILE_NAME]);
    assert!(second[SHARDS[0]] == first[SHARDS[0]]);
    assert!(!work.at(".out.physarium-replaced").exists());
}

#[test]
fn a_run_killed_between_the_two_renames_is_finished_by_the_next() {
    let work = Work { overwrite: Overwrite::Replace, ..Work::new() };
    work.finish();
    let first = tree(&work.out());
    assert!(!work.run(8).unwrap());
    fs::rename(work.out(), work.at(".out.physarium-replaced")).unwrap();
    work.finish();
    assert!(tree(&work.out()) == first);
    assert!(!work.at(".out.physarium-replaced").exists());
}

#[test]
fn a_directory_that_appears_during_the_run_is_kept() {
    let work = Work::new();
    let begun = work.begin().unwrap();
    fs::create_dir(work.out()).unwrap();
    fs::write(work.out().join("file"), "x").unwrap();
    let error = work.run_from(begun, usize::MAX).unwrap_err();
    says(&error, &["output exists and is not empty"]);
    assert_eq!(tree(&work.out()).len(), 1);

    // Only the last rename was missing. The run resumes there, even if it is killed again.
    fs::remove_dir_all(work.out()).unwrap();
    assert!(work.partial(manifest::FILE_NAME).is_file() && !work.partial(MARKER).exists());
    for _ in 0..2 {
        let again = work.begin().unwrap();
        assert_eq!(again.finished().len(), 2);
        assert!(work.partial(MARKER).is_file() && !work.partial(manifest::FILE_NAME).exists());
    }
    work.finish();
    let fresh = Work::new();
    fresh.finish();
    assert!(tree(&work.out()) == tree(&fresh.out()));
}

#[test]
fn a_finished_output_that_appears_during_the_run_is_kept() {
    let work = Work::new();
    work.finish();
    fs::rename(work.out(), work.at("kept")).unwrap();
    let begun = work.begin().unwrap();
    fs::rename(work.at("kept"), work.out()).unwrap();
    let before = tree(&work.out());
    let error = work.run_from(begun, usize::MAX).unwrap_err();
    says(&error, &["output appeared during the run"]);
    assert!(tree(&work.out()) == before);
}

#[test]
fn restart_removes_the_unfinished_run_and_discard_the_current_one() {
    let mut work = Work::new();
    assert!(!work.run(8).unwrap());
    work.sparsity = "0.6";
    work.resume = Resume::Restart;
    let restarted = work.begin().unwrap();
    assert!(restarted.finished().is_empty());
    let journal = Journal::read(&work.journal(), Checks::Required).unwrap();
    assert_eq!((journal.run.recipe, journal.shards.len()), (work.recipe(), 0));
    assert!(!work.partial(SHARDS[0]).exists());
    restarted.discard().unwrap();
    let names: Vec<String> =
        tree(work.root.path()).into_keys().filter(|name| !name.starts_with("model/")).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn an_unfinished_output_is_no_checkpoint() {
    let work = Work::new();
    let mut steps = 0;
    while !work.run(steps).unwrap() {
        let error = Checkpoint::open(&work.partial("")).unwrap_err();
        assert!(matches!(error, Error::Unfinished { .. }), "after {steps} steps: {error}");
        says(&error, &["physarium-partial", "unfinished output", "run the same prune command"]);
        steps += 1;
    }
}
