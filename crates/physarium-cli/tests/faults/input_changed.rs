//! The input, or what is asked for, is another than when the run began.

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

/// Puts another file with the same bytes and times in its place.
fn replace(path: &Path) {
    let (copy, time) = (path.with_extension("copy"), modified(path));
    fs::copy(path, &copy).unwrap();
    set_modified(&copy, time);
    fs::rename(&copy, path).unwrap();
}

/// Changes the last byte in place and puts the times back.
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

/// A run is stopped after its first shard, a later shard is changed, the run goes on.
#[test]
fn a_shard_that_changes_during_the_run() {
    let fixture = Fixture::new(256);
    type Change = fn(&Path);
    let changes: [(&str, Change, &str); 4] = [
        ("touched", touch, "modification time"),
        ("replaced", replace, "inode"),
        ("changed with its times put back", change_a_byte, "status change time"),
        ("shortened", shorten, "size in bytes"),
    ];
    let last = fixture.shard(3);
    for (context, change, property) in changes {
        // Not the last shard yet: it is the one that changes.
        let child = fixture.stopped_when(|| fixture.journalled_shards() == 1);
        let early = fixture.journalled_shards() == 1;
        let before = (fs::read(&last).unwrap(), modified(&last));
        change(&last);
        signal(&child, "-CONT");
        let ran = Ran::end_of(child, LIMIT, context);
        assert!(early, "{context}: stopped too late");
        ran.fails(context, &["input changed during the run", &shard_name(3), property]);
        assert!(!fixture.out().exists(), "{context}: published");
        // The same input again, as far as its bytes go: not as far as the system can tell.
        fs::write(&last, &before.0).unwrap();
        touch(&last);
        let again = Ran::of(&mut prune(fixture.path(), "out"));
        again.fails(context, &["staging belongs to another run", &shard_name(3), "--restart"]);
        let restarted = Ran::of(prune(fixture.path(), "out").arg("--restart"));
        assert_eq!(restarted.code(), 0, "{context}: {}", restarted.stderr);
        assert!(fixture.check(context), "{context}: no output");
        fixture.nothing_is_left(context);
    }
}

/// The shard that is being read loses its end, or is written to.
#[test]
fn a_shard_that_changes_while_it_is_read() {
    let fixture = Fixture::new(256);
    let first = fixture.shard(1);
    let begun = || fixture.staging().join(JOURNAL).exists();
    let before = fs::read(&first).unwrap();
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

/// Nothing is continued that was begun on another input.
#[test]
fn a_shard_that_changes_between_kill_and_resume() {
    let fixture = Fixture::new(256);
    let (first, last) = (fixture.shard(1), fixture.shard(3));
    fixture.killed_after(1);
    let time = modified(&last);
    touch(&last);
    let refused = |context: &str, needles: &[&str]| {
        Ran::of(&mut prune(fixture.path(), "out")).fails(context, needles);
        assert!(!fixture.out().exists(), "{context}");
    };
    refused("touched", &[&shard_name(3), "modified_ns", "--restart"]);
    set_modified(&last, time);
    // Only its digest can tell.
    change_a_byte(&first);
    refused("changed", &["input changed", "SHA-256", &shard_name(1), "--restart"]);
    change_a_byte(&first);
    // Put back, it goes on.
    fixture.finish("unchanged again");
    fixture.killed_after(1);
    replace(&last);
    refused("replaced", &[&shard_name(3), "inode", "--restart"]);
    let restarted = Ran::of(prune(fixture.path(), "out").arg("--restart"));
    assert_eq!(restarted.code(), 0, "{}", restarted.stderr);
    assert!(!restarted.stderr.contains("resuming"), "{}", restarted.stderr);
    assert!(fixture.check("restart"));
    fixture.nothing_is_left("restart");
}

/// A header that changes is told apart even when size and times are the same.
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
    fixture.finish("header put back");
}

/// Nothing is continued with another recipe.
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
    // Refusing changes nothing: the first recipe goes on where it was.
    assert!(fixture.journalled_shards() > 0);
    fixture.finish("the first recipe");
    fixture.killed_after(1);
    let ran = Ran::of(prune(fixture.path(), "out").args(["--inflow", "4", "--restart"]));
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(super::files(&fixture.out()) != fixture.expected, "the other recipe is ignored");
    fixture.nothing_is_left("restart");
}
