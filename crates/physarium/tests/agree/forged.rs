//! Forged records are found even if their own checks hold.

use std::fs;
use std::path::{Path, PathBuf};

use physarium::audit::Base;
use physarium::checkpoint::manifest::Manifest;
use physarium::checkpoint::{Blake3, Sha256};
use physarium_fixtures::{Kind, Tensor};
use serde_json::{Value, json};

use super::{JOURNAL, MANIFEST, Work, audit_of, copy_files, files, findings, flow, prune};

/// Changes the journal, with valid checks, and the manifest's digest of it: a forger who knows the formats.
pub(super) fn forge_journal(out: &Path, change: impl FnOnce(&mut Vec<Value>)) {
    let path = out.join(JOURNAL);
    let text = fs::read_to_string(&path).unwrap();
    let mut records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in &mut records {
        record.as_object_mut().unwrap().shift_remove("check");
    }
    change(&mut records);
    let (mut forged, mut check) = (String::new(), String::new());
    for record in &records {
        let body = record.to_string();
        let mut hasher = Blake3::default();
        hasher.update(check.as_bytes());
        hasher.update(body.as_bytes());
        check = hasher.finish().to_string()[..16].to_owned();
        forged += &format!("{},\"check\":\"{check}\"}}\n", &body[..body.len() - 1]);
    }
    fs::write(&path, &forged).unwrap();
    forge_manifest(out, |manifest| {
        let files = manifest["files"].as_array_mut().unwrap();
        let entry = files.iter_mut().find(|entry| entry["path"] == JOURNAL).unwrap();
        entry["sha256"] = json!(Sha256::of(forged.as_bytes()).to_string());
        entry["size_bytes"] = json!(forged.len());
    });
}

/// Changes the manifest and seals it again; without a seal if it is no longer a valid manifest.
pub(super) fn forge_manifest(out: &Path, change: impl FnOnce(&mut Value)) {
    let path = out.join(MANIFEST);
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    let text = match serde_json::from_value::<Manifest>(manifest.clone()) {
        Ok(manifest) => manifest.encode(),
        Err(_) => manifest.to_string(),
    };
    fs::write(&path, text).unwrap();
}

/// The path of every number, text and null.
fn leaves(value: &Value) -> Vec<String> {
    let inside = |key: &str, value: &Value| -> Vec<String> {
        leaves(value).into_iter().map(|path| format!("/{key}{path}")).collect()
    };
    match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, v)| inside(key, v)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(i, v)| inside(&i.to_string(), v)).collect()
        }
        _ => vec![String::new()],
    }
}

/// Another value of the same kind.
fn other(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(n) => json!(n + 1),
            None => json!(number.as_f64().unwrap() + 0.25),
        },
        Value::String(text) if text.len() == 64 => {
            let last = if text.ends_with('0') { "1" } else { "0" };
            json!(format!("{}{last}", &text[..63]))
        }
        Value::String(text) => json!(format!("{text}x")),
        _ => json!(0),
    }
}

/// A model and its output, whose records have every kind of field.
fn forgeable(work: &Work) -> (PathBuf, PathBuf) {
    let tensors = [
        Tensor::new("model.layers.0.mlp.up_proj.weight", Kind::Bf16, &[6, 8]),
        Tensor::new("model.layers.1.mlp.up_proj.weight", Kind::F16, &[9, 30]),
        Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bytes("F8_E4M3"), &[3, 3]),
        Tensor::new("model.norm.weight", Kind::F32, &[4]),
    ];
    let (model, out) = (work.model("model", &tensors, 2), work.path("out"));
    prune(&model, &out, flow(24), 1);
    (model, out)
}

