//! The index of a sharded checkpoint. Input: its text, beside two shards.
//!
//! Every tensor that an accepted index lists is in the shard that it names, and each has a decision.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use physarium::checkpoint::{Checkpoint, Error, Selection, TargetPlan};
use physarium_fuzz::{read_twice, scratch, write_model, write_seeds};
use serde_json::Value;

const INDEX: &str = "model.safetensors.index.json";

static MODEL: OnceLock<PathBuf> = OnceLock::new();

fn model() -> &'static PathBuf {
    MODEL.get_or_init(|| {
        let dir = scratch("index");
        write_model(&dir);
        // An index may name fewer shards than there are: each has a layer of its own here.
        dir
    })
}

fn seeds() {
    let index = fs::read(model().join(INDEX)).expect("the fixture's index");
    let first = "model-00001-of-00002.safetensors";
    let mut value: Value = serde_json::from_slice(&index).expect("JSON");
    let listed = value["weight_map"].as_object_mut().expect("an object");
    listed.retain(|_, shard| shard == first);
    write_seeds(&[
        ("both", index),
        ("first", value.to_string().into_bytes()),
        ("wrong", format!(r#"{{"metadata": {{"total_size": 1e3}}, "weight_map": {{"lm_head.weight": "{first}"}}}}"#).into()),
        ("path", br#"{"weight_map": {"a": "../x.safetensors"}, "x": [null, {"a": 1}]}"#.to_vec()),
    ]);
}

fuzz_target!(init: seeds(), |data: &[u8]| {
    let dir = model();
    fs::write(dir.join(INDEX), data).expect("the index is written");
    let open = || {
        let checkpoint = Checkpoint::open(dir)?;
        let plan = TargetPlan::new(&checkpoint, &Selection::default())?;
        let places: Vec<(String, String)> =
            checkpoint.tensors().map(|(s, t)| (t.name.clone(), s.name.clone())).collect();
        let warnings: Vec<String> = checkpoint.warnings().iter().map(ToString::to_string).collect();
        Ok::<_, Error>((places, warnings, plan.targets().count()))
    };
    let Some((places, warnings, targets)) = read_twice(open) else { return };
    assert!(targets <= places.len());
    let index: Value = serde_json::from_slice(data).expect("JSON, if it is accepted");
    for (tensor, shard) in index["weight_map"].as_object().expect("an object, if it is accepted") {
        let found = places.iter().find(|(name, _)| name == tensor);
        assert_eq!(found.map(|(_, place)| place.as_str()), shard.as_str(), "{tensor}");
    }
    for warning in warnings {
        assert!(!warning.chars().any(char::is_control), "{warning:?}");
    }
});
