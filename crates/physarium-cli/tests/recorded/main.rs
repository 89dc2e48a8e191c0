/*!
Runs of an earlier version, recorded: the same bytes are written, and its records are still read.

`weights-only.sha256` holds the SHA-256 of shards, journal, manifest and packed file of every kind of run on the demo
model without calibration, as commit 3a5b65b wrote them. One digest is newer: `target.physpack` stores a tensor named
with `--target` as a mask, which that commit stored dense. `schema-1` holds the journal and the manifest of three runs
of that commit; its calibrated one is of earlier dynamics of the activation flow, and says neither their parameters nor the
arithmetic. `calibrated-f32.sha256` holds the same of runs with
calibration, in the arithmetic `f32`, which gives these bytes on every machine.

Records state the version of the program: after a change of version, `PHYSARIUM_RECORD=1` records again, and the
digests of the shards must not change.
*/
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use physarium::checkpoint::Sha256;
use physarium::checkpoint::manifest::{self, Manifest};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/model");
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded");

/// Runs of magnitude methods, which give the same bytes on every machine.
const WEIGHTS_ONLY: [(&str, &str); 7] = [
    ("flow", ""),
    ("flow-b64", "--block-size 64 --iterations 20 --beta 3 --inflow 4"),
    ("exact-tile", "--sparsity 0.5"),
    ("exact-tensor", "--method magnitude --sparsity 0.3"),
    ("exact-model", "--method magnitude --sparsity 0.6 --scope model"),
    ("pattern", "--pattern 2:4"),
    ("target", "--target *embed_tokens* --target *v_proj* --sparsity 0.25"),
];

/// Activation-aware runs, in the arithmetic that every machine has.
const CALIBRATED: [(&str, &str); 5] = [
    ("wanda", "--method wanda --sparsity 0.5"),
    ("sparsegpt24", "--method sparsegpt --pattern 2:4"),
    ("act", "--method activation-flow --sparsity 0.5"),
    ("act-price", "--method activation-flow --price 0.05"),
    ("wanda-alloc", "--method wanda --sparsity 0.5 --allocation flow"),
];
const CALIBRATION: &str = "--calibration-tokens 4096 --window 256 --arithmetic f32";

/// Digests by run and file.
type Digests = BTreeMap<String, String>;

fn physarium(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_physarium")).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Prunes the demo model into `work/name` with options, and packs the result.
fn run(work: &Path, name: &str, options: &str) -> Digests {
    let (out, packed) = (work.join(name), work.join(format!("{name}.physpack")));
    let mut prune = vec!["prune", MODEL, "--out", out.to_str().unwrap(), "--quiet"];
    prune.extend(options.split_whitespace());
    physarium(&prune);
    remove_card(&out);
    physarium(&["pack", out.to_str().unwrap(), "--out", packed.to_str().unwrap(), "--quiet"]);
    let mut digests = Digests::new();
    let mut add = |name: String, path: &Path| {
        digests.insert(name, Sha256::of(&fs::read(path).unwrap()).to_string());
    };
    for entry in fs::read_dir(&out).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if file.ends_with(".safetensors") || file.starts_with("physarium.") {
            add(format!("{name}/{file}"), &path);
        }
    }
    add(format!("{name}.physpack"), &packed);
    digests
}

/// Takes out the section for the model card, which the recorded version did not write.
fn remove_card(out: &Path) {
    fs::remove_file(out.join(manifest::CARD_NAME)).unwrap();
    let path = out.join(manifest::FILE_NAME);
    let mut manifest = Manifest::read(&path).unwrap();
    manifest.files.retain(|entry| entry.path != manifest::CARD_NAME);
    fs::write(&path, manifest.encode()).unwrap();
}

