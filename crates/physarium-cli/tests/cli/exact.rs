//! Every run makes exactly the zeros that were asked for, and only finite weights: dead inputs, weights at the ends of
//! a dtype's range, and zeros of both signs.

use std::fs;
use std::path::Path;

use physarium_fixtures::with_length;
use serde_json::Value;

use super::Work;
use super::eval::work;

const CALIBRATION: &str = "--calibration text.txt --calibration-tokens 2048 --window 256";
const CALIBRATED: [&str; 3] = ["wanda", "sparsegpt", "activation-flow"];
const NAMES: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const Q_WEIGHTS: u64 = 128 * 128;
const NEGATIVE_ZERO: u16 = 0x8000;

/// Header and data of a shard.
fn shard(path: &Path) -> (Value, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..end]).unwrap(), bytes[end..].to_vec())
}

fn range(entry: &Value) -> std::ops::Range<usize> {
    let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
    at(0)..at(1)
}

/// Changes the 16-bit elements of all tensors whose names end like this, and their dtype.
fn edit(work: &Work, name: &str, dtype: &str, change: impl Fn(usize, u16) -> u16) {
    for path in NAMES.map(|name| work.path("demo").join(name)) {
        let (mut header, mut data) = shard(&path);
        for (_, entry) in header.as_object_mut().unwrap().iter_mut().filter(|e| e.0.ends_with(name))
        {
            entry["dtype"] = dtype.into();
            for (at, bytes) in data[range(entry)].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *bytes = change(at, u16::from_le_bytes(*bytes)).to_le_bytes();
            }
        }
        fs::write(path, [with_length(header.to_string()), data].concat()).unwrap();
    }
}

/// The elements of the first q_proj.
fn q_weights(dir: &Path) -> Vec<u16> {
    let (header, data) = shard(&dir.join(NAMES[0]));
    let (elements, _) = data[range(&header[Q])].as_chunks::<2>();
    elements.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect()
}

/// Prunes `demo`; run, audit and verification agree. Returns the run and the audit.
fn prune(work: &Work, options: &str) -> (Value, Value) {
    let prune = format!("prune demo --out out --force {options} --format json");
    let run = work.json(&prune);
    let audit = work.json("audit out --against demo --format json");
    assert_eq!(audit["denominator_correct"], true, "{options}");
    assert_eq!(audit["pruned"]["elements"], run["pruned"]["of_target"]["part"], "{options}");
    assert_eq!(audit["changed"]["elements"], run["refitted"], "{options}");
    work.ok("verify demo out");
    (run, audit)
}

#[test]
fn dead_inputs_are_part_of_the_requested_share() {
    let work = work();
    // 40 % of the inputs of q, k, v, gate and up are zero for every token.
    edit(&work, "layernorm.weight", "BF16", |at, bits| if at < 51 { 0 } else { bits });
    for method in CALIBRATED {
        for percent in [10, 50, 90] {
            let options =
                format!("--method {method} --sparsity {} {CALIBRATION}", percent as f64 / 100.0);
            let (run, audit) = prune(&work, &options);
            // More die where whole rows are pruned.
            assert!(run["dead_inputs"].as_u64() >= Some(5 * 5 * 51), "{options}");
            for tensor in audit["tensors"].as_array().unwrap() {
                let [zero, all] = ["zero", "elements"].map(|name| tensor[name].as_u64().unwrap());
                let wanted = (all as f64 * percent as f64 / 100.0).round() as u64;
                assert_eq!(zero, wanted, "{options}: {}", tensor["name"]);
            }
        }
        let allocated = format!("--method {method} --sparsity 0.5 --allocation flow {CALIBRATION}");
        let (_, audit) = prune(&work, &allocated);
        assert_eq!(audit["zero"]["of_target"]["share"], 0.5, "{allocated}");
        let (_, audit) = prune(&work, &format!("--method {method} --pattern 2:4 {CALIBRATION}"));
        assert_eq!(audit["zero"]["of_target"]["share"], 0.5, "{method}");
        let strict = format!(
            "prune demo --out strict --method {method} --sparsity 0.5 --strict {CALIBRATION}"
        );
        work.fails(2, &strict, &["51 of 128 inputs are always zero"]);
        work.nothing_was_written("strict");
    }
}

#[test]
fn an_update_that_leaves_the_range_of_the_dtype_is_refused() {
    let work = work();
    // All tokens have the same embedding, so that the first inputs are collinear: a weight has to carry what others
    // carried.
    edit(&work, "embed_tokens.weight", "BF16", |at, _| 0x3f80 + (at % 128) as u16);
    // 60,000 in F16.
    edit(&work, Q, "F16", |_, _| 0x7b53);
    for method in ["sparsegpt", "activation-flow"] {
        for amount in ["--sparsity 0.5", "--pattern 2:4"] {
            let run = format!("prune demo --out out --method {method} {amount} {CALIBRATION}");
            let needles =
                [Q, "within the range of F16", "of 16384 beyond it", "convert the model to BF16"];
            work.fails(2, &run, &needles);
            work.nothing_was_written("out");
        }
    }
    // A method that updates nothing does not leave the range, nor does BF16 (60,160).
    prune(&work, &format!("--method wanda --sparsity 0.5 {CALIBRATION}"));
    edit(&work, Q, "BF16", |_, _| 0x476b);
    let (_, audit) = prune(&work, &format!("--method sparsegpt --sparsity 0.5 {CALIBRATION}"));
    assert_eq!(audit["zero"]["of_target"]["share"], 0.5);
}

