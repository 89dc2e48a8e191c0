//! Pages: what `audit --report`, `compare` and `report` write, and what is read back from them.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use physarium_fixtures::{Fill, Kind, llama_tensors, write_checkpoint};
use serde_json::Value;

/// A working directory with a pruned model and its audit in `audit/`.
struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Work {
        let work = Work(tempfile::tempdir().unwrap());
        let tensors = llama_tensors(Kind::Bf16, 2, [320, 160, 480]);
        write_checkpoint(&work.path("model"), &tensors, 2, Fill::Gaussian(3)).unwrap();
        work.ok("prune model --out out --quiet");
        work.ok("audit out --against model --report audit --quiet");
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_physarium"));
        command.current_dir(self.0.path()).args(arguments.split_whitespace());
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn ok(&self, arguments: &str) -> String {
        let (code, stdout, stderr) = self.run(arguments);
        assert_eq!(code, 0, "{arguments}: {stderr}");
        stdout
    }

    fn fails(&self, arguments: &str, needle: &str) {
        let (code, _, stderr) = self.run(arguments);
        assert_eq!(code, 2, "{arguments}: {stderr}");
        assert!(stderr.contains(needle), "{arguments}: no {needle:?} in {stderr}");
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap()
    }

    /// Writes the audit with changes beside the original.
    fn changed_audit(&self, dir: &str, change: impl FnOnce(&mut Value)) {
        let mut audit = self.json("audit/physarium.audit.json");
        change(&mut audit);
        fs::create_dir_all(self.path(dir)).unwrap();
        fs::write(self.path(dir).join("physarium.audit.json"), audit.to_string()).unwrap();
    }
}

#[test]
fn an_audit_is_read_back_from_its_page_and_its_claims_are_judged_again() {
    let work = Work::new();
    let audit = work.json("audit/physarium.audit.json");
    for report in ["audit/physarium.audit.html", "audit/physarium.audit.json", "audit"] {
        // A directory holds the JSON, which is read, and the page of the same audit, which is not.
        let again = work.ok(&format!("audit --from-report {report} --format json"));
        assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), audit, "{report}");
    }
    let shown = work.ok("audit --from-report audit/physarium.audit.html");
    assert_eq!(shown, work.ok("audit out --against model"));
    let claim = "[[claim]]\nid = 'all'\nsource = 'title'\nsentence = 'Half.'\ncount = 'pruned'\nvalue = '50.00 %'\nof = 'target'\n";
    fs::write(work.path("claims.toml"), claim).unwrap();
    let (code, stdout, _) = work
        .run("audit --from-report audit/physarium.audit.html --claims claims.toml --report again");
    assert_eq!(code, 1, "{stdout}");
    assert_eq!(work.json("again/physarium.audit.json")["claims"][0]["verdict"], "wrong");
}

#[test]
fn a_page_needs_nothing_else_and_holds_its_numbers_as_text() {
    let work = Work::new();
    let page = fs::read_to_string(work.path("audit/physarium.audit.html")).unwrap();
    let audit = work.json("audit/physarium.audit.json");
    for outside in ["http:", "https://", "src=", "<link", "@import", "url("] {
        let found = page.matches(outside).count();
        // The namespace of SVG is a name, not an address that is loaded.
        let allowed = page.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(found, if outside == "http:" { allowed } else { 0 }, "{outside}");
    }
    assert!(page.contains("default-src &#x27;none&#x27;") || page.contains("default-src 'none'"));
    let pruned = audit["pruned"]["elements"].as_u64().unwrap();
    assert!(page.contains(&format!("<data id=\"count-pruned\" value=\"{pruned}\">")));
    for projection in audit["projections"].as_array().unwrap() {
        assert!(page.contains(&format!("<td>{}</td>", projection["projection"].as_str().unwrap())));
        assert!(page.contains(&format!("data-value=\"{}", projection["pruned"])));
    }
}

