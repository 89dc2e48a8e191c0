//! Journal and manifest: read back as written, and any change found.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use physarium_checkpoint::ErrorKind;
use physarium_checkpoint::journal::{self, Checks, Journal, Outcome};
use physarium_checkpoint::manifest::{self, Manifest};

use crate::{SHARDS, Work, flip, says, tensor_records};

/// A published output and the path of one of its records.
fn published(record: &str) -> (Work, PathBuf) {
    let work = Work::new();
    work.finish();
    let path = work.out().join(record);
    (work, path)
}

#[test]
fn a_journal_reads_back_what_was_written() {
    let (work, path) = published(journal::FILE_NAME);
    let journal = Journal::read(&path, Checks::Required).unwrap();
    assert_eq!(journal, Journal::read(&path, Checks::IfPresent).unwrap());
    let checkpoint = physarium_checkpoint::Checkpoint::open(&work.model()).unwrap();
    assert_eq!(journal.run, work.run_record(&checkpoint));
    let written: Vec<_> = checkpoint
        .shards()
        .iter()
        .flat_map(|shard| tensor_records(shard, &fs::read(work.out().join(&shard.name)).unwrap()))
        .collect();
    assert_eq!(journal.tensors, written);
    assert!(matches!(&journal.tensors[1].outcome, Outcome::Skipped { .. }));
    let names: Vec<&str> = journal.shards.iter().map(|shard| shard.name.as_str()).collect();
    assert_eq!(names, SHARDS);
    let totals = journal.totals.unwrap();
    assert_eq!(totals, journal::Totals::of(&journal.tensors));
    assert_eq!((totals.tensors, totals.elements, totals.pruned), (3, 136, 128));
}

#[test]
fn a_manifest_reads_back_what_was_written() {
    let (work, path) = published(manifest::FILE_NAME);
    let manifest = Manifest::read(&path).unwrap();
    let journal = Journal::read(&work.out().join(journal::FILE_NAME), Checks::Required).unwrap();
    assert_eq!(manifest.recipe, work.recipe());
    assert_eq!(Some(manifest.totals), journal.totals);
    assert_eq!(manifest.shards, journal.shards);
    assert_eq!(manifest.tensors.len(), 3);
    assert_eq!(manifest.encode().into_bytes(), fs::read(&path).unwrap());
}

#[test]
fn every_bit_of_a_journal_counts() {
    let (_work, path) = published(journal::FILE_NAME);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let read = Journal::parse(&path, &bytes, Checks::Required);
            assert!(read.is_err(), "bit {bit} of byte {at} is not found");
        }
    }
    // The one that ends the file, as a file.
    flip(&path, good.len() - 1, 0);
    let error = Journal::read(&path, Checks::Required).unwrap_err();
    says(&error, &["a whole line", "a line without its end"]);
}

#[test]
fn every_bit_of_a_manifest_counts() {
    let (_work, path) = published(manifest::FILE_NAME);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            assert!(Manifest::read(&path).is_err(), "bit {bit} of byte {at} is not found");
        }
    }
    fs::write(&path, &good).unwrap();
    Manifest::read(&path).unwrap();
    for changed in [[&good[..], b"\n"].concat(), good[..good.len() - 1].to_vec(), Vec::new()] {
        fs::write(&path, changed).unwrap();
        assert_eq!(Manifest::read(&path).unwrap_err().kind(), ErrorKind::Output);
    }
}

#[test]
fn lines_of_a_journal_that_are_lost_moved_or_doubled_are_found() {
    let (_work, path) = published(journal::FILE_NAME);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let refused = |lines: &[&str], needle: &str| {
        let bytes = lines.join("\n") + "\n";
        let error = Journal::parse(&path, bytes.as_bytes(), Checks::Required).unwrap_err();
        says(&error, &[needle]);
    };
    for at in 1..lines.len() - 1 {
        let mut lost = lines.clone();
        lost.remove(at);
        refused(&lost, &format!("journal line {}, expected check", at + 1));
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        refused(&doubled, &format!("journal line {}, expected check", at + 2));
        let mut moved = lines.clone();
        moved.swap(at, at + 1);
        refused(&moved, "expected check");
    }
    refused(&lines[1..], "journal line 1");
    refused(&[], "journal line 1");
}

#[test]
fn a_journal_without_checks_is_read_where_that_is_allowed() {
    let (_work, path) = published(journal::FILE_NAME);
    let whole = Journal::read(&path, Checks::Required).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let bare: String = text
        .lines()
        .map(|line| format!("{}}}\n", line.split(",\"check\"").next().unwrap()))
        .collect();
    assert_eq!(Journal::parse(&path, bare.as_bytes(), Checks::IfPresent).unwrap(), whole);
    let error = Journal::parse(&path, bare.as_bytes(), Checks::Required).unwrap_err();
    says(&error, &["journal line 1", "a check field at the end"]);
    let lines: Vec<&str> = bare.lines().collect();
    for (lines, needle) in [
        ([&lines[..1], &lines[..1]].concat(), "a second run record"),
        ([&lines[..], &lines[1..2]].concat(), "a line after totals"),
        (lines[1..].to_vec(), "the run record"),
    ] {
        let bytes = lines.join("\n") + "\n";
        let error = Journal::parse(&path, bytes.as_bytes(), Checks::IfPresent).unwrap_err();
        says(&error, &[needle]);
    }
}

#[test]
fn hostile_records_are_never_printed_raw() {
    let (_work, path) = published(manifest::FILE_NAME);
    let manifest = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("\"tool\"", "\"\\u001b[31m\""),
        ("physarium.manifest/1", "\\u001b[31m"),
        ("\"magnitude\"", "\"\\u001b[31m\""),
    ] {
        assert!(manifest.contains(from), "{from}");
        fs::write(&path, manifest.replacen(from, to, 1)).unwrap();
        says(&Manifest::read(&path).unwrap_err(), &["u{1b}"]);
    }
    for line in [
        "{\"record\":\"\\u001b[31m\"}\n",
        "{\"record\":\"totals\",\"check\":\"\u{1b}[31mxxxxxxxxxxx\"}\n",
    ] {
        let error = Journal::parse(&path, line.as_bytes(), Checks::IfPresent).unwrap_err();
        says(&error, &["journal line 1", "u{1b}"]);
    }
}

#[test]
fn records_that_are_no_files_are_refused_without_being_waited_for() {
    let (_work, path) = published(journal::FILE_NAME);
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    says(&Journal::read(&path, Checks::Required).unwrap_err(), &["not a regular file", "a FIFO"]);
    says(&Manifest::read(&path).unwrap_err(), &["not a regular file", "a FIFO"]);
}
