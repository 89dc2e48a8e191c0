//! What a user is told about models of other tools, wrong originals and the order of arguments.

use std::fs;

use physarium_fixtures::{Fill, Kind, Tensor, llama_tensors, write_checkpoint};

use super::Work;

/// The tensors of `model`, with what stands in place of the weights of some projections.
fn packed(which: &str) -> Vec<Tensor> {
    let mut tensors = llama_tensors(Kind::Bf16, 2, [32, 16, 48]);
    for tensor in &mut tensors {
        if tensor.name.contains(which) && tensor.name.ends_with("_proj.weight") {
            tensor.name = tensor.name.replace(".weight", ".weight_packed");
            tensor.kind = Kind::Bytes("U8");
        }
    }
    tensors
}

fn claims(work: &Work, count: &str) {
    let claim = format!(
        "[[claim]]\nid = \"half\"\nsource = \"card\"\nsentence = \"half\"\ncount = \"{count}\"\n\
         value = \"50.00 %\"\nof = \"target\"\n"
    );
    fs::write(work.path("claims.toml"), claim).unwrap();
}

#[test]
fn a_claim_about_nothing_exits_with_2_and_names_the_format() {
    let work = Work::new();
    claims(&work, "pruned");
    work.write("packed", &packed(""), 1);
    let format = "14 projections are stored as compressed-tensors pack-quantized";
    for against in ["", "--against packed"] {
        let ran = work.run(&format!("audit packed {against} --claims claims.toml"));
        assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
        let verdict = format!(
            "claim half: 50.00 % of target -> cannot be judged: nothing can be counted: {format}"
        );
        assert!(ran.stdout.contains(&verdict), "{}", ran.stdout);
        let error = "error: packed: 1 claim cannot be judged\nhint: decompress or dequantise";
        assert!(ran.stderr.contains(error), "{}", ran.stderr);
    }
    assert_eq!(work.run("audit packed").code, 2);
    assert!(work.ok("inspect packed").contains(format));
    let hint = "hint: decompress or dequantise the model first";
    work.fails(2, "prune packed --out out", &["nothing to prune: ", format, hint]);
    work.nothing_was_written("out");
    // What can be counted and pruned is, with one note on the rest.
    work.write("mixed", &packed(".layers.0."), 1);
    let ran = work.run("prune mixed --out out --method magnitude --sparsity 0.5");
    let note = "note: 7 projections are stored as compressed-tensors pack-quantized \
                (model.layers.0.mlp.down_proj.weight_packed, …): copied without pruning";
    assert!(ran.code == 0 && ran.stderr.contains(note), "{}", ran.stderr);
    claims(&work, "zero");
    let said = work.ok("audit out --against mixed --claims claims.toml");
    assert!(said.contains("claim half: 50.00 % of target -> correct\n"), "{said}");
    assert_eq!(said.matches("not part of the target, and not counted").count(), 1, "{said}");
}

#[test]
fn another_model_as_the_original_is_one_sentence() {
    let work = Work::new();
    work.ok("prune model --out out --method magnitude --sparsity 0.5");
    work.write("wider", &llama_tensors(Kind::Bf16, 2, [64, 16, 48]), 1);
    // The same names and shapes.
    let tensors = llama_tensors(Kind::Bf16, 2, [32, 16, 48]);
    write_checkpoint(&work.path("other"), &tensors, 2, Fill::Gaussian(77)).unwrap();
    let shapes = ", or rows and columns were cut: 21 of 21 tensors have other shapes";
    for (original, audited, verified) in [
        ("wider", shapes, shapes),
        (
            "other",
            "or one of them was retrained",
            ": 21 of 21 tensors differ from what prune leaves",
        ),
    ] {
        let said = format!("{original} is not the original of out");
        let ran = work.run(&format!("audit out --against {original}"));
        assert_eq!((ran.code, ran.stdout.lines().count()), (1, 2), "{}", ran.stdout);
        assert!(ran.stdout.starts_with(&said) && ran.stdout.contains(audited), "{}", ran.stdout);
        assert!(ran.stdout.ends_with("\nhint: without --against, audit counts the zeros\n"));
        let ran = work.run(&format!("verify out --against {original}"));
        assert_eq!((ran.code, ran.stdout.lines().count()), (1, 1), "{}", ran.stdout);
        let said = format!("NOT verified: {said}{verified}");
        assert!(ran.stdout.starts_with(&said), "{}", ran.stdout);
    }
}

#[test]
fn a_copy_in_another_element_type_is_audited_and_not_verified() {
    let work = Work::new();
    write_checkpoint(
        &work.path("copy"),
        &llama_tensors(Kind::F32, 2, [32, 16, 48]),
        2,
        Fill::Gaussian(3),
    )
    .unwrap();
    // The fixture rounds the same values to BF16; unrounded they are others, but no other zeros.
    let ran = work.run("verify copy --against model");
    assert_eq!((ran.code, ran.stdout.lines().count()), (1, 1), "{}", ran.stdout);
    let said = "21 of 21 tensors have another element type (F32 here, BF16 in the original)";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
    assert!(ran.stdout.contains("physarium audit copy --against model"), "{}", ran.stdout);
    let audited = work.json("audit model --against copy --format json");
    assert_eq!(audited["changed"]["elements"], 0);
    assert_eq!(audited["processed"]["elements"], 0);
    assert_eq!(audited["untouched"]["differing"].as_array().unwrap().len(), 0);
    assert_eq!(audited["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn the_result_comes_first_and_the_old_order_is_noted() {
    let work = Work::new();
    let said = work.ok("prune model --out out");
    assert!(said.contains("\n      physarium verify out --against model\n"), "{said}");
    let new = work.run("verify out --against model");
    let old = work.run("verify model out");
    assert_eq!((new.code, old.code), (0, 0));
    assert_eq!(new.stdout, old.stdout);
    let note = "note: `verify MODEL DIR` is the old order; write `verify DIR --against MODEL`";
    assert!(
        old.stderr.contains(note) && !new.stderr.contains("note"),
        "{}{}",
        old.stderr,
        new.stderr
    );
    assert_eq!(work.run("verify model out --quiet").stderr, "");
    work.fails(2, "verify out", &["--against <MODEL>"]);
    work.fails(2, "verify model out --against model", &["cannot be used with"]);
    let swapped = work.run("verify out model");
    let hint = "note: the directories look swapped: physarium verify out --against model";
    assert!(swapped.code == 1 && swapped.stderr.contains(hint), "{}", swapped.stderr);
    // An audit cannot tell, but says what it sees.
    let said = work.ok("audit model --against out");
    let hint = "the directories are swapped: physarium audit out --against model";
    assert!(said.contains(hint), "{said}");
}

#[test]
fn a_report_says_where_it_is() {
    let work = Work::new();
    let line = "wrote reports/physarium.audit.html, reports/physarium.audit.json, reports/physarium.audit.md\n";
    let said = work.run("audit model --report reports");
    assert!(said.code == 0 && said.stdout.ends_with(line), "{}", said.stdout);
    let json = work.run("audit model --report reports --format json");
    assert!(json.stderr.ends_with(line) && !json.stdout.contains("wrote"), "{}", json.stderr);
    assert_eq!(work.run("audit model --report reports --format json --quiet").stderr, "");
}
