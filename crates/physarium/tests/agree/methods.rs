//! For every method: audit, verification and a plain loop agree; threads, shards and order change nothing.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use physarium::audit::Base;
use physarium::checkpoint::{Checkpoint, NonFinite, Recipe};
use physarium::{Cancel, Options, Output, Silent, Surgery};
use physarium_fixtures::with_length;
use serde_json::Value;

use super::{
    Work, audit_of, audit_with, by_tensor, counted, files, findings, methods, prune, recipe,
    tensors,
};

#[test]
fn pruned_audited_and_verified_for_every_method() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 3);
    for (name, method) in methods() {
        let out = work.path(&format!("out-{name}"));
        prune(&model, &out, method, 2);
        assert_eq!(findings(&model, &out), [""; 0], "{name}");
        let against = audit_of(&out, Some(&model));
        assert!(against.denominator_correct, "{name}: {:#?}", against.identities);
        assert_eq!(against.changed.as_ref().unwrap().elements, 0);
        let alone = audit_of(&out, None);
        assert!(alone.denominator_correct && alone.base == Base::Journal, "{name}");
        assert_eq!(alone.pruned, against.pruned, "{name}");
        let (before, after) = (by_tensor(&model), by_tensor(&out));
        for tensor in &against.tensors {
            let (before, after) = (&before[&tensor.name], &after[&tensor.name]);
            let counted = counted(before, after, tensor.dtype);
            let found = [
                tensor.zero,
                tensor.pruned.unwrap(),
                tensor.already_zero.unwrap(),
                tensor.sign_bit_zero.unwrap(),
                tensor.changed.unwrap(),
            ];
            assert_eq!(found, counted, "{name} {}", tensor.name);
            assert_eq!(tensor.processed, Some(tensor.elements));
        }
        for projection in &against.projections {
            let inside = against.tensors.iter().filter(|t| t.role == projection.projection);
            let (elements, pruned) = inside.fold((0, 0), |(elements, pruned), tensor| {
                (elements + tensor.elements, pruned + tensor.pruned.unwrap())
            });
            assert_eq!((projection.elements, projection.pruned), (elements, Some(pruned)));
        }
        let sum: u64 = against.tensors.iter().map(|t| t.pruned.unwrap()).sum();
        assert!(sum > 0 && against.pruned.as_ref().unwrap().elements == sum, "{name}");
        assert_eq!(audit_with(&out, Some(&model), 1), against, "{name} on one thread");
        assert_eq!(audit_with(&out, None, 1), alone, "{name} on one thread");
        assert!(!out.join("pytorch_model.bin").exists() && out.join("extra/notes.txt").exists());
    }
}

/// Rewrites every header of a checkpoint with its keys in reverse order; the data is unchanged.
fn reverse_keys(dir: &Path) {
    for shard in Checkpoint::open(dir).unwrap().shards() {
        let bytes = fs::read(&shard.path).unwrap();
        let (header, data) = bytes.split_at(shard.data_begin as usize);
        let entries: serde_json::Map<String, Value> = serde_json::from_slice(&header[8..]).unwrap();
        let reversed: serde_json::Map<String, Value> = entries.into_iter().rev().collect();
        let reversed = with_length(Value::Object(reversed).to_string());
        assert_ne!(reversed, header);
        fs::write(&shard.path, [&reversed, data].concat()).unwrap();
    }
}

#[test]
fn threads_sharding_and_order_change_no_weight() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    let mut backwards = tensors();
    backwards.reverse();
    let others = [
        ("single", work.model("single", &tensors(), 1)),
        ("five", work.model("five", &tensors(), 5)),
        ("backwards", work.model("backwards", &backwards, 3)),
        ("keys", work.model("keys", &tensors(), 2)),
    ];
    reverse_keys(&work.path("keys"));
    for (name, method) in methods() {
        let out = |suffix: &str| work.path(&format!("{name}-{suffix}"));
        prune(&model, &out("1"), method, 1);
        let files_of_one = files(&out("1"));
        for threads in [2, 8] {
            let other = out(&threads.to_string());
            prune(&model, &other, method, threads);
            assert!(files(&other) == files_of_one, "{name} on {threads} threads");
        }
        let expected = by_tensor(&out("1"));
        for (suffix, other) in &others {
            prune(other, &out(suffix), method, 2);
            assert!(by_tensor(&out(suffix)) == expected, "{name}, {suffix}");
            assert_eq!(findings(other, &out(suffix)), [""; 0], "{name}, {suffix}");
        }
    }
}

#[test]
fn pruning_again_at_the_same_sparsity_changes_nothing() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    for (name, method) in methods().into_iter().filter(|(name, _)| !name.contains("flow")) {
        let (once, twice) = (work.path(&format!("{name}-1")), work.path(&format!("{name}-2")));
        prune(&model, &once, method, 2);
        prune(&once, &twice, method, 2);
        assert!(by_tensor(&once) == by_tensor(&twice), "{name}");
    }
}

#[test]
fn weights_that_are_not_finite_are_counted() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    let name = "model.layers.8.mlp.up_proj.weight";
    let checkpoint = Checkpoint::open(&model).unwrap();
    let (shard, tensor) = checkpoint.tensors().find(|(_, t)| t.name == name).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&shard.path).unwrap();
    // Infinity, minus infinity and a NaN of F16.
    file.write_all_at(&[0, 0x7c, 0, 0xfc, 1, 0x7c], tensor.begin + 10).unwrap();
    for (index, (_, method)) in methods().into_iter().enumerate() {
        let out = work.path(&format!("out-{index}"));
        let keep = Recipe { non_finite: NonFinite::Keep, ..recipe(method) };
        let surgery = Surgery::plan(&model, keep, Options::default()).unwrap();
        let summary = surgery.prune(Output::new(&out), &Cancel::default(), &mut Silent).unwrap();
        assert_eq!(summary.totals.non_finite, 3);
        assert_eq!(findings(&model, &out), [""; 0]);
        assert!(audit_of(&out, Some(&model)).denominator_correct);
    }
}
