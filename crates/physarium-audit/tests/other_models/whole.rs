//! What other tools do to a model beside pruning its projections, and what then is said of the whole model.

use std::fs;

use physarium_audit::{Base, Verdict, markdown, text};
use physarium_fixtures::{Kind, Tensor};

use super::{Models, audit_of, is_projection, llama, weight};

/// Weights of the targets, and of the embedding and the head.
const TARGET: u64 = 4_608;
const TABLES: u64 = 2 * 64 * 16;
const MODEL: u64 = TARGET + TABLES + 5 * 16;

/// Every second weight of projections, embedding and head set to zero.
fn all_halved(name: &str, at: u64) -> f32 {
    let is_table = ["model.embed_tokens.weight", "lm_head.weight"].contains(&name);
    let is_zero = (is_projection(name) || is_table) && at.is_multiple_of(2);
    if is_zero { 0.0 } else { weight(name, at) }
}

#[test]
fn pruned_tensors_that_are_no_targets_count_in_the_model() {
    let models = Models::new();
    let base = models.write("base", &llama(Kind::Bf16), weight);
    let copy = models.write("copy", &llama(Kind::Bf16), all_halved);
    let found = audit_of(&copy, Some(&base));
    let outside = found.outside.clone().unwrap();
    assert_eq!(outside.zero.elements, TABLES / 2);
    assert_eq!(outside.pruned.unwrap().elements, TABLES / 2);
    assert_eq!(outside.already_zero.unwrap().elements, 0);
    let percent = |part: u64| format!("{:.2} %", 100.0 * part as f64 / MODEL as f64);
    let all = percent((TARGET + TABLES) / 2);
    for count in ["zero", "pruned"] {
        let judge = |value: &str| models.claim(count, value, "model", &found).verdict;
        assert_eq!(judge(&all), Verdict::Correct, "{count} {all}");
        assert_eq!(judge(&percent(TARGET / 2)), Verdict::Wrong, "{count}");
        assert_eq!(models.claim(count, "50.00 %", "target", &found).verdict, Verdict::Correct);
    }
    for said in [text(&found), markdown(&found)] {
        assert!(said.contains("not targets, changed"), "{said}");
        assert!(said.contains("of these pruned") && said.contains("1,024"), "{said}");
    }
    // Without an original, the zeros of all weights are known.
    let alone = audit_of(&copy, None);
    assert_eq!(alone.base, Base::None);
    let outside = alone.outside.as_ref().unwrap();
    assert_eq!((outside.zero.elements, &outside.pruned), (TABLES / 2, &None));
    assert_eq!(models.claim("zero", &all, "model", &alone).verdict, Verdict::Correct);
}

#[test]
fn a_share_of_the_original_is_told_from_one_of_a_larger_model() {
    let models = Models::new();
    let base = models.write("base", &llama(Kind::Bf16), weight);
    let mut tensors = llama(Kind::Bf16);
    tensors.push(Tensor::new("masks", Kind::Bytes("BOOL"), &[MODEL]));
    let copy = models.write("copy", &tensors, all_halved);
    let found = audit_of(&copy, Some(&base));
    assert_eq!(found.untouched.uncompared, ["masks"]);
    assert_eq!(found.original.as_ref().unwrap().elements, MODEL);
    let share = format!("{:.2} %", 50.0 * (TARGET + TABLES) as f64 / MODEL as f64);
    let claim = models.claim("pruned", &share, "model", &found);
    assert_eq!(
        (claim.verdict, &claim.true_of[..]),
        (Verdict::Denominator, &["original".into()][..])
    );
    assert_eq!(models.claim("pruned", &share, "original", &found).verdict, Verdict::Correct);
    let note =
        "the model has 13,472 elements, the original 6,736; shares of the model are of the former";
    assert!(found.warnings.iter().any(|found| found == note), "{:?}", found.warnings);
    assert!(text(&found).contains("not targets, not comparable"), "{}", text(&found));
}

