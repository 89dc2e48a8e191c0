//! The reference run: the exact shapes of Qwen2.5-7B, and a journal with the pruned weights of each projection.
//! The audit must give the true shares and judge the claims that were published about the run.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::PathBuf;

use physarium_audit::{
    Audit, AuditRequest, Basis, Claims, Evidence, Share, Verdict, audit, inspect, markdown, text,
};
use physarium_checkpoint::{Checkpoint, Selection, TargetPlan};
use physarium_fixtures::{Fill, Tensor, qwen2_5_7b_tensors, write_checkpoint};
use serde_json::{Value, json};

/// Projection, elements, pruned elements, percentage of the projection.
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
    /// Headers in sparse files, and journal records without checks, as assembled from another tool's log.
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
        self.try_audit().unwrap()
    }

    fn try_audit(&self) -> Result<Audit, physarium_audit::Error> {
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
        audit(&request, &mut |_| Ok(()))
    }

    fn tensor(&mut self, name: &str) -> &mut Value {
        self.records.iter_mut().find(|record| record["name"] == name).unwrap()
    }
}

/// The journal's record of a tensor; the total of its projection is spread over 28 layers.
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
    format!("{:.2}", 100.0 * share.share.unwrap())
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
    assert_eq!((found.projections.len(), found.tensors.len(), found.skipped.len()), (7, 196, 143));
    assert_eq!(found.shards.len(), 4);
    assert_eq!(found.shards.iter().map(|shard| shard.tensors).sum::<u64>(), 339);
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
        // Spread evenly over 28 layers, to within one weight of each tensor.
        let mean = pruned as f64 / elements as f64;
        let one = 28.0 / elements as f64;
        assert!(found.sparsity_min <= found.sparsity_mean && mean - found.sparsity_min <= one);
        assert!(found.sparsity_max >= found.sparsity_mean && found.sparsity_max - mean <= one);
    }
    assert_eq!(audit.projections.len(), 7);
    // Counts that need the weights are absent.
    assert!(audit.sign_bit_zero.is_none() && audit.changed.is_none() && !audit.untouched.compared);
    for report in [text(&audit), markdown(&audit)] {
        assert!(report.contains("1,450,103,613") && report.contains("22.22 %"), "{report}");
    }
}

#[test]
fn published_claims_are_judged() {
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
        claim("six-pruned", "surgery removed about 6 %", "pruned", "\"6 %\"", target),
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
        ("six-pruned", Verdict::Wrong),
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
    assert_eq!(judged[5].true_of, ["model"]);
}

const ELEMENTS: &str = "journal: processed + skipped elements = model elements";
const ONCE: &str = "journal: tensors recorded exactly once = model tensors";
const AGREE: &str = "journal: records consistent with headers and plan = model tensors";
const PROCESSED: &str = "journal: processed elements = target elements";
const SUMS: &str = "journal: totals equal the sums of its records";
const NO_TOTALS: &str = "journal: has a totals record";
const TILES: &str = "tiles visited = tiles expected";

/// Changes the journal and asserts which identities fail: these and no others.
fn broken(change: impl Fn(&mut Golden), says: &[&str]) {
    let mut golden = Golden::new();
    change(&mut golden);
    let audit = golden.audit();
    let failed: Vec<&str> =
        audit.identities.iter().filter(|i| !i.holds).map(|i| i.says.as_str()).collect();
    assert_eq!(failed, says);
    assert!(!audit.denominator_correct);
    // What was counted is no contradiction, however wrong the journal is.
    assert_eq!(audit.contradiction(), None);
    assert!(text(&audit).contains(&format!("false: {}", says[0])));
    assert!(markdown(&audit).contains("**Not all counts agree"));
}

/// Adds to a number of a record.
fn add(value: &mut Value, by: i64) {
    *value = json!(value.as_u64().unwrap().strict_add_signed(by));
}

#[test]
fn inconsistent_numbers_in_a_journal_are_found() {
    let q = "model.layers.3.self_attn.q_proj.weight";
    let norm = "model.layers.3.input_layernorm.weight";
    // One number of one record at a time.
    for by in [-1, 1] {
        broken(|g| add(&mut g.tensor(q)["pruned"], by), &[SUMS]);
        broken(|g| add(&mut g.tensor(q)["elements"], by), &[AGREE, SUMS]);
        broken(|g| add(&mut g.tensor(norm)["elements"], by), &[ELEMENTS, AGREE, SUMS]);
    }
    broken(|g| add(&mut g.tensor(q)["already_zero"], 1), &[SUMS]);
    broken(|g| add(&mut g.tensor(q)["processed"], -1), &[ELEMENTS, PROCESSED, SUMS]);
    broken(|g| add(&mut g.tensor(q)["processed"], 1), &[ELEMENTS, AGREE, PROCESSED, SUMS]);
    broken(|g| g.tensor(q)["shape"] = json!([3584, 3583]), &[AGREE]);
    broken(|g| g.tensor(q)["dtype"] = json!("F16"), &[AGREE]);
    broken(|g| g.tensor(q)["projection"] = json!("self_attn.k_proj"), &[AGREE]);
    broken(|g| g.tensor(q)["layer"] = json!(4), &[AGREE]);
    broken(|g| g.tensor("lm_head.weight")["name"] = json!("other"), &[AGREE]);
    // A target that is recorded as skipped.
    let skip = |g: &mut Golden| {
        let record = g.tensor(q).as_object_mut().unwrap();
        record.retain(|key, _| {
            !["projection", "layer", "processed", "pruned", "already_zero"].contains(&key.as_str())
        });
        record.extend([("status".into(), json!("skipped")), ("reason".into(), json!("none"))]);
    };
    broken(skip, &[AGREE, PROCESSED, SUMS]);
}

