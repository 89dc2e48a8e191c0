//! Copies in another element type are compared by value.

use physarium_audit::{Audit, Base, markdown, text};
use physarium_fixtures::{Kind, Tensor};

use super::{Models, audit_of, is_projection, llama, weight};

/// Weights of the targets.
const TARGET: u64 = 2 * (2 * 16 * 16 + 2 * 8 * 16 + 3 * 32 * 16);
/// Weights of the other tensors.
const OTHERS: u64 = 2 * 64 * 16 + 5 * 16;

/// Half of each projection's weights set to zero.
fn halved(name: &str, at: u64) -> f32 {
    if is_projection(name) && at.is_multiple_of(2) { 0.0 } else { weight(name, at) }
}

fn elements(audit: &Audit) -> [u64; 4] {
    let count = |count: &Option<physarium_audit::Changed>| count.as_ref().unwrap().elements;
    [
        audit.zero.elements,
        audit.pruned.as_ref().unwrap().elements,
        count(&audit.zero_before),
        count(&audit.changed),
    ]
}

#[test]
fn every_pair_of_float_types_is_compared_by_value() {
    let models = Models::new();
    let kinds = [Kind::Bf16, Kind::F16, Kind::F32];
    for kind in kinds {
        models.write(&format!("dense-{}", kind.name()), &llama(kind), weight);
        models.write(&format!("half-{}", kind.name()), &llama(kind), halved);
    }
    for here in kinds.map(Kind::name) {
        for there in kinds.map(Kind::name) {
            let original = models.path(&format!("dense-{there}"));
            let found = audit_of(&models.path(&format!("half-{here}")), Some(&original));
            assert_eq!(found.base, Base::Original);
            assert_eq!(elements(&found), [TARGET / 2, TARGET / 2, 0, 0], "{here} of {there}");
            assert!(found.denominator_correct, "{:#?}", found.identities);
            assert_eq!((found.untouched.elements, found.untouched.tensors), (OTHERS, 7));
            assert!(found.untouched.compared && found.untouched.differing.is_empty());
            let note =
                format!("21 tensors: {here} here, {there} in the original: compared by value");
            let expected = if here == there { vec![] } else { vec![note] };
            assert_eq!((found.warnings, found.unrelated), (expected, None));
            let converted = found.pruned_by_conversion.map(|count| count.elements);
            assert_eq!(converted, (here != there).then_some(0));
            // A copy that only has another type was not processed.
            let copied = audit_of(&models.path(&format!("dense-{here}")), Some(&original));
            assert_eq!(elements(&copied), [0, 0, 0, 0]);
            assert_eq!(copied.processed.unwrap().elements, 0);
        }
    }
}

#[test]
fn changed_weights_of_a_copy_are_counted_and_changed_tensors_named() {
    let models = Models::new();
    let base = models.write("base", &llama(Kind::Bf16), weight);
    let copy = models.write("copy", &llama(Kind::F16), |name, at| match (name, at) {
        ("model.layers.1.mlp.up_proj.weight", 5 | 9) => 0.375 + weight(name, at),
        ("model.norm.weight", 3) => 4.0,
        _ => weight(name, at),
    });
    let found = audit_of(&copy, Some(&base));
    assert_eq!(elements(&found), [0, 0, 0, 2]);
    assert_eq!(found.untouched.differing, ["model.norm.weight"]);
    let note = "1 tensor that is no target differs from the original: model.norm.weight";
    assert!(found.warnings.iter().any(|warning| warning == note), "{:?}", found.warnings);
    assert_eq!(found.processed.unwrap().tensors, 1);
}

#[test]
fn tensors_that_are_no_targets_and_differ_are_named_in_every_text() {
    let models = Models::new();
    let base = models.write("base", &llama(Kind::Bf16), weight);
    let copy = models.write("copy", &llama(Kind::Bf16), |name, at| match name {
        "model.embed_tokens.weight" => 0.0,
        name if name.contains("layernorm") && at == 3 => 4.0,
        _ => halved(name, at),
    });
    let found = audit_of(&copy, Some(&base));
    let first = "model.embed_tokens.weight, model.layers.0.input_layernorm.weight, \
                 model.layers.0.post_attention_layernorm.weight";
    let note =
        format!("5 tensors that are no targets differ from the original: {first} and 2 more");
    assert_eq!(found.warnings, [note.as_str()]);
    assert!(found.denominator_correct && found.untouched.differing.len() == 5);
    assert!(text(&found).contains(&format!("note: {note}\n")), "{}", text(&found));
    let markdown = markdown(&found).replace("\\_", "_");
    assert!(markdown.contains(&format!("\nNote: {note}\n")), "{markdown}");
}

