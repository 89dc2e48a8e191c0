//! Activation-aware methods from a user's view, on the demo model.

use std::fs;
use std::path::Path;

use super::Work;

const CALIBRATION: &str = "--calibration calibration.txt --calibration-tokens 4096 --window 256";
const METHODS: [&str; 3] = ["wanda", "sparsegpt", "activation-flow"];

/// A copy of the demo model and its texts.
fn work() -> Work {
    let work = super::eval::work();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    fs::copy(demo.join("calibration.txt"), work.path("calibration.txt")).unwrap();
    work
}

#[test]
fn each_method_reaches_the_sparsity_and_reports_its_changes() {
    let work = work();
    let mut perplexity = Vec::new();
    for method in METHODS {
        let pruned = work.json(&format!(
            "prune demo --out {method} --method {method} --sparsity 0.6 {CALIBRATION} --format json"
        ));
        assert_eq!(pruned["pruned"]["of_target"]["share"], 0.6);
        let refitted = pruned["refitted"].as_u64().unwrap();
        assert_eq!(refitted > 0, method != "wanda", "{method}: {refitted}");
        let error = pruned["output_error"].as_f64().unwrap();
        assert!(0.0 < error && error < 0.3, "{method}: {error}");
        let audit = work.json(&format!("audit {method} --against demo --format json"));
        assert_eq!(audit["denominator_correct"], true, "{audit}");
        assert_eq!(audit["changed"]["elements"], refitted);
        let proof = work.json(&format!("verify {method} --against demo --format json"));
        assert_eq!((&proof["verified"], &proof["refitted"]), (&true.into(), &refitted.into()));
        assert!(!work.path(method).join("physarium.solved").exists());
        let eval = format!("eval {method} --text text.txt --window 256 --format json");
        perplexity.push(work.json(&eval)["perplexity"].as_f64().unwrap());
    }
    assert!(perplexity[2] < perplexity[1] && perplexity[2] < perplexity[0], "{perplexity:?}");
}

#[test]
fn threads_change_no_byte_and_a_changed_weight_is_found() {
    let work = work();
    let prune = |out: &str, threads: u32| {
        work.ok(&format!(
            "prune demo --out {out} --method activation-flow --pattern 2:4 {CALIBRATION} \
             --threads {threads}"
        ));
        fs::read(work.path(out).join("model-00001-of-00002.safetensors")).unwrap()
    };
    let one = prune("one", 1);
    assert!(one == prune("three", 3));
    // Only the digests detect a change of an updated weight.
    let (name, mut bytes) = ("model-00001-of-00002.safetensors", one);
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    fs::write(work.path("one").join(name), bytes).unwrap();
    work.fails(1, "verify one --against demo", &[]);
}

#[test]
fn allocation_spreads_a_budget_unevenly_and_a_price_sets_one() {
    let work = work();
    let prune = |out: &str, method: &str, amount: &str| {
        let run = work.json(&format!(
            "prune demo --out {out} --method {method} {amount} {CALIBRATION} --format json"
        ));
        work.ok(&format!("verify {out} --against demo"));
        let of_target = run["pruned"]["of_target"]["share"].as_f64().unwrap();
        let audit = work.json(&format!("audit {out} --format json --against demo"));
        let eval = format!("eval {out} --text text.txt --window 256 --format json");
        (of_target, audit["projections"].clone(), work.json(&eval)["perplexity"].as_f64().unwrap())
    };
    for method in METHODS {
        let (uniform, _, _) = prune("uniform", &format!("{method} --force"), "--sparsity 0.7");
        let flow = "--sparsity 0.7 --allocation flow --force";
        let (flow, projections, _) = prune("flow", method, flow);
        assert!((uniform - 0.7).abs() < 1e-4 && flow == 0.7, "{uniform} {flow}");
        let shares = projections.as_array().unwrap().iter();
        let shares: Vec<f64> = shares.map(|p| p["sparsity_mean"].as_f64().unwrap()).collect();
        let (least, most) = (
            shares.iter().copied().fold(1.0, f64::min),
            shares.iter().copied().fold(0.0, f64::max),
        );
        assert!(most - least > 0.1 && least > 0.49 && most < 0.91, "{method}: {shares:?}");
    }
    // A higher price prunes more; the default is a price.
    let (default, _, dense_like) = prune("priced", "activation-flow", "");
    let (more, _, _) = prune("higher", "activation-flow", "--price 0.2");
    assert!(0.05 < default && default < more && more < 0.95, "{default} {more}");
    assert!(dense_like < 2.4, "{dense_like}");
}