#[test]
fn tiles_in_the_json_add_up_to_the_zeros() {
    let work = Work::new();
    let audit = work.json("audit/physarium.audit.json");
    let tensors = audit["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 14);
    for tensor in tensors {
        let map = &tensor["tile_map"];
        let bytes = base64::decode(map["zeros"].as_str().unwrap()).unwrap();
        let counts: Vec<u64> =
            bytes.as_chunks::<4>().0.iter().map(|n| u64::from(u32::from_le_bytes(*n))).collect();
        assert_eq!(map["edge"], 256);
        assert_eq!(map["shape"], tensor["shape"]);
        assert_eq!(
            counts.iter().sum::<u64>(),
            tensor["zero"].as_u64().unwrap(),
            "{}",
            tensor["name"]
        );
    }
    let magnified = audit["magnified"].as_array().unwrap();
    assert_eq!(magnified.len(), 7);
    for tile in magnified {
        let shape: Vec<u64> =
            tile["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        let bits = base64::decode(tile["alive"].as_str().unwrap()).unwrap();
        assert_eq!(bits.len() as u64, (shape[0] * shape[1]).div_ceil(8));
        let alive: u64 = bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let share = alive as f64 / (shape[0] * shape[1]) as f64;
        assert!((0.6..0.95).contains(&share), "{}: {share}", tile["tensor"]);
    }
}

#[test]
fn a_report_that_was_changed_is_refused_by_the_number_that_does_not_fit() {
    let work = Work::new();
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 24] = [
        (|audit| audit["pruned"]["elements"] = 5.into(), "pruned weights: 5 in all"),
        (|audit| audit["tensors"][0]["zero"] = 0.into(), "zeros:"),
        (|audit| audit["pruned"]["of_model"]["whole"] = 7.into(), "a share of"),
        (|audit| audit["identities"][0]["left"] = 1.into(), "a check of 1 and"),
        (|audit| audit["denominator_correct"] = false.into(), "denominator_correct: false"),
        (
            |audit| audit["tensors"][0]["tile_map"]["zeros"] = "AAAA".into(),
            "tiles that do not have",
        ),
        (|audit| audit["zero"]["of_target"]["share"] = 0.5.into(), " of target as 0.5, not 0."),
        (|audit| audit["projections"][0]["pruned"] = 5.into(), "pruned weights: 5 in all"),
        (|audit| audit["projections"][0]["pruned"] = Value::Null, "pruned weights: no number"),
        (|audit| audit["projections"][0]["elements"] = 5.into(), "elements: 5 in all"),
        (|audit| audit["projections"][0]["tensors"] = 5.into(), "tensors: 5 in all, 2 by tensor"),
        (|audit| audit["projections"][0]["of_projection"]["part"] = 5.into(), "a share of 5 in"),
        (|audit| audit["projections"][0]["of_projection"] = Value::Null, "no share of pruned"),
        (|audit| audit["projections"][0]["sparsity_min"] = 0.0.into(), "sparsity_min: 0, 0."),
        (|audit| audit["projections"][0]["sparsity_mean"] = 0.5.into(), "sparsity_mean: 0.5, 0."),
        (|audit| audit["projections"][0]["sparsity_max"] = 1.0.into(), "sparsity_max: 1, 0."),
        (
            |audit| drop(audit["projections"].as_array_mut().unwrap().remove(0)),
            "6 projections, 7 by tensor",
        ),
        (|audit| audit["processed"]["tensors"] = 5.into(), "processed tensors: 5 in all, 14 by"),
        (|audit| audit["model"]["tensors"] = 5.into(), "model tensors: 5 in all, 21 as listed"),
        (|audit| audit["untouched"]["tensors"] = 5.into(), "untouched tensors: 5 in all, 7 as"),
        (|audit| audit["untouched"]["elements"] = 5.into(), "untouched elements: 5 in all"),
        (|audit| audit["skipped"][0]["elements"] = u64::MAX.into(), "no number as listed"),
        (|audit| audit["sign_bit_zero"]["elements"] = 5.into(), "zeros with a sign bit: 5 in all"),
        (
            |audit| audit["tensors"][0]["changed"] = audit["tensors"][0]["elements"].clone(),
            "changed weights: 0 in all",
        ),
    ];
    for (change, needle) in changes {
        work.changed_audit("changed", change);
        work.fails("audit --from-report changed/physarium.audit.json", needle);
        work.fails("report changed/physarium.audit.json", needle);
    }
}

#[test]
fn the_journal_of_another_model_makes_a_page_and_is_read_back() {
    let work = Work::new();
    // Its projections have fewer weights than the journal has zeros.
    let tensors = llama_tensors(Kind::Bf16, 2, [320, 160, 32]);
    write_checkpoint(&work.path("smaller"), &tensors, 2, Fill::Gaussian(3)).unwrap();
    work.ok("prune model --out sparse --method magnitude --sparsity 0.9 --quiet");
    let audited =
        "audit smaller --from-journal sparse/physarium.journal.jsonl --report smaller-audit";
    let (code, stdout, stderr) = work.run(audited);
    assert_eq!(code, 1, "{stderr}");
    assert!(stdout.contains("false: journal: processed elements = target elements"), "{stdout}");
    let audit = work.json("smaller-audit/physarium.audit.json");
    assert!(audit["zero"]["elements"].as_u64() > audit["target"]["elements"].as_u64());
    assert!(audit["processed"]["elements"].as_u64() > audit["model"]["elements"].as_u64());
    let page = fs::read_to_string(work.path("smaller-audit/physarium.audit.html")).unwrap();
    assert!(page.contains("of the counts are false."));
    for report in ["smaller-audit/physarium.audit.html", "smaller-audit/physarium.audit.json"] {
        let (code, again, stderr) = work.run(&format!("audit --from-report {report}"));
        assert_eq!(code, 1, "{stderr}");
        assert!(stdout.starts_with(&again), "{again}");
    }
    work.ok("report smaller-audit --out page.html");
    assert_eq!(fs::read_to_string(work.path("page.html")).unwrap(), page);
    // What was not counted in bytes may be too much; it has to add up all the same.
    fs::create_dir(work.path("changed")).unwrap();
    let mut changed = audit.clone();
    changed["processed"]["of_target"]["part"] = 7.into();
    fs::write(work.path("changed/physarium.audit.json"), changed.to_string()).unwrap();
    work.fails("report changed", "a share of 7 in");
}

#[test]
fn a_page_of_several_documents_is_read_again() {
    let work = Work::new();
    work.ok("prune model --out other --method magnitude --sparsity 0.5 --quiet");
    work.ok("audit other --against model --report second --quiet");
    work.ok("report audit second --out both.html");
    work.ok("report both.html audit --out again.html --pictures charts");
    let page = fs::read_to_string(work.path("again.html")).unwrap();
    for heading in [">both-1</th>", ">both-2</th>", ">audit</th>"] {
        assert!(page.contains(heading), "{heading}");
    }
    for chart in ["both-1-flow.svg", "both-2-tiles.svg", "audit-flow.svg"] {
        assert!(work.path("charts").join(chart).exists(), "{chart}");
    }
    work.fails("audit --from-report both.html", "expected the report of one audit, found several");
}

#[test]
fn a_note_on_tensors_that_differ_is_on_the_page() {
    let work = Work::new();
    let tensors = llama_tensors(Kind::Bf16, 2, [320, 160, 480]);
    write_checkpoint(&work.path("handed"), &tensors, 2, Fill::Gaussian(3)).unwrap();
    let shard = work.path("handed/model-00001-of-00002.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(bytes[8..8 + header].to_vec()).unwrap();
    let info: Value = serde_json::from_str(&text).unwrap();
    let norm = "model.layers.0.input_layernorm.weight";
    let begin = info[norm]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + begin] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let said = format!("1 tensor that is no target differs from the original: {norm}");
    let shown = work.ok("audit handed --against model --report handed-audit");
    assert!(shown.contains(&format!("note: {said}\n")), "{shown}");
    let page = fs::read_to_string(work.path("handed-audit/physarium.audit.html")).unwrap();
    assert!(page.contains(&format!("<p>Note: {said}</p>")));
}

#[test]
fn the_picture_tells_changed_weights_and_claims_nothing_of_what_cannot_be_compared() {
    let work = Work::new();
    let shard = "model-00001-of-00002.safetensors";
    let other = |dir: &str, change: &dyn Fn(&mut Vec<u8>)| {
        work.ok(&format!("prune model --out {dir} --quiet"));
        for record in ["physarium.journal.jsonl", "physarium.manifest.json"] {
            fs::remove_file(work.path(dir).join(record)).unwrap();
        }
        let mut bytes = fs::read(work.path(dir).join(shard)).unwrap();
        change(&mut bytes);
        fs::write(work.path(dir).join(shard), bytes).unwrap();
        work.ok(&format!("audit {dir} --against model --report {dir}-audit --quiet"));
        let page = fs::read_to_string(work.path(&format!("{dir}-audit/physarium.audit.html")));
        page.unwrap()
    };
    let find = |bytes: &[u8], what: &[u8]| {
        bytes.windows(what.len()).position(|here| here == what).unwrap()
    };
    // A weight of a projection that is not zero.
    let updated = other("updated", &|bytes| {
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let names: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let (_, q) = names
            .as_object()
            .unwrap()
            .iter()
            .find(|(name, _)| name.ends_with("q_proj.weight"))
            .unwrap();
        let begin = 8 + header + q["data_offsets"][0].as_u64().unwrap() as usize;
        let at = (begin..).step_by(2).find(|at| bytes[at + 1] & 0x7f != 0).unwrap();
        bytes[at] ^= 1;
    });
    assert!(updated.contains("kept as before") && updated.contains("changed otherwise"));
    // The shape of one projection is another one.
    let reshaped = other("reshaped", &|bytes| {
        let at = find(bytes, b"[160,320]");
        bytes[at..at + 9].copy_from_slice(b"[320,160]");
    });
    assert!(reshaped.contains(">not zero<") && !reshaped.contains("kept as before"));
    assert!(reshaped.contains("is not known: some targets cannot be compared with the original"));
}

#[test]
fn what_is_no_report_is_refused_by_name() {
    let work = Work::new();
    fs::write(work.path("page.html"), "<html><p>nothing</p></html>").unwrap();
    fs::write(work.path("other.json"), r#"{"schema": "physarium.eval/9"}"#).unwrap();
    fs::create_dir(work.path("empty")).unwrap();
    work.fails("audit --from-report page.html", "page.html: expected a page of physarium");
    work.fails("report other.json", "schema \"physarium.eval/9\"");
    work.fails("report empty", "empty: expected physarium.audit.json");
    work.fails("report nowhere", "nowhere: cannot read");
    work.fails("report audit --out out/page.html", "written into the checkpoint");
    work.fails("report audit --pictures out", "written into the checkpoint");
    work.fails("audit out --from-report audit", "cannot be used with");
    work.fails("audit", "required");
    assert!(!work.path("physarium.report.html").exists());
}

#[test]
fn a_report_replaces_none_of_its_inputs() {
    let work = Work::new();
    let json = "audit/physarium.audit.json";
    let page = "audit/physarium.audit.html";
    let picture = "charts/audit-flow.svg";
    fs::create_dir(work.path("charts")).unwrap();
    fs::copy(work.path(json), work.path(picture)).unwrap();
    let before = [json, page, picture].map(|file| fs::read(work.path(file)).unwrap());
    for (arguments, needle) in [
        (format!("{json} --out {json}"), format!("--out {json}: would replace {json}")),
        (format!("audit --out ./audit/../{json}"), "would replace audit/".to_owned()),
        (format!("audit {page} --out {page}"), format!("would replace {page}")),
        (
            format!("{picture} audit --out page.html --pictures charts"),
            format!("--pictures {picture}: would replace {picture}"),
        ),
        (
            "audit --out charts/audit-tiles.svg --pictures charts".to_owned(),
            "--pictures charts/audit-tiles.svg: would replace charts/audit-tiles.svg".to_owned(),
        ),
    ] {
        work.fails(&format!("report {arguments}"), &needle);
        let after = [json, page, picture].map(|file| fs::read(work.path(file)).unwrap());
        assert!(after == before, "{arguments}");
        assert!(!work.path("page.html").exists(), "{arguments}");
    }
    // A page beside the JSON that it is made of.
    work.ok(&format!("report audit --out {page}"));
    work.ok(&format!("audit --from-report {page}"));
}

#[test]
fn names_of_strangers_are_text() {
    let work = Work::new();
    let names = [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>\u{202e}",
        &"x".repeat(10_000),
    ];
    work.changed_audit("hostile", |audit| {
        for (index, name) in names.iter().enumerate() {
            audit["tensors"][index]["name"] = (*name).into();
            audit["warnings"] = vec![*name].into();
            let projection = &mut audit["projections"][index];
            let role = projection["projection"].take();
            projection["projection"] = (*name).into();
            projection["of_projection"]["of"] = (*name).into();
            let mut tensors = audit["tensors"].as_array_mut().unwrap().iter_mut();
            let mut renamed = 0;
            while let Some(tensor) = tensors.find(|tensor| tensor["role"] == role) {
                tensor["role"] = (*name).into();
                renamed += 1;
            }
            assert_eq!(renamed, 2);
        }
    });
    work.ok("report hostile --out page.html");
    let page = fs::read_to_string(work.path("page.html")).unwrap();
    for raw in ["<script>alert", "<img", "\u{202e}"] {
        assert!(!page.contains(raw), "{raw}");
    }
}

#[test]
fn several_documents_stand_side_by_side() {
    let work = Work::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let demo = demo.display();
    work.ok("prune model --out other --method magnitude --sparsity 0.5 --quiet");
    work.ok("audit other --against model --report second --quiet");
    work.ok(&format!(
        "compare {demo}/model --out table --text {demo}/heldout.txt --methods magnitude --sparsity 0.3,0.5 \
         --eval-window 64 --limit 512 --quiet"
    ));
    let evaluation = work.ok(&format!(
        "eval {demo}/model --text {demo}/heldout.txt --window 64 --limit 512 --format json --quiet"
    ));
    fs::write(work.path("eval.json"), evaluation).unwrap();
    let item = r#"{"context": "The fox", "choices": [" ran", " slept"], "answer": 0}"#;
    fs::write(work.path("items.jsonl"), item).unwrap();
    let choices = work.ok(&format!(
        "eval {demo}/model --choices items.jsonl --text {demo}/heldout.txt --window 64 --limit 512 --format json --quiet"
    ));
    fs::write(work.path("both.json"), choices).unwrap();
    work.ok("report audit second table eval.json both.json --out all.html --pictures charts");
    let page = fs::read_to_string(work.path("all.html")).unwrap();
    for heading in [
        ">audit</th>",
        ">second</th>",
        ">eval</th>",
        ">both</th>",
        "normalised accuracy",
        "Comparison: table",
        "id=\"side-by-side\"",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
    let mut charts: Vec<String> = fs::read_dir(work.path("charts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    charts.sort();
    let of_table = ["kl", "perplexity", "size", "top-1"].map(|name| format!("table-{name}.svg"));
    let of_audits = ["audit-flow.svg", "audit-tiles.svg", "second-flow.svg", "second-tiles.svg"];
    assert_eq!(charts, [of_audits.map(str::to_owned), of_table].concat());
    work.fails("report audit audit --pictures charts", "audit: two documents have this name");
    // The same comparison, in its own directory and by `report`, has the same page.
    work.ok("report table --out again.html");
    let [first, again] =
        ["table/compare.html", "again.html"].map(|file| fs::read(work.path(file)).unwrap());
    assert!(first == again);
    let packed = &work.json("table/physarium.compare.json")["runs"][1]["weights"];
    assert!(packed["packed"].as_u64().unwrap() < packed["dense"].as_u64().unwrap());
}