#[test]
fn values_out_of_range_are_told_from_pruned_ones() {
    let models = Models::new();
    let name = "model.layers.0.mlp.up_proj.weight";
    let norm = "model.norm.weight";
    let tensors = |kind| [Tensor::new(name, kind, &[2, 4]), Tensor::new(norm, kind, &[2])];
    let (tiny, huge) = (2f32.powi(-30), 2f32.powi(20));
    // 2⁻³⁰ is zero in F16, 2²⁰ infinite; the test's writer knows neither.
    let before = [tiny, tiny, huge, huge, 0.0, 0.0, 1.0, 1.0];
    let now = [0.0, 1.0, 65_536.0, 0.0, 0.0, 1.0, 1.0, 0.0];
    let base = models.write("base", &tensors(Kind::Bf16), |n, at| match n {
        _ if n == name => before[at as usize],
        _ => tiny,
    });
    let copy = models.write("copy", &tensors(Kind::F16), |n, at| match n {
        _ if n == name => now[at as usize],
        _ => 0.0,
    });
    let found = audit_of(&copy, Some(&base));
    // Zero now: 4 = 3 pruned + 2 zero before - 1 no longer.
    assert_eq!(elements(&found), [4, 3, 2, 3]);
    assert_eq!(found.pruned_by_conversion.as_ref().unwrap().elements, 1);
    assert_eq!(found.no_longer_zero.as_ref().unwrap().elements, 1);
    assert!(found.denominator_correct && found.untouched.differing.is_empty());
    let note = "2 tensors: F16 here, BF16 in the original: compared by value; 1 weight is beyond \
                the range of F16: infinite here";
    assert_eq!(found.warnings, [note]);
    let said = text(&found);
    assert!(said.contains("\n  of these by conversion "), "{said}");
}

#[test]
fn zeros_now_are_the_sum_of_three_in_every_text() {
    let models = Models::new();
    let name = "model.layers.0.mlp.up_proj.weight";
    let tensors = [Tensor::new(name, Kind::Bf16, &[2, 4])];
    let of = |values: [f32; 8]| move |_: &str, at: u64| values[at as usize];
    let base = models.write("base", &tensors, of([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]));
    let out = models.write("out", &tensors, of([0.0, -0.0, 2.0, 0.0, 0.0, 1.0, 1.0, 3.0]));
    let found = audit_of(&out, Some(&base));
    assert_eq!(elements(&found), [4, 2, 3, 2]);
    let count = |count: &Option<physarium_audit::Changed>| count.as_ref().unwrap().elements;
    assert_eq!((count(&found.already_zero), count(&found.no_longer_zero)), (2, 1));
    let says = "zero now = pruned + zero before - no longer zero";
    let identity = found.identities.iter().find(|identity| identity.says == says).unwrap();
    assert!(identity.holds && identity.left == 4, "{identity:?}");
    let (said, tables) = (text(&found), markdown(&found));
    for (row, n) in [("zero now", 4), ("pruned", 2), ("zero before", 3), ("no longer zero", 1)] {
        let line = said.lines().find(|line| line.starts_with(&format!("{row} "))).unwrap();
        assert_eq!(
            line.split_whitespace().rev().find(|w| w.len() == 1 && *w != "%"),
            Some(&*n.to_string())
        );
        assert!(tables.contains(&format!("\n| {row} |  | {n} |")), "{row}: {tables}");
    }
    // Nothing is revived here, and the row is not there.
    let back = audit_of(&base, Some(&base));
    assert_eq!(elements(&back), [3, 0, 3, 0]);
    assert!(!text(&back).contains("no longer zero"), "{}", text(&back));
    let identity = back.identities.iter().find(|identity| identity.says.starts_with("zero now"));
    assert_eq!(identity.unwrap().says, "zero now = pruned + zero before");
}
