//! An original that is none, and notes on one that fits in part.

use std::fs;

use physarium_audit::{Verdict, markdown, text, verify};
use physarium_fixtures::{Kind, Tensor, llama_tensors};

use super::{Models, audit_of, is_projection, llama, weight};

/// Asserts that audit and verification say this sentence, and nothing else.
#[track_caller]
fn assert_unrelated(models: &Models, [out, base]: [&str; 2], audited: &str, verified: &str) {
    let [out, base] = [out, base].map(|name| models.path(name));
    let found = audit_of(&out, Some(&base));
    let sentence = found.unrelated.as_deref().unwrap_or_else(|| panic!("{}", text(&found)));
    assert!(sentence.contains(audited), "{sentence}");
    assert!(sentence.contains(&*base.to_string_lossy()), "{sentence}");
    assert_eq!(text(&found).lines().next(), Some(sentence));
    assert!(markdown(&found).contains(sentence) && found.warnings.is_empty());
    let judged = models.claim("target", "50 %", "model", &found);
    assert_eq!(
        (judged.verdict, judged.reason.as_deref()),
        (Verdict::CannotBeJudged, Some(sentence))
    );
    let result = verify(&base, &out, &mut |_| Ok(())).unwrap();
    assert!(!result.is_proven());
    let sentence = result.unrelated.unwrap();
    assert!(sentence.contains(verified), "{sentence}");
}

#[test]
fn a_model_with_other_names_or_shapes_is_no_original() {
    let models = Models::new();
    models.write("out", &llama(Kind::Bf16), weight);
    models.write("wider", &llama_tensors(Kind::Bf16, 2, [32, 8, 32]), weight);
    let said = "is not the original of";
    let all = "21 of 21 tensors have other shapes";
    assert_unrelated(&models, ["out", "wider"], said, all);
    let other: Vec<Tensor> = (0..4)
        .map(|i| Tensor::new(format!("h.{i}.attn.c_attn.weight"), Kind::Bf16, &[4, 4]))
        .collect();
    models.write("gpt2", &other, weight);
    let all = "21 of 21 tensors have other names";
    assert_unrelated(&models, ["out", "gpt2"], all, "4 of 4 tensors have other names");
}

#[test]
fn a_model_with_other_values_is_no_original() {
    let models = Models::new();
    let shifted = |name: &str, at: u64| weight(name, at + 1);
    models.write("out", &llama(Kind::Bf16), |name, at| match at % 2 {
        0 if is_projection(name) => 0.0,
        _ => weight(name, at),
    });
    models.write("other", &llama(Kind::Bf16), shifted);
    let said =
        "or one of them was retrained: 100.00 % of the remaining target weights and 100.00 %";
    // The result has no records of prune.
    assert_unrelated(&models, ["out", "other"], said, "is not an output of prune");
    models.write("f32", &llama(Kind::F32), shifted);
    let dtypes = "21 of 21 tensors have another element type (BF16 here, F32 in the original)";
    assert_unrelated(&models, ["out", "f32"], said, dtypes);
}

#[test]
fn an_original_that_is_quantised_is_named_so() {
    let models = Models::new();
    models.write("out", &llama(Kind::Bf16), weight);
    models.write("fp8", &llama(Kind::Bytes("F8_E4M3")), weight);
    let dtypes = "21 of 21 tensors have another element type";
    assert_unrelated(&models, ["out", "fp8"], "its target tensors are F8_E4M3", dtypes);
    let mut packed = llama(Kind::Bf16);
    for tensor in packed.iter_mut().filter(|tensor| is_projection(&tensor.name)) {
        tensor.name = tensor.name.replace(".weight", ".weight_packed");
        tensor.kind = Kind::Bytes("U8");
    }
    models.write("packed", &packed, weight);
    let said = "14 of 21 tensors have other names (there, 14 projections are stored as \
                compressed-tensors pack-quantized";
    assert_unrelated(&models, ["out", "packed"], said, "14 of 21 tensors have other names");
}