#[test]
fn a_run_is_repeated_from_its_manifest_or_a_recipe() {
    let work = work();
    let bytes =
        |out: &str| fs::read(work.path(out).join("model-00002-of-00002.safetensors")).unwrap();
    // The bundled text is the demo's.
    work.ok("prune demo --out one --method activation-flow --sparsity 0.4 --skip *.q_proj.weight --window 256");
    let manifest = "--recipe one/physarium.manifest.json";
    work.ok(&format!("prune demo --out two {manifest} --calibration calibration.txt"));
    assert!(bytes("one") == bytes("two"));
    for record in ["physarium.manifest.json", "physarium.journal.jsonl"] {
        let read = |out: &str| fs::read(work.path(out).join(record)).unwrap();
        assert!(read("one") == read("two"), "{record}");
    }
    let other = format!("prune demo --out three {manifest} --calibration text.txt");
    work.fails(2, &other, &["text.txt", "is not the text this recipe used", "SHA-256"]);
    let toml = "target = []\nskip = ['*.o_proj.weight']\nnon_finite = 'refuse'\n\
                [method]\nname = 'magnitude'\nsparsity = 0.5\nscope = 'tile'\nblock_size = 64\n";
    fs::write(work.path("run.toml"), toml).unwrap();
    work.ok("prune demo --out four --recipe run.toml");
    work.ok("prune demo --out five --sparsity 0.5 --block-size 64 --skip *.o_proj.weight");
    assert!(bytes("four") == bytes("five"));
    work.fails(2, "prune demo --out six --recipe run.toml --seed 1", &["--recipe", "--seed"]);
    let idle = "prune demo --out six --recipe run.toml --calibration text.txt";
    work.fails(2, idle, &["--calibration has no effect", "does not use calibration"]);
    fs::write(work.path("bad.toml"), "skip = 3").unwrap();
    work.fails(2, "prune demo --out six --recipe bad.toml", &["bad.toml", "not a valid recipe"]);
}

