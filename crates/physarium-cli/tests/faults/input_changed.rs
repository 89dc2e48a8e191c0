//! The input or the recipe changes during a run, or before it is resumed.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Fixture, JOURNAL, Ran, prune, shard_name, signal};

const LIMIT: Duration = Duration::from_secs(60);

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

fn set_modified(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn touch(path: &Path) {
    set_modified(path, modified(path) + Duration::from_secs(1));
}

/// Replaces the file by another one with the same bytes and modification time.
fn replace(path: &Path) {
    let (copy, time) = (path.with_extension("copy"), modified(path));
    fs::copy(path, &copy).unwrap();
    set_modified(&copy, time);
    fs::rename(&copy, path).unwrap();
}

/// Changes the last byte in place and restores the modification time.
fn change_a_byte(path: &Path) {
    let time = modified(path);
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    set_modified(path, time);
}

fn shorten(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    fs::File::options().write(true).open(path).unwrap().set_len(length - 1).unwrap();
}

/// A run is stopped after its first shard, a later shard is changed, and the run continues.
#[test]
fn a_shard_that_changes_during_the_run() {
    let fixture = Fixture::new(256);
    type Change = fn(&Path);
    let changes: [(&str, Change, &str); 4] = [
        ("touched", touch, "modification time"),
        ("replaced", replace, "inode"),
        ("changed with its times restored", change_a_byte, "status change time"),
        ("shortened", shorten, "size in bytes"),
    ];
    let last = fixture.shard(3);
    for (context, change, property) in changes {
        // The last shard, which changes, has not been read yet.
        let child = fixture.stopped_when(|| fixture.journalled_shards() == 1);
        let early = fixture.journalled_shards() == 1;
        let before = (fs::read(&last).unwrap(), modified(&last));
        change(&last);
        signal(&child, "-CONT");
        let ran = Ran::end_of(child, LIMIT, context);
        assert!(early, "{context}: stopped too late");
        ran.fails(context, &["input changed during the run", &shard_name(3), property]);
        assert!(!fixture.out().exists(), "{context}: published");
        // The same bytes again: the run is resumed, whatever the times are.
        fs::write(&last, &before.0).unwrap();
        touch(&last);
        fixture.finish(context);
    }
}

/// A shard is truncated or touched while it is read.
#[test]
fn a_shard_that_changes_while_it_is_read() {
    let fixture = Fixture::new(256);
    let first = fixture.shard(1);
    let before = fs::read(&first).unwrap();
    // A shard that is written whole has been read, and may have been compared with its input already.
    let part = fixture.staging().join(format!("{}.part", shard_name(1)));
    let incomplete = || part.metadata().map_or(0, |part| part.len()) < before.len() as u64;
    let begun = || {
        let there = fixture.staging().join(JOURNAL).exists();
        there && !fixture.staging().join(shard_name(1)).exists() && incomplete()
    };
    for (context, change) in [("emptied", true), ("written to", false)] {
        let child = fixture.stopped_when(begun);
        let early = fixture.journalled_shards() == 0;
        if change {
            fs::File::options().write(true).open(&first).unwrap().set_len(10).unwrap();
        } else {
            touch(&first);
        }
        signal(&child, "-CONT");
        let ran = Ran::end_of(child, LIMIT, context);
        assert!(early, "{context}: stopped too late");
        ran.fails(context, &[&shard_name(1)]);
        let said = ["file shrank while it was read", "input changed during the run"];
        assert!(said.iter().any(|s| ran.stderr.contains(s)), "{context}: {}", ran.stderr);
        fs::write(&first, &before).unwrap();
        let restarted = Ran::of(prune(fixture.path(), "out").arg("--restart"));
        assert_eq!(restarted.code(), 0, "{context}: {}", restarted.stderr);
        assert!(fixture.check(context), "{context}: no output");
    }
}

/// A run on another input is not resumed.
#[test]
fn a_shard_that_changes_between_kill_and_resume() {
    let fixture = Fixture::new(256);
    let (first, last) = (fixture.shard(1), fixture.shard(3));
    fixture.killed_after(1);
    touch(&last);
    replace(&first);
    // Only the digest detects it.
    change_a_byte(&first);
    let refused = Ran::of(&mut prune(fixture.path(), "out"));
    refused.fails("changed", &["input changed", "SHA-256", &shard_name(1), "--restart"]);
    assert!(!fixture.out().exists());
    change_a_byte(&first);
    // With the original bytes the run is resumed: copies and other times make no difference.
    fixture.finish("unchanged again");
    fixture.killed_after(1);
    let restarted = Ran::of(prune(fixture.path(), "out").arg("--restart"));
    assert_eq!(restarted.code(), 0, "{}", restarted.stderr);
    assert!(!restarted.stderr.contains("resuming"), "{}", restarted.stderr);
    assert!(fixture.check("restart"));
    fixture.nothing_is_left("restart");
}

/// A changed header is detected even if size and times are the same.
#[test]
fn a_header_that_changes_between_kill_and_resume() {
    let fixture = Fixture::new(128);
    fixture.killed_after(1);
    let last = fixture.shard(3);
    let time = modified(&last);
    let bytes = fs::read(&last).unwrap();
    let format = bytes.windows(4).position(|four| four == b"\"pt\"").unwrap();
    let mut changed = bytes.clone();
    changed[format + 1] = b'q';
    fs::write(&last, &changed).unwrap();
    set_modified(&last, time);
    let ran = Ran::of(&mut prune(fixture.path(), "out"));
    ran.fails("header", &[&shard_name(3), "header_sha256", "--restart"]);
    fs::write(&last, &bytes).unwrap();
    set_modified(&last, time);
    fixture.finish("header restored");
}

/// A run with another recipe is not resumed.
#[test]
fn another_recipe_between_kill_and_resume() {
    let fixture = Fixture::new(128);
    fixture.killed_after(1);
    let others: [(&[&str], &[&str]); 5] = [
        (&["--inflow", "4"], &["recipe.method.inflow was 5.16", "this run has 4.0"]),
        (&["--iterations", "31"], &["recipe.method.iterations was 30", "this run has 31"]),
        (&["--block-size", "128"], &["recipe.method.block_size was 256", "this run has 128"]),
        (&["--sparsity", "0.5"], &["recipe.method.name was"]),
        (&["--skip", "*.k_proj.weight"], &["recipe.skip"]),
    ];
    for (arguments, needles) in others {
        let context = arguments.join(" ");
        let ran = Ran::of(prune(fixture.path(), "out").args(arguments));
        ran.fails(&context, &["staging belongs to another run", "--restart"]);
        ran.fails(&context, needles);
    }
    // A refusal changes nothing: the first recipe is resumed.
    assert!(fixture.journalled_shards() > 0);
    fixture.finish("the first recipe");
    fixture.killed_after(1);
    let ran = Ran::of(prune(fixture.path(), "out").args(["--inflow", "4", "--restart"]));
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(super::files(&fixture.out()) != fixture.expected, "the other recipe is ignored");
    fixture.nothing_is_left("restart");
}
