//! Projections that are not stored as plain weights are named, and no claim about them is judged.

use physarium_audit::{Audit, Inspection, Listing, Verdict, inspect, markdown, text};
use physarium_checkpoint::{Checkpoint, Layout, Selection, TargetPlan};
use physarium_fixtures::{Kind, Tensor};

use super::{Models, audit_of, is_projection, llama, weight};

/// A format: its name, and what stands in place of `X.weight` with bytes for each two weights.
type Format = (&'static str, &'static [(&'static str, Kind)]);

const U8: Kind = Kind::Bytes("U8");

const FORMATS: [Format; 6] = [
    (
        "compressed-tensors sparse-24-bitmask",
        &[("weight_compressed", Kind::Bf16), ("bitmask", U8), ("weight_shape", U8)],
    ),
    (
        "compressed-tensors pack-quantized",
        &[("weight_packed", U8), ("weight_scale", Kind::Bf16), ("weight_shape", U8)],
    ),
    ("GPTQ or AWQ (packed integers)", &[("qweight", U8), ("qzeros", U8), ("scales", Kind::F16)]),
    ("bitsandbytes 4-bit", &[("weight", U8), ("weight.absmax", Kind::F32)]),
    (
        "FP8 (F8_E4M3 with scales)",
        &[("weight", Kind::Bytes("F8_E4M3")), ("weight_scale_inv", Kind::F32)],
    ),
    ("an unknown format: signs, trellis", &[("trellis", U8), ("signs", U8)]),
];

/// A llama whose projections for which `which` holds are stored in a format.
fn encoded(format: &Format, which: impl Fn(&str) -> bool) -> Vec<Tensor> {
    let parts = |tensor: Tensor| {
        if !is_projection(&tensor.name) || !which(&tensor.name) {
            return vec![tensor];
        }
        let module = tensor.name.strip_suffix(".weight").unwrap();
        let shape = [tensor.shape[0], tensor.shape[1] / 2];
        let part =
            |(part, kind): &(&str, Kind)| Tensor::new(format!("{module}.{part}"), *kind, &shape);
        format.1.iter().map(part).collect()
    };
    llama(Kind::Bf16).into_iter().flat_map(parts).collect()
}

fn inspection(models: &Models, dir: &str) -> Inspection {
    let checkpoint = Checkpoint::open(&models.path(dir)).unwrap();
    let plan = TargetPlan::new(&checkpoint, &Selection::default()).unwrap();
    inspect(&checkpoint, &plan)
}

#[test]
fn no_claim_about_nothing_is_judged() {
    for format in &FORMATS {
        let models = Models::new();
        let dir = models.write("model", &encoded(format, |_| true), weight);
        for against in [None, Some(dir.as_path())] {
            let mut found = audit_of(&dir, against);
            let said = format!("14 projections are stored as {} (model.layers.0.mlp.", format.0);
            for (count, of) in [("pruned", "target"), ("zero", "q_proj"), ("target", "model")] {
                let judged = models.claim(count, "50 %", of, &found);
                assert_eq!(judged.verdict, Verdict::CannotBeJudged, "{count} of {of}");
                let reason = judged.reason.as_ref().unwrap();
                assert!(reason.contains(&said), "no {said:?} in {reason}");
                assert!(judged.measured.is_empty() && judged.should_say.is_none());
                found.claims.push(judged);
            }
            assert_eq!((&found.pruned, &found.processed, &found.changed), (&None, &None, &None));
            assert_eq!((found.zero.elements, found.zero.of_target.share), (0, None));
            let [note] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
            assert!(note.starts_with(&said) && note.contains("nothing can be counted"), "{note}");
            for report in [text(&found), markdown(&found)] {
                assert!(report.contains("cannot be judged") && report.contains(&said), "{report}");
                assert!(!report.contains("(0 of 0)") && !report.contains(" 0 % "), "{report}");
            }
            let json = serde_json::to_value(&found).unwrap();
            assert_eq!(json["claims"][0]["verdict"], "cannot be judged");
            assert_eq!(
                (&json["encoded"][0]["projections"], &json["encoded"][0]["format"]),
                (&14.into(), &format.0.into())
            );
            assert_eq!(serde_json::from_value::<Audit>(json).unwrap(), found);
        }
        let inspected = inspection(&models, "model");
        assert_eq!((inspected.encoded.len(), inspected.encoded[0].projections), (1, 14));
        let said = inspected.text(Layout::Single, Listing::Sums);
        assert!(said.contains(&format!("14 projections are stored as {}", format.0)), "{said}");
        for line in ["\nembedding ", "\nhead ", "\nnorm "] {
            assert!(said.contains(line), "no {line:?} in {said}");
        }
    }
}

#[test]
fn plain_projections_beside_encoded_ones_are_counted() {
    let models = Models::new();
    let first_layer = |name: &str| name.starts_with("model.layers.0.");
    let dir = models.write("model", &encoded(&FORMATS[0], first_layer), |name, at| match at % 4 {
        0 if is_projection(name) => 0.0,
        _ => weight(name, at),
    });
    let found = audit_of(&dir, None);
    assert_eq!((found.target.tensors, found.zero.elements), (7, 2304 / 4));
    assert_eq!(models.claim("zero", "25 %", "target", &found).verdict, Verdict::Correct);
    let [note] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
    assert!(note.starts_with("7 projections are stored as compressed-tensors"), "{note}");
    assert!(note.ends_with("not part of the target, and not counted"), "{note}");
    // A projection of which no tensor is plain is no unknown denominator.
    let only_q = |name: &str| name.contains("q_proj");
    let dir = models.write("q", &encoded(&FORMATS[1], only_q), weight);
    let judged = models.claim("zero", "0 %", "q_proj", &audit_of(&dir, None));
    assert_eq!(judged.verdict, Verdict::CannotBeJudged);
    assert!(judged.reason.unwrap().starts_with("no q_proj can be counted: 2 projections"));
}

#[test]
fn a_model_without_targets_is_not_judged_either() {
    let models = Models::new();
    let dir =
        models.write("gpt2", &[Tensor::new("h.0.attn.c_attn.weight", Kind::F32, &[4, 4])], weight);
    let judged = models.claim("pruned", "50 %", "target", &audit_of(&dir, None));
    let reason = "nothing can be counted: none of the 1 tensors is a target";
    assert_eq!((judged.verdict, judged.reason.as_deref()), (Verdict::CannotBeJudged, Some(reason)));
}

#[test]
fn an_inspection_lists_layers_in_order_and_says_what_skipped_tensors_are() {
    let models = Models::new();
    let mut tensors = physarium_fixtures::llama_tensors(Kind::Bf16, 12, [16, 8, 32]);
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    for layer in [10, 2] {
        let name = format!("model.layers.{layer}.mamba.in_proj.weight");
        tensors.push(Tensor::new(name, Kind::Bf16, &[2, 2]));
        let name = format!("model.layers.{layer}.self_attn.q_proj.bias");
        tensors.push(Tensor::new(name, Kind::Bf16, &[16]));
    }
    models.write("model", &tensors, weight);
    let inspected = inspection(&models, "model");
    let layers: Vec<u64> = inspected.tensors.iter().filter_map(|tensor| tensor.layer).collect();
    assert!(layers.is_sorted() && layers.len() == 84);
    let said = inspected.text(Layout::Single, Listing::Tensors);
    let table: Vec<Vec<&str>> =
        said.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        "head 1 1,024 3.40 %",
        "norm 25 400 1.33 %",
        "bias 2 32 0.11 %",
        "model.layers.*.mamba.in_proj.weight 2 8 0.03 %",
        "skipped model.layers.2.self_attn.q_proj.bias bias",
        "skipped model.layers.10.mamba.in_proj.weight not a target projection",
    ] {
        let row: Vec<&str> = row.split_whitespace().collect();
        assert!(table.contains(&row), "no {row:?} in {said}");
    }
    assert!(
        said.find("skipped  model.layers.2.").unwrap()
            < said.find("skipped  model.layers.10.").unwrap()
    );
}