#[test]
fn methods_are_compared_in_one_table() {
    let work = work();
    let all = "--methods magnitude,magnitude-flow,wanda,activation-flow --sparsity 0.5 --pattern 2:4 \
               --allocation uniform,flow --effort quick,standard";
    let table = work.ok(&format!(
        "compare demo --out table --text text.txt --eval-window 256 {all} {CALIBRATION}"
    ));
    let names = [
        "dense",
        "magnitude-0.5",
        "magnitude-flow-0.5",
        "wanda-0.5",
        "wanda-0.5-allocated",
        "activation-flow-0.5-quick",
        "activation-flow-0.5",
        "activation-flow-0.5-allocated-quick",
        "activation-flow-0.5-allocated",
        "magnitude-2of4",
        "magnitude-flow-2of4",
        "wanda-2of4",
        "activation-flow-2of4-quick",
        "activation-flow-2of4",
    ];
    let rows: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| ")).skip(1).collect();
    assert_eq!(rows.len(), names.len(), "{table}");
    for (row, name) in rows.iter().zip(names) {
        assert!(row.starts_with(&format!("{name} |")), "{table}");
        assert!(name == "dense" || row.contains("| 50.00 % |"), "{table}");
    }
    assert_eq!(fs::read_to_string(work.path("table/physarium.compare.md")).unwrap(), table);
    let json = fs::read_to_string(work.path("table/physarium.compare.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["runs"].as_array().unwrap().len(), names.len() - 1);
    // Pruned models are deleted without --keep; the two tables, the page and the records of the rows remain.
    assert_eq!(fs::read_dir(work.path("table")).unwrap().count(), 4);
    let few = "--methods magnitude --sparsity 0.5 --keep";
    work.ok(&format!("compare demo --out kept --text text.txt --eval-window 256 {few}"));
    work.ok("verify kept/magnitude-0.5 --against demo");
    work.fails(2, "compare demo --out none --text text.txt", &["at least one --sparsity S"]);
    let into_output = format!("compare demo --out kept/magnitude-0.5 --text text.txt {few}");
    work.fails(2, &into_output, &["kept/magnitude-0.5: would be written into the checkpoint"]);
    work.nothing_was_written("none");
}

#[test]
fn invalid_requests_are_refused_with_the_reason() {
    let work = work();
    let prune = "prune demo --out out --method activation-flow";
    let fails = |rest: &str, needles: &[&str]| work.fails(2, &format!("{prune} {rest}"), needles);
    let wanda = "prune demo --out out --method wanda --calibration calibration.txt";
    work.fails(2, wanda, &["wanda needs --sparsity or --pattern or --price"]);
    fails(&format!("--price 0 {CALIBRATION}"), &["price must be above 0 and finite, found 0"]);
    fails(&format!("--allocation flow {CALIBRATION}"), &["--sparsity"]);
    let scope = format!("--sparsity 0.5 --scope model {CALIBRATION}");
    fails(&scope, &["--scope has no effect"]);
    fails(&format!("--sparsity 0.5 --beta 3 {CALIBRATION}"), &["--beta"]);
    let short = "--sparsity 0.5 --calibration text.txt --window 256 --calibration-tokens 131072";
    fails(short, &["text.txt", "too short", "131072 tokens in windows of 256", "hint"]);
    let wide = "--sparsity 0.5 --calibration calibration.txt --window 1024";
    fails(wide, &["--window 1024", "at most 512"]);
    let few = "--sparsity 0.5 --calibration calibration.txt --window 256 --calibration-tokens 100";
    fails(few, &["100 calibration tokens", "a window of 256"]);
    fails("--sparsity 0.5 --calibration nowhere.txt", &["nowhere.txt", "No such file"]);
    let head = format!("--sparsity 0.5 --target lm_head.weight {CALIBRATION}");
    fails(&head, &["lm_head.weight", "not a projection of a decoder layer"]);
    let weights_only = "prune demo --out out --calibration text.txt";
    work.fails(2, weights_only, &["--calibration has no effect"]);
    work.nothing_was_written("out");
}

/// What a dry run says is an upper bound on the peak, and not far from it.
#[test]
fn a_dry_run_bounds_the_memory_of_activation_aware_methods() {
    let work = work();
    for method in METHODS {
        for threads in [1, 2] {
            let run = format!(
                "prune demo --out {method}{threads} --method {method} --sparsity 0.5 {CALIBRATION} \
                 --threads {threads} --format json"
            );
            let plan = work.json(&format!("{run} --dry-run"));
            let bytes = |field: &str| plan[field].as_u64().unwrap();
            // The solved weights of the only shard are beside it until it is written.
            assert!(bytes("free_bytes_needed") > bytes("output_bytes") * 3 / 2, "{plan}");
            assert!(bytes("free_bytes") > 0, "{plan}");
            let said = bytes("resident_bytes");
            // Only Linux tells the peak.
            let Some(used) = work.json(&run)["peak_rss_bytes"].as_u64() else { return };
            let most = used + used / 4 + (64 << 20);
            assert!((used..=most).contains(&said), "{method}: {said} said, {used} used");
        }
    }
}

/// The effort decides how many tokens are used if nobody says; the rows of a comparison all have the most of them.
#[test]
fn the_default_number_of_calibration_tokens_is_that_of_the_effort() {
    let work = work();
    fs::write(work.path("long.txt"), "stone and water ".repeat(50_000)).unwrap();
    let tokens = |rest: &str| {
        let plan = work.json(&format!(
            "prune demo --out out --sparsity 0.5 --calibration long.txt --dry-run --format json {rest}"
        ));
        plan["recipe"]["method"]["calibration"]["tokens"].as_u64().unwrap()
    };
    assert_eq!(tokens("--method activation-flow --effort quick"), 32_768);
    assert_eq!(tokens("--method activation-flow"), 131_072);
    assert_eq!(tokens("--method activation-flow --effort best"), 131_072);
    assert_eq!(tokens("--method wanda"), 131_072);
    assert_eq!(tokens("--method activation-flow --effort quick --calibration-tokens 2048"), 2048);

    let note = |out: &str, rows: &str| {
        let ran = work.run(&format!(
            "compare demo --out {out} --text text.txt --eval-window 256 --limit 512 --sparsity 0.5 --calibration text.txt {rows}"
        ));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr
    };
    let quick = note("quick", "--methods magnitude,activation-flow --effort quick");
    assert!(quick.contains("fewer than 32,768 tokens, the default"), "{quick}");
    let both = note("both", "--methods wanda,activation-flow --effort quick");
    assert!(both.contains("fewer than 131,072 tokens, the default"), "{both}");
}

#[test]
fn infinite_gradients_and_nan_logits_are_no_result() {
    let work = work();
    let norm = "model.norm.weight";
    for shard in ["demo/model-00001-of-00002.safetensors", "demo/model-00002-of-00002.safetensors"]
    {
        let mut bytes = fs::read(work.path(shard)).unwrap();
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let names: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        if let Some(begin) = names[norm]["data_offsets"][0].as_u64() {
            let at = 8 + header + begin as usize;
            bytes[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
            fs::write(work.path(shard), bytes).unwrap();
        }
    }
    for method in ["activation-flow --sparsity 0.5", "wanda --price 0.02"] {
        let run = format!("prune demo --out out --method {method} {CALIBRATION}");
        work.fails(2, &run, &["layers.0.", "finite activations and gradients", "NaN"]);
        assert!(!work.path("out").exists(), "{method}");
    }
    let eval = "eval demo --against demo --text text.txt --window 256 --format json";
    let agreement = &work.json(eval)["against"]["top1_agreement"];
    assert_eq!(agreement.as_f64(), Some(0.0));
}

#[test]
fn the_tokens_that_are_stated_are_those_of_whole_windows() {
    let work = work();
    let prune = "prune demo --out out --method wanda --sparsity 0.5 --calibration";
    work.ok(&format!("{prune} calibration.txt --calibration-tokens 1023 --window 512"));
    let card = fs::read_to_string(work.path("out/physarium.card.md")).unwrap();
    assert!(card.contains("calibrated on 512 tokens in windows of 512"), "{card}");
    fs::write(work.path("short.txt"), "Once upon a time there was a fox.").unwrap();
    let short = format!("{prune} short.txt --calibration-tokens 512 --force");
    work.fails(2, &short, &["short.txt", "too short", "512 tokens in windows of 512"]);
}
