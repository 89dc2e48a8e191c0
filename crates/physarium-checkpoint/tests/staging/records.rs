//! Journal and manifest: they are read as written, and any change is detected.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use physarium_checkpoint::journal::{self, Checks, Journal, MatrixRecord, Outcome, TensorRecord};
use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{Blake3, Checkpoint, ErrorKind};

use crate::{SHARDS, Work, flip, says, tensor_records};

/// A published output and the path of one of its records.
fn published(record: &str) -> (Work, PathBuf) {
    let work = Work::new();
    work.finish();
    let path = work.out().join(record);
    (work, path)
}

#[test]
fn a_journal_is_read_as_written() {
    let (work, path) = published(journal::FILE_NAME);
    let journal = Journal::read(&path, Checks::Required).unwrap();
    assert_eq!(journal, Journal::read(&path, Checks::IfPresent).unwrap());
    let checkpoint = Checkpoint::open(&work.model()).unwrap();
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
fn a_manifest_is_read_as_written() {
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
fn every_changed_bit_of_a_journal_is_detected() {
    let (_work, path) = published(journal::FILE_NAME);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let read = Journal::parse(&path, &bytes, Checks::Required);
            assert!(read.is_err(), "bit {bit} of byte {at} is not detected");
        }
    }
    // The newline at the end, in a file: the line has no end then.
    flip(&path, good.len() - 1, 0);
    let error = Journal::read(&path, Checks::Required).unwrap_err();
    let lines = good.iter().filter(|byte| **byte == b'\n').count();
    says(
        &error,
        &[&format!("journal line {lines}, expected a whole line, found a line without its end")],
    );
}

#[test]
fn every_changed_bit_of_a_manifest_is_detected() {
    let (_work, path) = published(manifest::FILE_NAME);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            assert!(Manifest::read(&path).is_err(), "bit {bit} of byte {at} is not detected");
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
fn lines_of_a_journal_that_are_lost_moved_or_duplicated_are_detected() {
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
fn a_journal_without_checks_is_read_if_that_is_allowed() {
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
fn records_that_are_not_files_are_refused_without_blocking() {
    let (_work, path) = published(journal::FILE_NAME);
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    says(&Journal::read(&path, Checks::Required).unwrap_err(), &["not a regular file", "a FIFO"]);
    says(&Manifest::read(&path).unwrap_err(), &["not a regular file", "a FIFO"]);
}

/// A run record and one tensor record of two experts with fused maps, as an unfinished journal.
fn journal_of_experts() -> (Work, TensorRecord, String) {
    let work = Work::new();
    let checkpoint = Checkpoint::open(&work.model()).unwrap();
    let shard = &checkpoint.shards()[0];
    let mut record = tensor_records(shard, &fs::read(&shard.path).unwrap()).remove(0);
    let Outcome::Processed(done) = &mut record.outcome else { panic!("not a projection") };
    let matrix = |expert: u32, map: &str| MatrixRecord {
        map: map.to_owned(),
        expert: Some(expert),
        elements: 16,
        pruned: 15,
        already_zero: 1,
    };
    done.matrices = (0..2)
        .flat_map(|expert| ["gate_proj", "up_proj"].map(|map| matrix(expert, map)))
        .chain([MatrixRecord { expert: None, ..matrix(0, "q_proj") }])
        .collect();
    let mut staging = work.begin().unwrap();
    staging.record_tensor(record.clone()).unwrap();
    drop(staging);
    let text = fs::read_to_string(work.journal()).unwrap();
    (work, record, text)
}

/// A line of a journal with another body and the check that belongs to it.
fn line_with(body: &str, previous: &str) -> String {
    let mut hasher = Blake3::default();
    let check = previous.split("\"check\":\"").nth(1).unwrap();
    hasher.update(&check.as_bytes()[..16]);
    hasher.update(body.as_bytes());
    let check = &hasher.finish().to_string()[..16];
    format!("{},\"check\":\"{check}\"}}", &body[..body.len() - 1])
}

#[test]
fn matrices_of_a_tensor_are_read_as_written() {
    let (work, record, text) = journal_of_experts();
    let journal = Journal::read(&work.journal(), Checks::Required).unwrap();
    assert_eq!(journal.tensors, [record]);
    let matrices = r#""matrices":[{"map":"gate_proj","expert":0,"elements":16,"pruned":15,"already_zero":1},{"map":"up_proj","expert":0,"#;
    assert!(text.contains(matrices), "{text}");
    let dense = r#"{"map":"q_proj","elements":16,"pruned":15,"already_zero":1}]"#;
    assert!(text.contains(dense), "{text}");
}

#[test]
fn a_record_without_matrices_has_none() {
    let (_work, path) = published(journal::FILE_NAME);
    assert!(!fs::read_to_string(&path).unwrap().contains("matrices"));
    let journal = Journal::read(&path, Checks::Required).unwrap();
    assert!(journal.tensors[0].processed().unwrap().matrices.is_empty());
    // The field is not written if it is empty, so that an explicit empty list is another text.
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let body = lines[1].split(",\"check\"").next().unwrap();
    let empty = line_with(&format!("{body},\"matrices\":[]}}"), lines[0]);
    let changed = format!("{}\n{empty}\n", lines[0]);
    let error = Journal::parse(&path, changed.as_bytes(), Checks::Required).unwrap_err();
    says(&error, &["journal line 2", "the record as physarium writes it"]);
}

#[test]
fn fields_of_a_record_in_another_order_are_refused_unless_checks_are_optional() {
    let (work, record, text) = journal_of_experts();
    let (path, lines) = (work.journal(), text.lines().collect::<Vec<_>>());
    let body = format!("{}}}", lines[1].split(",\"check\"").next().unwrap());
    assert_eq!(line_with(&body, lines[0]), lines[1]);
    let expert = r#"{"map":"up_proj","expert":1,"#;
    for (from, to) in [
        (expert, r#"{"expert":1,"map":"up_proj","#),
        (expert, r#"{"map":"up_proj","expert":1,"rows":4,"#),
        (r#""processed":64,"pruned":64"#, r#""pruned":64,"processed":64"#),
    ] {
        assert!(body.contains(from), "{body}");
        let line = line_with(&body.replace(from, to), lines[0]);
        let changed = format!("{}\n{line}\n", lines[0]);
        let error = Journal::parse(&path, changed.as_bytes(), Checks::Required).unwrap_err();
        says(&error, &["journal line 2", "the record as physarium writes it", "other bytes"]);
        let read = Journal::parse(&path, changed.as_bytes(), Checks::IfPresent).unwrap();
        assert_eq!(read.tensors, std::slice::from_ref(&record));
    }
}