#[test]
fn every_edited_field_of_a_forged_record_is_found() {
    let work = Work::in_memory();
    let (model, out) = forgeable(&work);
    let clean = files(&out);
    let restore = || {
        for name in [JOURNAL, MANIFEST] {
            fs::write(out.join(name), &clean[Path::new(name)]).unwrap();
        }
    };
    // A forgery without a change gives the same bytes: what is found below is found because of the change.
    forge_journal(&out, |_| {});
    assert!(files(&out) == clean);

    let journal = String::from_utf8(clean[Path::new(JOURNAL)].clone()).unwrap();
    let mut edits = 0;
    for (at, line) in journal.lines().enumerate() {
        let record: Value = serde_json::from_str(line).unwrap();
        // The reason for a skipped tensor is a sentence, which nothing is compared with.
        let proven = |path: &String| !["/check", "/reason"].contains(&path.as_str());
        for path in leaves(&record).into_iter().filter(proven) {
            forge_journal(&out, |records| {
                let field = records[at].pointer_mut(&path).unwrap();
                *field = other(field);
            });
            assert_ne!(findings(&model, &out), [""; 0], "journal line {}: {path}", at + 1);
            restore();
            edits += 1;
        }
    }
    let manifest: Value = serde_json::from_slice(&clean[Path::new(MANIFEST)]).unwrap();
    // Files that were not copied are not in the output to compare with.
    let proven = |path: &String| path != "/check" && !path.starts_with("/left_out");
    for path in leaves(&manifest).into_iter().filter(proven) {
        forge_manifest(&out, |manifest| {
            let field = manifest.pointer_mut(&path).unwrap();
            *field = other(field);
        });
        assert_ne!(findings(&model, &out), [""; 0], "manifest: {path}");
        restore();
        edits += 1;
    }
    for list in ["shards", "files", "tensors"] {
        for at in 0..manifest[list].as_array().unwrap().len() {
            forge_manifest(&out, |manifest| {
                drop(manifest[list].as_array_mut().unwrap().remove(at))
            });
            assert_ne!(findings(&model, &out), [""; 0], "manifest: {list} {at} dropped");
            restore();
            forge_manifest(&out, |manifest| {
                let twice = manifest[list][at].clone();
                manifest[list].as_array_mut().unwrap().push(twice);
            });
            assert_ne!(findings(&model, &out), [""; 0], "manifest: {list} {at} twice");
            restore();
            edits += 2;
        }
    }
    assert!(edits > 140, "{edits}");
    assert_eq!(findings(&model, &out), [""; 0]);
}

/// Changes a count of the second tensor in its record, the totals and the manifest. Only the weights disagree.
fn forge_count(out: &Path, field: &str, by: u64) {
    let name = "model.layers.1.mlp.up_proj.weight";
    let add = |value: &mut Value| *value = json!(value.as_u64().unwrap() + by);
    forge_journal(out, |records| {
        add(&mut records.iter_mut().find(|record| record["name"] == name).unwrap()[field]);
        add(&mut records.last_mut().unwrap()[field]);
    });
    forge_manifest(out, |manifest| {
        add(&mut manifest["totals"][field]);
        if field == "pruned" {
            let tensors = manifest["tensors"].as_array_mut().unwrap();
            add(&mut tensors.iter_mut().find(|tensor| tensor["name"] == name).unwrap()[field]);
        }
    });
}

#[test]
fn counts_that_agree_with_each_other_are_compared_with_the_weights() {
    let work = Work::new();
    let (model, clean) = forgeable(&work);
    let fields = [
        ("pruned", "pruned weights, expected"),
        ("already_zero", "weights zero before, expected"),
        ("non_finite", "infinite and NaN weights, expected 1, found 0"),
        ("processed", "record: differs from headers and recipe"),
    ];
    for (field, needle) in fields {
        let out = work.path(field);
        copy_files(&clean, &out);
        forge_count(&out, field, 1);
        let found = findings(&model, &out);
        assert!(found.iter().any(|finding| finding.contains(needle)), "{field}: {found:?}");
        assert!(!found.iter().any(|finding| finding.contains("differs from the journal")));
        // The audit counts too, except for infinite and NaN weights.
        let audit = audit_of(&out, Some(&model));
        assert_eq!(audit.denominator_correct, field == "non_finite", "{field}");
    }
    // A journal whose globs match no tensor of the model.
    let out = work.path("patterns");
    copy_files(&clean, &out);
    forge_journal(&out, |records| records[0]["recipe"]["target"] = json!(["other.*"]));
    let found = findings(&model, &out);
    assert!(found.iter().any(|f| f.contains("recipe: ") && f.contains("other.*")), "{found:?}");
    // Counts beyond 64 bits.
    let out = work.path("overflow");
    copy_files(&clean, &out);
    forge_journal(&out, |records| records[1]["pruned"] = json!(u64::MAX));
    assert!(findings(&model, &out).iter().any(|f| f.contains("fits in 64 bits")));
    assert!(!audit_of(&out, Some(&model)).denominator_correct);
}

#[test]
fn an_audit_does_not_trust_a_damaged_journal() {
    let work = Work::new();
    let (model, clean) = forgeable(&work);
    let journal = fs::read(clean.join(JOURNAL)).unwrap();
    let untouched = audit_of(&clean, Some(&model));
    let mut flipped = journal.clone();
    flipped[200] ^= 1;
    let half = &journal[..journal.len() / 2];
    for (what, bytes) in [("flipped", &flipped[..]), ("torn", half), ("empty", &[])] {
        let out = work.path(what);
        copy_files(&clean, &out);
        fs::write(out.join(JOURNAL), bytes).unwrap();
        let audit = audit_of(&out, Some(&model));
        assert!(!audit.denominator_correct, "{what}");
        assert!(audit.warnings.iter().any(|w| w.contains("journal cannot be read")), "{what}");
        // Counts that need only the weights are still reported.
        assert_eq!(audit.pruned, untouched.pruned);
        assert_eq!((audit_of(&out, None).base, audit_of(&out, None).pruned), (Base::None, None));
    }
}
