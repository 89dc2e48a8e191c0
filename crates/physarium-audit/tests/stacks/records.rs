//! False records of stacked experts are found, in an audit and in a verification.

use std::fs;

use physarium_audit::Base;
use physarium_fixtures::{Kind, Tensor};
use serde_json::{Value, json};

use super::{DOWN, GATE_UP, SHARD, Stacks, failed};

const RECOUNT: &str = "targets whose recount equals the journal = targets";
const RECORDS: &str = "journal: records consistent with headers and plan = model tensors";

/// Moves pruned weights from one matrix of a record to the next: all sums stay.
fn shift(record: &mut Value) {
    for (at, by) in [(0, -1), (1, 1)] {
        let pruned = &mut record["matrices"][at]["pruned"];
        *pruned = json!(pruned.as_i64().unwrap() + by);
    }
}

#[test]
fn true_records_are_verified() {
    assert_eq!(Stacks::new().findings(), [""; 0]);
}

#[test]
fn counts_moved_between_experts_are_found() {
    let mut stacks = Stacks::new();
    shift(stacks.record(GATE_UP));
    let audit = stacks.audit(Some(&stacks.path("base")));
    assert_eq!(failed(&audit), [RECOUNT]);
    assert_eq!(failed(&stacks.audit(None)), [RECOUNT]);
    let found = stacks.findings();
    assert_eq!(found.len(), 1, "{found:?}");
    let what = "matrix 0: pruned weights and weights zero before, expected 2 and 0, found 3 and 0";
    assert!(found[0].contains(GATE_UP) && found[0].ends_with(what), "{found:?}");
}

#[test]
fn matrices_that_are_not_the_plans_are_found() {
    let changes: [fn(&mut Value); 5] = [
        |matrices| drop(matrices.as_array_mut().unwrap().pop()),
        |matrices| matrices.as_array_mut().unwrap().swap(1, 2),
        |matrices| matrices[3]["expert"] = json!(2),
        |matrices| matrices[3]["map"] = json!("down_proj"),
        |matrices| {
            matrices[0]["elements"] = json!(6);
            matrices[1]["elements"] = json!(18);
        },
    ];
    for change in changes {
        let mut stacks = Stacks::new();
        change(&mut stacks.record(GATE_UP)["matrices"]);
        let from_journal = stacks.audit_from_journal().unwrap();
        assert_eq!(failed(&from_journal), [RECORDS]);
        assert!(from_journal.tensors[1].matrices.is_empty(), "{:?}", from_journal.tensors[1]);
        // The borders of matrices are the plan's, so the counts of the weights are right all the same.
        let audit = stacks.audit(Some(&stacks.path("base")));
        let pruned = audit.tensors[1].matrices.iter().map(|m| m.pruned.unwrap());
        assert_eq!(pruned.collect::<Vec<u64>>(), [3, 6, 1, 4]);
        assert!(failed(&audit).contains(&RECORDS));
        let found = stacks.findings();
        assert!(found.iter().any(|f| f.ends_with("record: differs from headers and recipe")));
    }
}

#[test]
fn counts_of_matrices_beyond_64_bits_are_refused() {
    let mut stacks = Stacks::new();
    for count in ["pruned", "already_zero"] {
        stacks.record(DOWN)["matrices"][0][count] = json!(u64::MAX);
    }
    let error = stacks.audit_from_journal().unwrap_err().to_string();
    assert!(error.contains("fits in 64 bits"), "{error}");
    let audit = stacks.audit(Some(&stacks.path("base")));
    assert_eq!(failed(&audit), ["journal is usable"]);
    assert_eq!(audit.pruned.unwrap().elements, 20);
}