#[test]
fn wrong_totals_are_found() {
    for field in [
        "tensors",
        "elements",
        "processed_tensors",
        "processed",
        "pruned",
        "already_zero",
        "non_finite",
    ] {
        broken(|g| add(&mut g.records.last_mut().unwrap()[field], 1), &[SUMS]);
    }
    broken(|g| drop(g.records.pop()), &[NO_TOTALS]);
}

#[test]
fn missing_and_repeated_records_are_found() {
    let q = "model.layers.3.self_attn.q_proj.weight";
    let norm = "model.norm.weight";
    let lose = |name: &'static str| move |g: &mut Golden| g.records.retain(|r| r["name"] != name);
    broken(lose(q), &[ELEMENTS, ONCE, AGREE, PROCESSED, SUMS]);
    broken(lose(norm), &[ELEMENTS, ONCE, AGREE, SUMS]);
    let repeat = |name: &'static str| {
        move |g: &mut Golden| {
            let twice = g.tensor(name).clone();
            g.records.insert(1, twice);
        }
    };
    broken(repeat(q), &[ELEMENTS, ONCE, PROCESSED, SUMS]);
    broken(repeat(norm), &[ELEMENTS, ONCE, SUMS]);
    // One record replaced by a copy of another: the number of records is right.
    let instead = |g: &mut Golden| {
        let twice = g.tensor("model.layers.4.self_attn.q_proj.weight").clone();
        *g.tensor(q) = twice;
    };
    broken(instead, &[ONCE, AGREE]);
}

#[test]
fn wrong_records_are_found_although_the_sums_agree() {
    let tensor = |layer: u64| format!("model.layers.{layer}.self_attn.q_proj.weight");
    // One weight too many in one tensor, one too few in another.
    let shift = |field: &'static str| {
        move |g: &mut Golden| {
            add(&mut g.tensor(&tensor(3))[field], 1);
            add(&mut g.tensor(&tensor(4))[field], -1);
        }
    };
    broken(shift("processed"), &[AGREE]);
    // More pruned than the tensor has, all sums adjusted.
    let more = |g: &mut Golden| {
        add(&mut g.tensor(&tensor(3))["pruned"], 20_000_000);
        add(&mut g.records.last_mut().unwrap()["pruned"], 20_000_000);
    };
    broken(more, &[AGREE]);
}

/// Adds tiles of 256 x 256 to every target, as physarium records them.
fn add_tiles(golden: &mut Golden) {
    for record in golden.records.iter_mut().filter(|r| r["status"] == "processed") {
        let [rows, cols] = [0, 1].map(|i| record["shape"][i].as_u64().unwrap().div_ceil(256));
        record["tiles"] = json!({"expected": rows * cols, "visited": rows * cols});
    }
}

#[test]
fn tiles_are_counted_by_the_auditors_geometry() {
    let mut golden = Golden::new();
    add_tiles(&mut golden);
    let audit = golden.audit();
    assert!(audit.denominator_correct, "{:#?}", audit.identities);
    let tiles = audit.tiles.unwrap();
    // Per layer: three of 74 x 14, two of 14 x 14, two of 2 x 14.
    let expected = 28 * (3 * 74 * 14 + 2 * 14 * 14 + 2 * 2 * 14);
    assert_eq!((tiles.expected, tiles.visited, tiles.elements), (expected, expected, TARGET));
    assert_eq!(tiles.block_size, 256);

    let q = |layer: u64| format!("model.layers.{layer}.self_attn.q_proj.weight");
    let tiles = |change: fn(&mut Value), also: fn(&mut Value)| {
        move |g: &mut Golden| {
            add_tiles(g);
            change(&mut g.tensor(&q(3))["tiles"]);
            also(&mut g.tensor(&q(4))["tiles"]);
        }
    };
    let nothing = |_: &mut Value| {};
    broken(tiles(|t| add(&mut t["visited"], -1), nothing), &[TILES]);
    broken(tiles(|t| add(&mut t["visited"], 1), nothing), &[AGREE, TILES]);
    broken(tiles(|t| add(&mut t["expected"], 1), nothing), &[AGREE]);
    let swap = tiles(|t| add(&mut t["visited"], 1), |t| add(&mut t["visited"], -1));
    broken(swap, &[AGREE]);
}

#[test]
fn a_journal_with_impossible_numbers_is_rejected() {
    let refused = |change: &dyn Fn(&mut Golden), needle: &str| {
        let mut golden = Golden::new();
        change(&mut golden);
        let error = golden.try_audit().unwrap_err().to_string();
        assert!(error.contains("journal.jsonl") && error.contains(needle), "{error}");
    };
    let q = "model.layers.3.self_attn.q_proj.weight";
    for field in ["pruned", "processed", "already_zero", "non_finite", "elements"] {
        refused(&|g| g.tensor(q)[field] = json!(u64::MAX), "fits in 64 bits");
    }
    let tiles = |g: &mut Golden| {
        g.tensor(q)["tiles"] = json!({"expected": 1, "visited": u64::MAX});
    };
    refused(&tiles, "fits in 64 bits");
    refused(&|g| g.records[0]["recipe"]["method"]["block_size"] = json!(0), "block_size");
    refused(&|g| g.tensor(q)["pruned"] = json!(-1), "invalid");
    refused(&|g| g.records[0]["schema"] = json!("other/1"), "physarium.journal/1");
}