#[test]
fn updated_weights_alone_are_no_other_model() {
    let models = Models::new();
    let base = models.write("base", &llama(Kind::Bf16), weight);
    let refitted = |name: &str, at: u64| match (is_projection(name), at % 2) {
        (true, 0) => 0.0,
        (true, _) => weight(name, at + 1),
        (false, _) => weight(name, at),
    };
    let out = models.write("out", &llama(Kind::Bf16), refitted);
    let found = audit_of(&out, Some(&base));
    assert_eq!((found.unrelated, found.warnings), (None, vec![]));
    let changed = found.changed.unwrap().elements;
    assert_eq!((changed, found.pruned.unwrap().elements), (2304, 2304));
    assert!(found.untouched.differing.is_empty());
}

#[test]
fn notes_are_one_for_each_kind_with_the_first_names_in_natural_order() {
    let models = Models::new();
    let layers = llama_tensors(Kind::Bf16, 12, [16, 8, 32]);
    let base = models.write("base", &layers, weight);
    let mut other = layers;
    other.retain(|tensor| !tensor.name.ends_with(".q_proj.weight"));
    for tensor in &mut other {
        if tensor.name.ends_with("k_proj.weight") {
            tensor.shape.reverse();
        } else if tensor.name.ends_with("input_layernorm.weight") {
            tensor.name = tensor.name.replace("input", "pre");
        } else if tensor.name == "model.norm.weight" {
            tensor.kind = Kind::Bytes("I8");
        }
    }
    let out = models.write("out", &other, weight);
    let found = audit_of(&out, Some(&base));
    let names = |module: &str, more: u64| {
        let name = |layer: u64| format!("model.layers.{layer}.{module}.weight");
        format!("{}, {}, {} and {more} more", name(0), name(1), name(2))
    };
    let k = format!("another shape in the original: {}", names("self_attn.k_proj", 9));
    let norms = format!("not in the original: {}", names("pre_layernorm", 9));
    // Of layers 0 to 2, norms come first.
    let lost = "model.layers.0.input_layernorm.weight, model.layers.0.self_attn.q_proj.weight, \
                model.layers.1.input_layernorm.weight and 21 more";
    let expected = [
        "1 tensor cannot be compared, I8 here, BF16 in the original: model.norm.weight".to_owned(),
        format!("12 tensors cannot be compared, {k} (the first [16, 8] here, [8, 16] there)"),
        format!("12 tensors cannot be compared, {norms}"),
        format!(
            "24 tensors are in the original, not in this checkpoint (10.85 % of its elements): {lost}"
        ),
        "the model has 27,024 elements, the original 30,096; shares of the model are of the former"
            .to_owned(),
    ];
    assert_eq!((found.warnings, found.unrelated), (expected.to_vec(), None));
    assert_eq!((found.pruned, found.processed), (None, None));
    let layers: Vec<u64> = found.tensors.iter().filter_map(|tensor| tensor.layer).collect();
    assert!(layers.is_sorted() && layers.len() == 12 * 6, "{layers:?}");
}

#[test]
fn swapped_directories_are_hinted_at() {
    let models = Models::new();
    let base = models.write("base", &llama(Kind::Bf16), weight);
    let out = models.write("out", &llama(Kind::Bf16), |name, at| match at {
        0 if is_projection(name) => 0.0,
        _ => weight(name, at),
    });
    let hint =
        |warnings: Vec<String>| warnings.iter().any(|w| w.contains("directories are swapped"));
    assert!(!hint(audit_of(&out, Some(&base)).warnings));
    let swapped = audit_of(&base, Some(&out));
    assert_eq!(swapped.no_longer_zero.as_ref().unwrap().elements, 14);
    assert!(hint(swapped.warnings));
    // By its records too.
    fs::write(out.join("physarium.manifest.json"), "{}").unwrap();
    assert!(hint(audit_of(&base, Some(&out)).warnings));
    let unlike = verify(&out, &base, &mut |_| Ok(())).unwrap();
    assert!(!unlike.is_proven() && unlike.unrelated.is_some());
}
