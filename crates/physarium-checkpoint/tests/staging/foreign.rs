//! What a run did not make, or has not finished, is neither removed nor written through.

use std::fs;
use std::os::unix::fs::symlink;

use physarium_checkpoint::{ErrorKind, Overwrite, Resume, journal, manifest};

use crate::{MARKER, SHARDS, Work, says, tree};

const SOLVED: &str = "physarium.solved";

/// Asserts that a run is refused with these words and changes nothing.
#[track_caller]
fn refused(work: &Work, needles: &[&str]) {
    let before = tree(work.root.path());
    let error = work.begin().expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::Output, "{error}");
    says(&error, needles);
    assert!(tree(work.root.path()) == before, "something was written or removed");
}

#[test]
fn an_empty_truncated_or_foreign_manifest_is_not_a_finished_output() {
    let done = Work { overwrite: Overwrite::Replace, ..Work::new() };
    done.finish();
    let path = done.out().join(manifest::FILE_NAME);
    let whole = fs::read(&path).unwrap();
    let half = whole[..whole.len() / 2].to_vec();
    for text in [Vec::new(), half, b"{}\n".to_vec(), b"{\"schema\": \"other\"}".to_vec()] {
        fs::write(&path, text).unwrap();
        refused(&done, &["not empty", "not a physarium output"]);
    }
    // The same name, but no file.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(&done, &["not empty", "not a physarium output"]);
    fs::remove_dir(&path).unwrap();
    fs::write(done.at("whole"), whole).unwrap();
    symlink("../whole", &path).unwrap();
    refused(&done, &["not empty", "not a physarium output"]);
    // A directory of the user's with nothing but an empty file of that name.
    let work = Work { overwrite: Overwrite::Replace, ..Work::new() };
    fs::create_dir(work.out()).unwrap();
    fs::write(work.out().join(manifest::FILE_NAME), "").unwrap();
    fs::write(work.out().join("thesis.txt"), "years").unwrap();
    refused(&work, &["not empty", "not a physarium output"]);
}

#[test]
fn force_keeps_an_output_that_someone_has_added_to_or_changed() {
    let work = Work { overwrite: Overwrite::Replace, ..Work::new() };
    work.finish();
    let out = work.out();
    let hint = "hint: move it to another directory, or choose another --out";
    fs::write(out.join("notes.txt"), "mine").unwrap();
    refused(&work, &["out/notes.txt", "not in the manifest", hint]);
    fs::remove_file(out.join("notes.txt")).unwrap();
    fs::create_dir(out.join("runs")).unwrap();
    refused(&work, &["out/runs", "not in the manifest", hint]);
    fs::remove_dir(out.join("runs")).unwrap();
    symlink("../model", out.join("link")).unwrap();
    refused(&work, &["out/link", "a link", hint]);
    fs::remove_file(out.join("link")).unwrap();
    // A fine-tuned shard has the same name and size.
    let shard = out.join(SHARDS[1]);
    let bytes = fs::read(&shard).unwrap();
    crate::flip(&shard, bytes.len() - 1, 0);
    refused(&work, &[SHARDS[1], "a changed file", "other bytes", hint]);
    fs::remove_file(&shard).unwrap();
    refused(&work, &[SHARDS[1], "a changed file", "nothing there"]);
    fs::write(&shard, bytes).unwrap();
    work.finish();
}

#[test]
fn an_output_that_changes_during_a_forced_run_is_kept() {
    let work = Work { overwrite: Overwrite::Replace, ..Work::new() };
    work.finish();
    let begun = work.begin().unwrap();
    fs::write(work.out().join("notes.txt"), "mine").unwrap();
    let before = tree(&work.out());
    let error = work.run_from(begun, usize::MAX).unwrap_err();
    says(&error, &["output changed during the run"]);
    assert!(tree(&work.out()) == before);
    fs::remove_file(work.out().join("notes.txt")).unwrap();
    work.finish();
}

