//! The reference run of the project's history: Qwen2.5-7B's exact shapes, and a journal that says
//! what was pruned of each kind. It must give the true shares, and judge what was once claimed.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use physarium_audit::{
    Audit, AuditRequest, Basis, Claims, Evidence, Share, Verdict, audit, inspect, markdown, text,
};
use physarium_checkpoint::{Checkpoint, Selection, TargetPlan};
use physarium_fixtures::{Fill, Tensor, qwen2_5_7b_tensors, write_checkpoint};
use serde_json::{Value, json};

/// Kind, elements, pruned, per cent of the kind.
const KINDS: [(&str, u64, u64, &str); 7] = [
    ("mlp.down_proj", 1_901_068_288, 426_068_415, "22.41"),
    ("mlp.gate_proj", 1_901_068_288, 421_099_975, "22.15"),
    ("mlp.up_proj", 1_901_068_288, 419_952_080, "22.09"),
    ("self_attn.k_proj", 51_380_224, 11_914_046, "23.19"),
    ("self_attn.o_proj", 359_661_568, 78_357_784, "21.79"),
    ("self_attn.q_proj", 359_661_568, 81_377_034, "22.63"),
    ("self_attn.v_proj", 51_380_224, 11_334_279, "22.06"),
];
const MODEL: u64 = 7_615_616_512;
const TARGET: u64 = 6_525_288_448;
const PRUNED: u64 = 1_450_103_613;

struct Golden {
    dir: tempfile::TempDir,
    records: Vec<Value>,
}

