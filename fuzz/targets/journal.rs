//! The journal of an output. Input: its lines without their checks, which are added here.
//!
//! A journal that is accepted is the same with its checks optional, and neither `audit` nor `verify` panics on it.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use physarium::audit::{AuditRequest, Evidence, audit, verify};
use physarium::checkpoint::journal::{self, Checks, Journal, Totals};
use physarium_fuzz::{
    half, prune, read_twice, scratch, two_of_four, write_fused_model, write_model, write_seeds,
};

struct Place {
    model: PathBuf,
    out: PathBuf,
}

static PLACE: OnceLock<Place> = OnceLock::new();

fn place() -> &'static Place {
    PLACE.get_or_init(|| {
        let dir = scratch("journal");
        let (model, out) = (dir.join("model"), dir.join("out"));
        write_fused_model(&model);
        prune(&model, &out, &half());
        Place { model, out }
    })
}

/// The lines of a journal without their checks.
fn bodies(dir: &Path) -> Vec<u8> {
    let text = fs::read_to_string(dir.join(journal::FILE_NAME)).expect("a journal");
    let body = |line: &str| format!("{}}}\n", &line[..line.rfind(",\"check\":").expect("a check")]);
    text.lines().map(body).collect::<String>().into_bytes()
}

/// The lines with a check each.
fn with_checks(data: &[u8]) -> Vec<u8> {
    let (mut text, mut previous) = (Vec::new(), String::new());
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let Some(body) = line.strip_suffix(b"}\n") else {
            text.extend_from_slice(line);
            continue;
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(previous.as_bytes()).update(body).update(b"}");
        previous = hasher.finalize().to_hex()[..16].to_owned();
        text.extend_from_slice(body);
        text.extend_from_slice(format!(",\"check\":\"{previous}\"}}\n").as_bytes());
    }
    text
}

fn seeds() {
    let dir = scratch("journal-seeds");
    let (model, out) = (dir.join("model"), dir.join("out"));
    write_model(&model);
    prune(&model, &out, &two_of_four());
    write_seeds(&[("half", bodies(&place().out)), ("pattern", bodies(&out))]);
    let _ = fs::remove_dir_all(dir);
}

fuzz_target!(init: seeds(), |data: &[u8]| {
    let Place { model, out } = place();
    let path = Path::new("journal");
    read_twice(|| Journal::parse(path, data, Checks::IfPresent));
    let text = with_checks(data);
    let Some(journal) = read_twice(|| Journal::parse(path, &text, Checks::Required)) else { return };
    assert_eq!(Journal::parse(path, &text, Checks::IfPresent).expect("with checks"), journal);
    Totals::of(&journal.tensors);
    fs::write(out.join(journal::FILE_NAME), &text).expect("the journal is written");
    let request = AuditRequest {
        dir: out,
        against: Some(model),
        evidence: Evidence::Bytes,
        selection: None,
        threads: 1,
    };
    read_twice(|| audit(&request, &mut |_| Ok(())).map(|report| report.denominator_correct));
    let proven = read_twice(|| verify(model, out, &mut |_| Ok(())).map(|found| found.is_proven()));
    // The manifest has the digest of the journal that prune wrote.
    assert!(proven != Some(true) || data == bodies(out), "another journal is proven");
    let headers = AuditRequest {
        against: None,
        evidence: Evidence::Journal(out.join(journal::FILE_NAME)),
        ..request
    };
    read_twice(|| audit(&headers, &mut |_| Ok(())).map(|report| report.denominator_correct));
});