#[test]
fn weights_that_are_too_small_for_the_dtype_do_not_become_zeros() {
    let work = work();
    // One to three times the smallest F16, of both signs.
    edit(&work, Q, "F16", |at, _| (1 + at % 3) as u16 | if at % 7 < 3 { 0x8000 } else { 0 });
    for method in CALIBRATED {
        for sparsity in [0.1, 0.5] {
            let options = format!("--method {method} --sparsity {sparsity} {CALIBRATION}");
            prune(&work, &options);
            let after = q_weights(&work.path("out"));
            let zeros = after.iter().filter(|bits| **bits & 0x7fff == 0).count();
            let wanted = (Q_WEIGHTS as f64 * sparsity).round();
            assert_eq!(zeros as f64, wanted, "{options}");
        }
    }
}

#[test]
fn negative_zeros_count_as_zero_before_and_keep_their_bits() {
    let work = work();
    edit(&work, Q, "BF16", |at, bits| if at % 10 < 3 { NEGATIVE_ZERO } else { bits });
    let before = q_weights(&work.path("demo"));
    let negative = before.iter().filter(|bits| **bits == NEGATIVE_ZERO).count() as u64;
    let magnitude =
        ["--method magnitude", "--method magnitude --scope model", "--method magnitude-flow"];
    let wanda = format!("--method wanda {CALIBRATION}");
    for method in magnitude.into_iter().chain([&wanda[..]]) {
        let (run, audit) = prune(&work, &format!("{method} --sparsity 0.5"));
        let target = audit["target"]["elements"].as_u64().unwrap();
        assert_eq!(audit["zero"]["of_target"]["part"], target / 2, "{method}");
        assert_eq!(run["pruned"]["of_target"]["part"], target / 2 - negative, "{method}");
        assert_eq!(audit["already_zero"]["elements"], negative, "{method}");
        assert_eq!(audit["sign_bit_zero"]["elements"], negative, "{method}");
        let after = q_weights(&work.path("out"));
        let same = before.iter().zip(&after).filter(|(old, _)| **old == NEGATIVE_ZERO);
        assert!(same.into_iter().all(|(old, new)| old == new), "{method}");
    }
    // More zeros than asked for stay, and nothing else goes. Methods that refit choose other zeros, as many.
    for method in CALIBRATED {
        let (run, audit) = prune(&work, &format!("--method {method} --sparsity 0.1 {CALIBRATION}"));
        let q = audit["tensors"].as_array().unwrap().iter().find(|t| t["name"] == Q).unwrap();
        assert_eq!((&q["zero"], &q["pruned"]), (&negative.into(), &0.into()), "{method}: {run}");
        let (_, audit) = prune(&work, &format!("--method {method} --sparsity 0.5 {CALIBRATION}"));
        assert_eq!(audit["zero"]["of_target"]["share"], 0.5, "{method}");
    }
}

#[test]
fn pack_says_that_negative_zeros_are_stored() {
    let work = work();
    work.ok("prune demo --out half --sparsity 0.5");
    let plain = work.json("pack half --out plain.physpack --format json");
    assert_eq!(plain["negative_zeros"], Value::Null);
    // The zeros of one tensor are -0.0.
    fs::rename(work.path("half"), work.path("whole")).unwrap();
    fs::remove_dir_all(work.path("demo")).unwrap();
    fs::rename(work.path("whole"), work.path("demo")).unwrap();
    edit(&work, Q, "BF16", |_, bits| if bits == 0 { NEGATIVE_ZERO } else { bits });
    let zeros = q_weights(&work.path("demo")).iter().filter(|b| **b == NEGATIVE_ZERO).count();
    let summary = work.ok("pack demo --out signed.physpack");
    let note = format!("{zeros} weights in 1 tensor are -0.0");
    assert!(summary.replace(',', "").contains(&note), "{summary}");
    let json = work.json("pack demo --out again.physpack --format json");
    assert_eq!(json["negative_zeros"], serde_json::json!({"tensors": 1, "elements": zeros}));
    work.ok("unpack signed.physpack --out back");
    for name in NAMES {
        let read = |dir: &str| fs::read(work.path(dir).join(name)).unwrap();
        assert!(read("demo") == read("back"), "{name}");
    }
    let eval = |model: &str| {
        let eval = format!("eval {model} --text text.txt --window 256 --format json");
        work.json(&eval)["mean_nll_nats"].clone()
    };
    assert_eq!(eval("demo"), eval("signed.physpack"));
    assert_eq!(eval("demo"), eval("plain.physpack"));
}
