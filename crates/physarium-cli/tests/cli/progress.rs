//! What a run says while it works and when it ends.

use std::fs;

use serde_json::Value;

use super::Work;

/// The objects on stderr; fails for a line that is none.
fn events(stderr: &str) -> Vec<Value> {
    stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect()
}

#[test]
fn progress_as_json_is_nothing_else() {
    let work = super::eval::work();
    let calibrated =
        "--method activation-flow --sparsity 0.5 --calibration-tokens 1024 --window 256";
    let ran = work.run(&format!("prune demo --out out {calibrated} --progress json"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let events = events(&ran.stderr);
    let of = |event: &str, task: &str| {
        let found = events.iter().find(|e| e["event"] == event && e["task"] == task);
        found.unwrap_or_else(|| panic!("no {event} of {task} in {events:?}"))
    };
    assert_eq!(events[0]["event"], "note", "{events:?}");
    for task in ["gradients, forward", "gradients, backward", "calibrate"] {
        assert_eq!(
            (&of("started", task)["layer"], &of("started", task)["layers"]),
            (&1.into(), &5.into())
        );
    }
    assert!(of("finished", "prune")["total_bytes"].as_u64() > Some(2_000_000));
    let failed = work.run("prune demo --out out --progress json");
    assert_eq!(failed.code, 2);
    let error = &super::progress::events(&failed.stderr)[0];
    assert!(
        error["event"] == "error" && error["text"].as_str().unwrap().contains("out"),
        "{error}"
    );
}

#[test]
fn rows_of_a_comparison_are_numbered() {
    let work = super::eval::work();
    let ran = work.run(
        "compare demo --out table --methods magnitude --sparsity 0.1,0.2 --text text.txt --limit 512 \
         --eval-window 256",
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for row in ["[1/2] magnitude-0.1", "[2/2] magnitude-0.2"] {
        assert!(ran.stderr.contains(row), "{}", ran.stderr);
    }
}

#[test]
fn a_run_ends_with_its_cost_and_a_dry_run_estimates_it() {
    let work = Work::new();
    let said = work.ok("prune model --out out");
    assert!(said.contains("took ") && said.contains(", peak memory "), "{said}");
    let run = work.json("prune model --out json --format json");
    assert!(run["seconds"].as_f64() > Some(0.0) && run["peak_rss_bytes"].as_u64() > Some(1 << 20));
    let plan = work.ok("prune model --out dry --dry-run --sparsity 0.5 --method magnitude");
    assert!(plan.contains("method: magnitude, sparsity 0.5 of each tensor\n"), "{plan}");
    assert!(plan.contains("time: about "), "{plan}");
    let plan = work.json("prune model --out dry --dry-run --format json");
    assert!(plan["seconds"].as_f64() > Some(0.0), "{plan}");
    let work = super::eval::work();
    for method in ["wanda", "sparsegpt", "activation-flow"] {
        let options =
            "--sparsity 0.5 --calibration-tokens 1024 --window 256 --dry-run --format json";
        let plan = work.json(&format!("prune demo --out dry --method {method} {options}"));
        let seconds = plan["seconds"].as_f64().unwrap();
        assert!(0.001 < seconds && seconds < 600.0, "{method}: {seconds}");
    }
    let ran = work.run("prune model --out dry --dry-run --sparsity 1");
    assert!(ran.stderr.contains("prunes every weight"), "{}", ran.stderr);
}

#[test]
fn a_card_lies_beside_the_output_and_is_verified() {
    let work = Work::new();
    fs::write(work.path("model/README.md"), "# A model\n").unwrap();
    fs::write(work.path("model/config.json"), r#"{"_name_or_path": "org/<b>|x"}"#).unwrap();
    let run = work.json("prune model --out out --sparsity 0.5 --method magnitude --format json");
    assert_eq!(fs::read_to_string(work.path("out/README.md")).unwrap(), "# A model\n");
    let card = fs::read_to_string(work.path("out/physarium.card.md")).unwrap();
    for needle in [
        "org/&lt;b>\\|x",
        "magnitude, sparsity 0.5 of each tensor",
        "50.00 % of target",
        "verify DIR",
    ] {
        assert!(card.contains(needle), "no {needle} in {card}");
    }
    assert!(run["pruned"]["elements"].as_u64() > Some(1000));
    work.ok("verify out --against model");
    // The output of a run on the output has its own card.
    work.ok("prune out --out again --sparsity 0.6 --method magnitude");
    work.ok("verify again --against out");
    fs::write(work.path("out/physarium.card.md"), card.replace("50.00 %", "60.00 %")).unwrap();
    let ran = work.run("verify out --against model");
    assert!(ran.code == 1 && ran.stdout.contains("physarium.card.md"), "{}", ran.stdout);
}

#[test]
fn towers_and_what_the_default_leaves_alone_are_noted() {
    use physarium_fixtures::{Kind, Tensor};
    let work = Work::new();
    let matrix = |name: &str| Tensor::new(format!("{name}.weight"), Kind::Bf16, &[16, 16]);
    let names = ["model.decoder.layers.0.self_attn.q_proj", "model.decoder.layers.0.fc1"];
    let mut tensors: Vec<Tensor> = names.iter().map(|name| matrix(name)).collect();
    tensors.push(matrix("vision_tower.layers.0.self_attn.q_proj"));
    work.write("opt", &tensors, 1);
    let ran = work.run("prune opt --out out --sparsity 0.5");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let tower =
        "note: 1 projection copied without pruning: not of the language model, but of vision_tower";
    let left = "leave alone 256 of 512 elements of the matrices in the decoder's layers (50.00 % of these matrices)";
    let pattern = "--target 'model.decoder.layers.*.{fc1,self_attn.q_proj}.weight'";
    for needle in [tower, left, pattern] {
        assert!(ran.stderr.contains(needle), "no {needle} in {}", ran.stderr);
    }
    let inspected = work.ok("inspect opt");
    assert!(inspected.contains("but of vision_tower"), "{inspected}");
    work.ok("verify out --against opt");
}

#[test]
fn a_dry_run_refuses_an_output_that_the_run_would_not_replace() {
    let work = Work::new();
    let said = work.ok("prune model --out=-out --sparsity 0.5");
    assert!(said.contains("next: physarium audit ./-out --against model\n"), "{said}");
    let again = "prune model --out ./-out --sparsity 0.6 --force";
    let dry = work.ok(&format!("{again} --dry-run"));
    assert!(dry.contains("would replace the finished output ./-out\n"), "{dry}");
    fs::write(work.path("-out/notes"), "mine").unwrap();
    for command in [again.to_owned(), format!("{again} --dry-run")] {
        work.fails(2, &command, &["-out/notes", "something that was added"]);
    }
}