impl Golden {
    /// Headers in sparse files, and the journal's records without checks, as somebody would put
    /// them together from another tool's log.
    fn new() -> Golden {
        let dir = tempfile::tempdir().unwrap();
        let tensors = qwen2_5_7b_tensors(28);
        write_checkpoint(&dir.path().join("model"), &tensors, 4, Fill::Sparse).unwrap();
        let recipe = json!({
            "method": {"name": "magnitude-flow", "block_size": 256, "iterations": 30, "beta": 2.0,
                       "inflow": 5.0},
            "target": [], "skip": [], "non_finite": "refuse",
        });
        let run = json!({"record": "run", "schema": "physarium.journal/1", "tool": "reference",
                         "recipe": recipe, "input": []});
        let mut records = vec![run];
        records.extend(tensors.iter().map(record));
        let totals = json!({
            "record": "totals", "tensors": 339, "elements": MODEL, "processed_tensors": 196,
            "processed": TARGET, "pruned": PRUNED, "already_zero": 0, "non_finite": 0,
        });
        records.push(totals);
        Golden { dir, records }
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    fn audit(&self) -> Audit {
        let journal = self.dir.path().join("journal.jsonl");
        let lines: Vec<String> = self.records.iter().map(|r| format!("{r}\n")).collect();
        fs::write(&journal, lines.concat()).unwrap();
        let request = AuditRequest {
            dir: &self.model(),
            against: None,
            evidence: Evidence::Journal(journal),
            selection: None,
            threads: 2,
        };
        audit(&request, &mut |_| Ok(())).unwrap()
    }

    fn tensor(&mut self, name: &str) -> &mut Value {
        self.records.iter_mut().find(|record| record["name"] == name).unwrap()
    }
}

/// What the journal says of a tensor: its kind's total spread over 28 layers.
fn record(tensor: &Tensor) -> Value {
    let mut record = json!({
        "record": "tensor", "name": tensor.name, "shard": "model.safetensors", "dtype": "BF16",
        "shape": tensor.shape, "elements": tensor.elements(),
    });
    let parts: Vec<&str> = tensor.name.split('.').collect();
    let kind = match parts.as_slice() {
        [_, _, layer, module, kind, "weight"] => Some((*layer, format!("{module}.{kind}"))),
        _ => None,
    };
    let known = kind.and_then(|(layer, kind)| {
        let (.., total, _) = *KINDS.iter().find(|(name, ..)| *name == kind)?;
        Some((layer.parse::<u64>().unwrap(), kind, total))
    });
    let fields = match known {
        Some((layer, kind, total)) => json!({
            "status": "processed", "projection": kind, "layer": layer,
            "processed": tensor.elements(), "pruned": total / 28 + u64::from(layer < total % 28),
            "already_zero": 0,
        }),
        None => json!({"status": "skipped", "reason": "not a target projection"}),
    };
    let (record, fields) = (record.as_object_mut().unwrap(), fields.as_object().unwrap());
    record.extend(fields.clone());
    Value::Object(record.clone())
}

fn percent(share: &Share) -> String {
    format!("{:.2}", 100.0 * share.share)
}

#[test]
fn headers_give_the_denominators() {
    let golden = Golden::new();
    let checkpoint = Checkpoint::open(&golden.model()).unwrap();
    let plan = TargetPlan::new(&checkpoint, &Selection::default()).unwrap();
    let found = inspect(&checkpoint, &plan);
    assert_eq!((found.model.tensors, found.model.elements), (339, MODEL));
    assert_eq!((found.target.tensors, found.target.elements), (196, TARGET));
    assert_eq!(percent(&found.target.of_model), "85.68");
    for (sum, (kind, elements, ..)) in found.projections.iter().zip(KINDS) {
        assert_eq!((sum.projection.as_str(), sum.tensors, sum.elements), (kind, 28, elements));
    }
}

#[test]
fn the_journal_gives_the_reference_shares() {
    let audit = Golden::new().audit();
    assert_eq!(audit.basis, Basis::Journal);
    assert!(audit.denominator_correct, "{:#?}", audit.identities);
    let processed = audit.processed.as_ref().unwrap();
    assert_eq!((processed.tensors, processed.elements), (196, TARGET));
    let pruned = audit.pruned.as_ref().unwrap();
    assert_eq!(pruned.elements, PRUNED);
    assert_eq!(
        (percent(&pruned.of_target), percent(&pruned.of_model)),
        ("22.22".into(), "19.04".into())
    );
    assert_eq!((pruned.of_target.whole, pruned.of_model.whole), (TARGET, MODEL));
    assert_eq!((audit.untouched.tensors, audit.untouched.elements), (143, 1_090_328_064));
    assert_eq!(percent(&audit.untouched.of_model), "14.32");
    for (found, (kind, elements, pruned, share)) in audit.projections.iter().zip(KINDS) {
        assert_eq!((found.projection.as_str(), found.elements), (kind, elements));
        assert_eq!(found.pruned, Some(pruned));
        assert_eq!(percent(found.of_projection.as_ref().unwrap()), share, "{kind}");
    }
    for report in [text(&audit), markdown(&audit)] {
        assert!(report.contains("1,450,103,613") && report.contains("22.22 %"), "{report}");
    }
}

#[test]
fn what_was_once_claimed_is_judged() {
    let golden = Golden::new();
    let file = golden.dir.path().join("claims.toml");
    let claim = |id: &str, sentence: &str, count: &str, value: &str, of: &str| {
        format!(
            "[[claim]]\nid = \"{id}\"\nsource = \"report\"\nsentence = \"{sentence}\"\n\
             count = \"{count}\"\nvalue = {value}\n{of}\n"
        )
    };
    let target = "of = \"target\"";
    let model = "of = \"model\"";
    let claims = [
        claim("target", "22.22 % of target projection weights", "pruned", "\"22.22 %\"", target),
        claim("model", "19.04 % over the full model", "pruned", "\"19.04 %\"", model),
        claim("six", "practical surgery coverage is ≈ 6 %", "processed", "\"6 %\"", model),
        claim("bare", "22.22 % sparsity", "pruned", "\"22.22 %\"", ""),
        claim("swapped", "19.04 % of the target", "pruned", "\"19.04 %\"", target),
        claim("count", "1,450,103,613 pruned", "pruned", "1450103613", ""),
        claim("down", "22.41 % of down_proj", "pruned", "\"22.41 %\"", "of = \"down_proj\""),
    ];
    fs::write(&file, claims.concat()).unwrap();
    let judged = Claims::read(&file).unwrap().judge(&golden.audit()).unwrap();
    let verdicts: Vec<(&str, Verdict)> =
        judged.iter().map(|j| (j.id.as_str(), j.verdict)).collect();
    let expected = [
        ("target", Verdict::Correct),
        ("model", Verdict::Correct),
        ("six", Verdict::Wrong),
        ("bare", Verdict::Denominator),
        ("swapped", Verdict::Denominator),
        ("count", Verdict::Correct),
        ("down", Verdict::Correct),
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(
        judged[2].should_say.as_deref(),
        Some("85.68 % of model (6,525,288,448 of 7,615,616,512)")
    );
    assert_eq!(judged[3].true_of, ["target"]);
    assert_eq!(judged[4].true_of, ["model"]);
}

/// One number changed in the journal, and the identity that must fail.
fn broken(change: impl Fn(&mut Golden), says: &str) {
    let mut golden = Golden::new();
    change(&mut golden);
    let audit = golden.audit();
    assert!(!audit.denominator_correct, "{says}");
    let failed: Vec<&str> =
        audit.identities.iter().filter(|i| !i.holds).map(|i| i.says.as_str()).collect();
    assert!(failed.iter().any(|found| found.contains(says)), "{says}: {failed:?}");
}

#[test]
fn a_journal_that_does_not_add_up_is_found() {
    let q = "model.layers.3.self_attn.q_proj.weight";
    broken(|g| g.tensor(q)["pruned"] = json!(1), "totals that are the sums");
    broken(|g| g.tensor(q)["processed"] = json!(1), "processed elements = target elements");
    broken(|g| g.tensor(q)["shape"] = json!([3584, 3583]), "agree with headers");
    broken(|g| g.tensor(q)["projection"] = json!("self_attn.k_proj"), "agree with headers");
    broken(|g| g.records.retain(|r| r["name"] != q), "processed + skipped elements");
    broken(
        |g| {
            let twice = g.tensor(q).clone();
            g.records.insert(1, twice);
        },
        "processed + skipped elements",
    );
    broken(|g| drop(g.records.pop()), "totals records");
    broken(|g| g.tensor("lm_head.weight")["name"] = json!("other"), "agree with headers");
}

fn refused(toml: &[u8], needle: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file: &Path = &dir.path().join("claims.toml");
    fs::write(file, toml).unwrap();
    let read = Claims::read(file).map_err(|e| e.to_string());
    let judged =
        read.and_then(|claims| claims.judge(&Golden::new().audit()).map_err(|e| e.to_string()));
    let error = judged.expect_err(needle);
    assert!(error.contains("claims.toml") && error.contains(needle), "no {needle:?} in: {error}");
}

#[test]
fn claims_that_cannot_be_judged_are_refused() {
    let claim =
        |rest: &str| format!("[[claim]]\nid = \"a\"\nsource = \"s\"\nsentence = \"t\"\n{rest}\n");
    refused(b"", "no claims");
    refused(b"\xff", "cannot read");
    refused(b"[[claim]]\nid = 1", "invalid type");
    refused(claim("").as_bytes(), "count");
    refused(claim("count = \"pruned\"\nvalue = \"22,2 %\"").as_bytes(), "22.22 %");
    refused(claim("count = \"pruned\"\nvalue = -1").as_bytes(), "negative");
    refused(claim("count = \"pruned\"\nvalue = 1.5").as_bytes(), "integer or a percentage");
    refused(claim("count = \"coverage\"\nvalue = 1").as_bytes(), "unknown variant");
    refused(claim("count = \"pruned\"\nvalue = 1\nwhole = \"x\"").as_bytes(), "unknown field");
    refused(claim("count = \"pruned\"\nvalue = 1\nof = \"x\"").as_bytes(), "mlp.down_proj");
    let twice = claim("count = \"pruned\"\nvalue = 1").repeat(2);
    refused(twice.as_bytes(), "id is used twice");
}
