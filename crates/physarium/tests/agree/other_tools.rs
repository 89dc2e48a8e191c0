//! The audit of a model that another tool pruned.

use std::collections::BTreeMap;
use std::fs;

use physarium::audit::Base;
use physarium_fixtures::{Fill, Kind, Tensor, llama_tensors, write_checkpoint};

use super::{Work, audit_of, audit_with, by_tensor, counted, findings};

#[test]
fn a_model_that_another_tool_pruned_is_audited() {
    let work = Work::new();
    let model = work.model("model", &llama_tensors(Kind::Bf16, 2, [32, 16, 40]), 2);
    // Re-saved in one file, half of one projection zeroed as -0.0, one norm changed, one weight
    // changed otherwise, one tensor lost.
    let mut tensors = by_tensor(&model);
    let q = "model.layers.0.self_attn.q_proj.weight";
    for weight in tensors.get_mut(q).unwrap().chunks_mut(2).take(512) {
        weight.copy_from_slice(&[0, 0x80]);
    }
    tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap()[..2].copy_from_slice(&[1, 0x42]);
    tensors.get_mut("model.norm.weight").unwrap()[0] ^= 1;
    tensors.remove("model.layers.1.input_layernorm.weight");
    let shapes: BTreeMap<String, Vec<u64>> =
        llama_tensors(Kind::Bf16, 2, [32, 16, 40]).into_iter().map(|t| (t.name, t.shape)).collect();
    let list: Vec<Tensor> =
        tensors.keys().map(|name| Tensor::new(name, Kind::Bf16, &shapes[name])).collect();
    let other = work.path("other");
    fs::create_dir(&other).unwrap();
    let data: Vec<u8> = tensors.values().flatten().copied().collect();
    let file = [physarium_fixtures::header(&list), data].concat();
    fs::write(other.join("model.safetensors"), file).unwrap();

    let found = audit_of(&other, Some(&model));
    assert!(found.denominator_correct, "{:#?}", found.identities);
    assert_eq!(found, audit_with(&other, Some(&model), 1));
    assert_eq!((found.base, found.tiles), (Base::Original, None));
    // Every target against a plain loop.
    let before = by_tensor(&model);
    let mut sums = [0; 5];
    for target in &found.tensors {
        let counted = counted(&before[&target.name], &tensors[&target.name], target.dtype);
        let of_audit = [
            target.zero,
            target.pruned.unwrap(),
            target.already_zero.unwrap(),
            target.sign_bit_zero.unwrap(),
            target.changed.unwrap(),
        ];
        assert_eq!(of_audit, counted, "{}", target.name);
        sums.iter_mut().zip(counted).for_each(|(sum, n)| *sum += n);
        // Processed by difference: it differs, so it was processed.
        let differs = before[&target.name] != tensors[&target.name];
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
    let lost = "model.layers.1.input_layernorm.weight: in the original, not in this checkpoint";
    assert!(found.warnings.iter().any(|w| w.contains(lost)), "{:?}", found.warnings);
    let alone = audit_of(&other, None);
    assert_eq!((alone.base, alone.pruned, alone.processed), (Base::None, None, None));
    assert_eq!((alone.zero, alone.sign_bit_zero), (found.zero, found.sign_bit_zero));
    // Nothing of it is physarium's: verify says so rather than failing.
    let said = findings(&model, &other);
    assert!(said.iter().any(|f| f.contains("physarium.journal.jsonl")), "{said:?}");

    // A target that the original has in another shape cannot be compared: the count is unknown.
    let wider = work.path("wider");
    let mut list = llama_tensors(Kind::Bf16, 2, [32, 16, 40]);
    list.iter_mut().find(|tensor| tensor.name == q).unwrap().shape = vec![16, 64];
    write_checkpoint(&wider, &list, 1, Fill::Gaussian(5)).unwrap();
    let found = audit_of(&wider, Some(&model));
    assert_eq!((found.pruned, found.processed.unwrap().tensors), (None, 1));
    assert!(found.warnings.iter().any(|w| w.contains(q) && w.contains("cannot be compared")));
}