/// Compares with a file of `sha256sum`, or writes the file if PHYSARIUM_RECORD is set.
fn compare(file: &str, digests: &Digests) {
    let path = Path::new(RECORDED).join(file);
    let lines: String =
        digests.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    if std::env::var_os("PHYSARIUM_RECORD").is_some() {
        return fs::write(&path, lines).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap();
    for (line, recorded) in lines.lines().zip(recorded.lines()) {
        assert_eq!(line, recorded, "{file}");
    }
    assert_eq!(lines.lines().count(), recorded.lines().count(), "{file}: runs");
}

#[test]
fn magnitude_methods_write_the_recorded_bytes() {
    let work = tempfile::tempdir().unwrap();
    let runs = WEIGHTS_ONLY.iter().flat_map(|(name, options)| run(work.path(), name, options));
    compare("weights-only.sha256", &runs.collect());
}

#[test]
fn activation_aware_methods_write_the_recorded_bytes() {
    let work = tempfile::tempdir().unwrap();
    let one = |(name, options): &(&str, &str)| {
        run(work.path(), name, &format!("{options} {CALIBRATION}"))
    };
    compare("calibrated-f32.sha256", &CALIBRATED.iter().flat_map(one).collect());
}

/// Repeats a recorded run, and puts the recorded journal and manifest into the output.
fn recorded_run(work: &Path, name: &str) -> PathBuf {
    let records = Path::new(RECORDED).join("schema-1").join(name);
    let (out, recipe) = (work.join(name), records.join("physarium.manifest.json"));
    let again = ["--out", out.to_str().unwrap(), "--recipe", recipe.to_str().unwrap(), "--quiet"];
    physarium(&[&["prune", MODEL][..], &again].concat());
    fs::remove_file(out.join(manifest::CARD_NAME)).unwrap();
    for file in ["physarium.manifest.json", "physarium.journal.jsonl"] {
        fs::copy(records.join(file), out.join(file)).unwrap();
    }
    out
}

#[test]
fn a_recorded_run_is_repeated_verified_and_audited() {
    let work = tempfile::tempdir().unwrap();
    for name in ["flow", "pattern"] {
        let out = recorded_run(work.path(), name);
        let out = out.to_str().unwrap();
        // Exit code 0: every recorded digest and count matches the bytes of the repeated run.
        let verified = physarium(&["verify", out, "--against", MODEL, "--quiet"]);
        assert!(verified.contains("verified"), "{name}: {verified}");
        let audited = physarium(&["audit", out, "--against", MODEL, "--format", "json", "--quiet"]);
        let audit: serde_json::Value = serde_json::from_str(&audited).unwrap();
        assert_eq!(audit["denominator_correct"], true, "{name}");
        let journal = Path::new(out).join("physarium.journal.jsonl");
        let from_journal =
            ["audit", MODEL, "--from-journal", journal.to_str().unwrap(), "--format", "json"];
        let counted: serde_json::Value =
            serde_json::from_str(&physarium(&[&from_journal[..], &["--quiet"]].concat())).unwrap();
        assert_eq!(counted["pruned"], audit["pruned"], "{name}");
    }
}

/// What wrote it had no name for its arithmetic, so that it cannot be repeated byte for byte, but its records are read.
#[test]
fn records_of_the_earlier_activation_flow_are_read_but_not_repeated() {
    let work = tempfile::tempdir().unwrap();
    let records = Path::new(RECORDED).join("schema-1/act");
    let journal = records.join("physarium.journal.jsonl");
    let from_journal = ["audit", MODEL, "--from-journal", journal.to_str().unwrap()];
    let audited = physarium(&[&from_journal[..], &["--format", "json", "--quiet"]].concat());
    let audit: serde_json::Value = serde_json::from_str(&audited).unwrap();
    assert!(audit["pruned"]["elements"].as_u64().is_some_and(|pruned| pruned > 0), "{audit}");
    let (out, recipe) = (work.path().join("out"), records.join("physarium.manifest.json"));
    let repeats = ["prune", MODEL, "--out", out.to_str().unwrap(), "--dry-run", "--quiet"];
    let recipe = ["--recipe", recipe.to_str().unwrap(), "--format", "json"];
    let mut repeat = Command::new(env!("CARGO_BIN_EXE_physarium"));
    let refused = repeat.args([&repeats[..], &recipe].concat()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("key \"flow\"") && why.contains("earlier dynamics"), "{why}");
}