#[test]
fn working_directories_that_no_run_made_are_kept() {
    for resume in [Resume::Continue, Resume::Restart] {
        for (suffix, overwrite) in [
            ("partial", Overwrite::Refuse),
            ("replaced", Overwrite::Refuse),
            ("replaced", Overwrite::Replace),
        ] {
            let work = Work { resume, overwrite, ..Work::new() };
            let name = format!(".out.physarium-{suffix}");
            let path = work.at(&name);
            let needles = [&*name, "working directory", "hint: choose another name"];
            fs::create_dir(&path).unwrap();
            fs::write(path.join("thesis.txt"), "years").unwrap();
            refused(&work, &needles);
            // The name of the marker is not enough, and neither is that of a manifest.
            fs::write(path.join(MARKER), "mine").unwrap();
            fs::write(path.join(manifest::FILE_NAME), "").unwrap();
            refused(&work, &needles);
            fs::remove_dir_all(&path).unwrap();
            fs::write(&path, "mine").unwrap();
            refused(&work, &needles);
            fs::remove_file(&path).unwrap();
            symlink("model", &path).unwrap();
            refused(&work, &needles);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            work.finish();
            assert!(!path.exists(), "an empty directory holds nothing to lose");
        }
    }
}

#[test]
fn links_in_an_unfinished_run_are_not_followed() {
    for name in [journal::FILE_NAME, MARKER, SHARDS[0], "other.part", SOLVED] {
        let mut work = Work::new();
        assert!(!work.run(8).unwrap());
        let (path, target) = (work.partial(name), work.at("important"));
        if name == SOLVED {
            fs::create_dir(&target).unwrap();
            fs::write(target.join("layer-00000.safetensors"), "kept").unwrap();
        } else if path.exists() {
            fs::rename(&path, &target).unwrap();
        } else {
            fs::write(&target, "kept").unwrap();
        }
        symlink(&target, &path).unwrap();
        refused(&work, &[name, "a link in an unfinished run", "hint: --restart"]);
        let before = tree(work.root.path());
        if name != MARKER {
            work.resume = Resume::Restart;
            work.finish();
            let after = tree(work.root.path());
            let kept = |tree: &crate::Tree| -> Vec<_> {
                let of = |name: &&String| name.starts_with("important");
                tree.keys().filter(of).map(|name| tree[name].clone()).collect()
            };
            assert!(kept(&before) == kept(&after), "{name}");
        }
    }
    // Links within the solved weights.
    let work = Work::new();
    assert!(!work.run(3).unwrap());
    fs::create_dir(work.partial(SOLVED)).unwrap();
    symlink("nowhere", work.partial(SOLVED).join("layer-00000.safetensors.part")).unwrap();
    refused(&work, &["layer-00000.safetensors.part", "a link in an unfinished run"]);
}

/// A directory of this name in the input is a directory like any other.
#[test]
fn a_directory_named_like_that_of_solved_weights_is_copied() {
    let work = Work::new();
    fs::create_dir(work.model().join(SOLVED)).unwrap();
    fs::write(work.model().join(SOLVED).join("layer-00000.safetensors"), "mine").unwrap();
    fs::write(work.model().join(SOLVED).join("notes.txt"), "mine").unwrap();
    let mut steps = 0;
    // Resumed after every step, also those after its files were copied.
    while !work.run(steps).unwrap() {
        steps += 1;
    }
    let out = tree(&work.out());
    assert_eq!(out[&format!("{SOLVED}/notes.txt")], b"mine");
    // The output, its directory of that name included, is what its manifest lists.
    Work { overwrite: Overwrite::Replace, ..work }.finish();
}

/// A removal that was killed is finished by the next run.
#[test]
fn a_half_removed_earlier_output_is_removed() {
    let work = Work { overwrite: Overwrite::Replace, ..Work::new() };
    work.finish();
    assert!(!work.run(8).unwrap());
    let replaced = work.at(".out.physarium-replaced");
    fs::rename(work.out(), &replaced).unwrap();
    fs::rename(replaced.join(manifest::FILE_NAME), replaced.join(MARKER)).unwrap();
    fs::write(replaced.join(MARKER), "{\"note\": \"unfinished physarium output\"}").unwrap();
    fs::remove_file(replaced.join(SHARDS[0])).unwrap();
    work.finish();
    assert!(!replaced.exists());
}