#[test]
fn dead_inputs_are_at_most_the_inputs_of_a_matrix() {
    // `gate_up_proj` stored inputs first has 4 inputs and 6 outputs.
    let stacks = Stacks { dir: tempfile::tempdir().unwrap(), records: Vec::new() };
    let down = Tensor::new(DOWN, Kind::Bf16, &[2, 3, 4]);
    let gate_up = Tensor::new(GATE_UP, Kind::Bf16, &[2, 4, 6]);
    let config = json!({"model_type": "gpt_oss", "hidden_size": 4});
    let mut stacks = stacks.with([down, gate_up], &config);
    let record = stacks.record(GATE_UP).as_object_mut().unwrap();
    record.remove("matrices");
    for (dead_inputs, expected) in [(4, vec![]), (5, vec![RECORDS])] {
        stacks.record(GATE_UP)["dead_inputs"] = json!(dead_inputs);
        assert_eq!(failed(&stacks.audit_from_journal().unwrap()), expected);
    }
}

#[test]
fn zeros_of_a_target_that_the_journal_skips_are_not_pruned_weights() {
    let mut stacks = Stacks::new();
    let record = stacks.record(DOWN).as_object_mut().unwrap();
    record.retain(|field, _| {
        ["record", "name", "shard", "dtype", "shape", "elements", "output_blake3"]
            .contains(&field.as_str())
    });
    record.extend([("status".into(), json!("skipped")), ("reason".into(), json!("none"))]);
    let audit = stacks.audit(None);
    assert_eq!((audit.base, audit.tensors[0].zero), (Base::Journal, 7));
    assert_eq!((audit.tensors[0].pruned, &audit.pruned), (None, &None));
    assert!(failed(&audit).contains(&RECORDS) && failed(&audit).contains(&RECOUNT));
}

#[test]
fn a_recipe_that_does_not_fit_is_a_false_claim_in_the_directory_and_an_error_by_name() {
    let mut stacks = Stacks::new();
    stacks.records[0]["recipe"]["target"] = json!(["other.*"]);
    let audit = stacks.audit(Some(&stacks.path("base")));
    assert_eq!(failed(&audit), ["journal is usable"]);
    assert!(audit.warnings.iter().any(|warning| warning.contains("other.*")));
    assert_eq!(audit.pruned.unwrap().elements, 20);
    let error = stacks.audit_from_journal().unwrap_err().to_string();
    assert!(error.contains("other.*"), "{error}");
}

#[test]
fn refitted_counts_are_compared_for_each_target() {
    let mut stacks = Stacks::new();
    // One weight of each stack is changed; the journal states both in one of them.
    let path = stacks.path("out").join(SHARD);
    let mut bytes = fs::read(&path).unwrap();
    let data = bytes.len() - 2 * (24 + 48 + 4);
    for last in [24, 24 + 48] {
        bytes[data + 2 * last - 2] = 0x81;
    }
    fs::write(&path, bytes).unwrap();
    stacks.record(GATE_UP)["refitted"] = json!(2);
    let audit = stacks.audit(Some(&stacks.path("base")));
    assert_eq!(audit.changed.as_ref().unwrap().elements, 2);
    assert_eq!(failed(&audit), [RECOUNT]);
}

#[test]
fn a_missing_shard_has_no_digest() {
    let stacks = Stacks::new();
    fs::remove_file(stacks.path("out").join(SHARD)).unwrap();
    let found = stacks.findings();
    assert_eq!(found, ["model.safetensors: file is missing from the output"]);
}

#[test]
fn a_weight_that_is_neither_the_input_nor_zero_is_named() {
    let stacks = Stacks::new();
    let path = stacks.path("out").join(SHARD);
    let mut bytes = fs::read(&path).unwrap();
    let data = bytes.len() - 2 * (24 + 48 + 4);
    bytes[data + 2 * (24 + 47)] = 0x81;
    fs::write(&path, bytes).unwrap();
    let found = stacks.findings();
    let offset = data + 2 * (24 + 47);
    let what = format!("weight 47 is neither the input value nor +0.0 (byte offset {offset})");
    assert!(found.iter().any(|f| f.contains(GATE_UP) && f.ends_with(&what)), "{found:?}");
}
