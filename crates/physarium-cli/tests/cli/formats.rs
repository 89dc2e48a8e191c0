//! The program reads the examples in docs/FORMATS.md.

use std::fs;
use std::path::Path;

use physarium::audit::{AuditRequest, Claims, Evidence, audit};
use physarium::checkpoint::journal::{Checks, Journal};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};

/// The text of the fenced block with this info string.
pub fn block(info: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/FORMATS.md");
    let text = fs::read_to_string(path).unwrap();
    let begin = text.find(&format!("```{info}\n")).unwrap() + info.len() + 4;
    text[begin..begin + text[begin..].find("```").unwrap()].to_owned()
}

#[test]
fn the_documented_journal_and_claims_are_valid() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = [
        Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bf16, &[16, 32]),
        Tensor::new("model.norm.weight", Kind::Bf16, &[16]),
    ];
    write_checkpoint(dir.path(), &tensors, 1, Fill::Sparse).unwrap();
    let (journal, claims) = (dir.path().join("journal.jsonl"), dir.path().join("claims.toml"));
    fs::write(&journal, block("jsonl journal")).unwrap();
    fs::write(&claims, block("toml claims")).unwrap();
    assert_eq!(Journal::read(&journal, Checks::IfPresent).unwrap().tensors.len(), 2);
    let request = AuditRequest {
        dir: dir.path(),
        against: None,
        evidence: Evidence::Journal(journal),
        selection: None,
        threads: 1,
    };
    let found = audit(&request, &mut |_| Ok(())).unwrap();
    assert!(found.denominator_correct, "{:#?}", found.identities);
    assert_eq!(Claims::read(&claims).unwrap().judge(&found).unwrap().len(), 2);
}

#[test]
fn the_documented_plan_has_the_fields_of_a_plan() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let out = dir.path().join("out");
    let planned = std::process::Command::new(env!("CARGO_BIN_EXE_physarium"))
        .arg("plan")
        .args([&demo.join("model"), Path::new("--out"), &out])
        .args("--method wanda --sparsity 0.5 --calibration-tokens 512 --window 128".split(' '))
        .output()
        .unwrap();
    assert!(planned.status.success(), "{planned:?}");
    let planned: serde_json::Value = serde_json::from_slice(&planned.stdout).unwrap();
    let documented: serde_json::Value = serde_json::from_str(&block("json units")).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&documented), keys(&planned));
    for unit in documented["units"].as_array().unwrap() {
        let kind = &unit["kind"];
        let mut units = planned["units"].as_array().unwrap().iter();
        let same = units.find(|planned| planned["kind"] == *kind).unwrap();
        assert_eq!(keys(unit), keys(same), "{kind}");
        assert_eq!(keys(&unit["cost"]), keys(&same["cost"]));
    }
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "a plan writes nothing");
}