#[test]
fn names_with_another_prefix_are_paired() {
    let models = Models::new();
    let base = models.write("base", &llama(Kind::Bf16), weight);
    let renamed = |to: &str| {
        let mut tensors = llama(Kind::Bf16);
        for tensor in &mut tensors {
            if let Some(rest) = tensor.name.strip_prefix("model.") {
                tensor.name = format!("{to}{rest}");
            }
        }
        tensors
    };
    for (dir, prefix) in [("bare", ""), ("nested", "model.language_model.")] {
        let named = |name: &str| match name.strip_prefix(prefix) {
            Some(rest) if !name.starts_with("lm_head") => format!("model.{rest}"),
            _ => name.to_owned(),
        };
        let value = |name: &str, at: u64| all_halved(&named(name), at);
        let copy = models.write(dir, &renamed(prefix), value);
        let found = audit_of(&copy, Some(&base));
        assert_eq!(found.unrelated, None);
        assert_eq!(found.pruned.as_ref().unwrap().elements, TARGET / 2);
        assert_eq!(found.changed.as_ref().unwrap().elements, 0);
        assert_eq!(found.untouched.tensors, 5);
        let note = match prefix.strip_suffix('.') {
            None => "names have no prefix here and the prefix model in the original; ".to_owned(),
            Some(prefix) => format!("names have the prefix {prefix} here and the prefix model in "),
        };
        assert!(found.warnings[0].starts_with(&note), "{:?}", found.warnings);
        assert!(!found.warnings.iter().any(|note| note.contains("not in")), "{:?}", found.warnings);
    }
}

#[test]
fn what_is_lost_altered_or_infinite_is_noted() {
    let models = Models::new();
    let base = models.write("base", &llama(Kind::Bf16), weight);
    let mut tensors = llama(Kind::Bf16);
    tensors.retain(|tensor| !tensor.name.starts_with("model.layers.1."));
    let name = "model.layers.0.mlp.up_proj.weight";
    let copy = models.write("copy", &tensors, |n, at| match at {
        3 | 4 if n == name => f32::INFINITY,
        5 if n == name => f32::NAN,
        _ => weight(n, at),
    });
    let config = |theta: u32| {
        format!("{{\"rope_theta\": {theta}, \"num_hidden_layers\": 2, \"dtype\": {theta}}}")
    };
    fs::write(base.join("config.json"), config(1)).unwrap();
    fs::write(copy.join("config.json"), config(2)).unwrap();
    fs::write(base.join("tokenizer.json"), "{}").unwrap();
    fs::write(copy.join("tokenizer.json"), "{ }").unwrap();
    let found = audit_of(&copy, Some(&base));
    assert_eq!(found.changed.unwrap().elements, 3);
    for note in [
        &format!("3 weights are infinite or NaN: {name}"),
        "9 tensors are in the original, not in this checkpoint (34.68 % of its elements): \
         model.layers.1.input_layernorm.weight, ",
        "config.json (rope_theta), tokenizer.json differ from the original's",
    ] {
        assert!(
            found.warnings.iter().any(|found| found.starts_with(note)),
            "{note} {:?}",
            found.warnings
        );
    }
    // Of a config that is none, or that leaves layers out, the audit says so without an original.
    fs::write(base.join("config.json"), "[").unwrap();
    let said = "config.json holds no JSON object; numbers of layers and heads are unknown";
    assert_eq!(audit_of(&base, None).warnings, [said]);
    fs::write(base.join("config.json"), "{\"num_hidden_layers\": 1}").unwrap();
    let warnings = audit_of(&base, None).warnings;
    let said = "7 tensors are no targets, beyond the 1 layers of the decoder, such as next-token prediction: ";
    assert!(warnings[0].starts_with(said), "{warnings:?}");
}

#[test]
fn masks_that_are_not_applied_are_named() {
    let models = Models::new();
    let mut tensors = Vec::new();
    for tensor in llama(Kind::Bf16) {
        match is_projection(&tensor.name) {
            true => tensors.extend(["weight_orig", "weight_mask"].map(|part| {
                Tensor::new(tensor.name.replace("weight", part), Kind::Bf16, &tensor.shape)
            })),
            false => tensors.push(tensor),
        }
    }
    let masked = models.write("masked", &tensors, weight);
    let found = audit_of(&masked, None);
    let said = "14 projections are stored as weights and masks of PyTorch";
    assert!(found.warnings[0].starts_with(said), "{:?}", found.warnings);
    assert!(
        found.warnings[0].ends_with("nothing can be counted or pruned"),
        "{:?}",
        found.warnings
    );
}
