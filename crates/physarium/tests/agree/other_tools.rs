//! The audit of a model that another tool pruned.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use physarium::audit::{Base, verify};
use physarium_fixtures::{Fill, Kind, Tensor, llama_tensors, write_checkpoint};

use super::{Work, audit_of, audit_with, by_tensor, counted, findings};

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

fn llama() -> Vec<Tensor> {
    llama_tensors(Kind::Bf16, 2, [32, 16, 40])
}

/// `model` as another tool could save it: in one file, with half of a projection set to -0.0, one norm and one weight
/// changed, and one tensor missing.
fn pruned_elsewhere(work: &Work, model: &Path) -> PathBuf {
    let mut tensors = by_tensor(model);
    for weight in tensors.get_mut(Q).unwrap().chunks_mut(2).take(512) {
        weight.copy_from_slice(&[0, 0x80]);
    }
    tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap()[..2].copy_from_slice(&[1, 0x42]);
    tensors.get_mut("model.norm.weight").unwrap()[0] ^= 1;
    tensors.remove("model.layers.1.input_layernorm.weight");
    let shapes: BTreeMap<String, Vec<u64>> =
        llama().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    let list: Vec<Tensor> =
        tensors.keys().map(|name| Tensor::new(name, Kind::Bf16, &shapes[name])).collect();
    let other = work.path("other");
    fs::create_dir(&other).unwrap();
    let data: Vec<u8> = tensors.values().flatten().copied().collect();
    let file = [physarium_fixtures::header(&list), data].concat();
    fs::write(other.join("model.safetensors"), file).unwrap();
    other
}

#[test]
fn a_model_that_another_tool_pruned_is_audited() {
    let work = Work::new();
    let model = work.model("model", &llama(), 2);
    let other = pruned_elsewhere(&work, &model);
    let found = audit_of(&other, Some(&model));
    assert!(found.denominator_correct, "{:#?}", found.identities);
    assert_eq!(found, audit_with(&other, Some(&model), 1));
    assert_eq!((found.base, found.tiles), (Base::Original, None));
    // Compare every target with a plain loop.
    let (before, after) = (by_tensor(&model), by_tensor(&other));
    let mut sums = [0; 5];
    for target in &found.tensors {
        let counted = counted(&before[&target.name], &after[&target.name], target.dtype);
        let of_audit = [
            target.zero,
            target.pruned.unwrap(),
            target.already_zero.unwrap(),
            target.sign_bit_zero.unwrap(),
            target.changed.unwrap(),
        ];
        assert_eq!(of_audit, counted, "{}", target.name);
        sums.iter_mut().zip(counted).for_each(|(sum, n)| *sum += n);
        // A target counts as processed if it differs.
        let differs = before[&target.name] != after[&target.name];
        assert_eq!(target.processed, Some(if differs { target.elements } else { 0 }));
    }
    let audited = [
        found.zero.elements,
        found.pruned.as_ref().unwrap().elements,
        found.already_zero.as_ref().unwrap().elements,
        found.sign_bit_zero.as_ref().unwrap().elements,
        found.changed.as_ref().unwrap().elements,
    ];
    assert_eq!(audited, sums);
    assert!(sums[3] >= 512 && sums[4] == 1, "{sums:?}");
    assert_eq!(found.untouched.differing, ["model.norm.weight"]);
    let processed = found.processed.as_ref().unwrap();
    assert_eq!((processed.tensors, processed.elements), (2, 32 * 32 + 40 * 32));
    let lost = "1 tensor is in the original, not in this checkpoint (0.14 % of its elements): \
                model.layers.1.input_layernorm.weight";
    let differs = "1 tensor that is no target differs from the original: model.norm.weight";
    let sizes =
        "the model has 22,144 elements, the original 22,176; shares of the model are of the former";
    assert_eq!(found.warnings, [differs, lost, sizes]);
    let alone = audit_of(&other, None);
    assert_eq!((alone.base, alone.pruned, alone.processed), (Base::None, None, None));
    assert_eq!((alone.zero, alone.sign_bit_zero), (found.zero, found.sign_bit_zero));
    // It has no records of physarium: verify reports that as a finding.
    let unrelated = verify(&model, &other, &mut |_| Ok(())).unwrap().unrelated.unwrap();
    assert!(unrelated.contains("not an output of prune"), "{unrelated}");
    let said = findings(&model, &other);
    assert!(said.iter().any(|f| f.contains("physarium.journal.jsonl")), "{said:?}");
}

#[test]
fn a_target_with_another_shape_in_the_original_cannot_be_compared() {
    let work = Work::new();
    let model = work.model("model", &llama(), 2);
    let wider = work.path("wider");
    let mut list = llama();
    list.iter_mut().find(|tensor| tensor.name == Q).unwrap().shape = vec![16, 64];
    write_checkpoint(&wider, &list, 1, Fill::Gaussian(5)).unwrap();
    let found = audit_of(&wider, Some(&model));
    // Its counts are unknown, and nothing is claimed of it.
    assert_eq!((found.pruned, found.processed), (None, None));
    let expected = format!(
        "1 tensor cannot be compared, another shape in the original: {Q} ([16, 64] here, [32, 32] there)"
    );
    assert_eq!(found.warnings, [expected]);
}
