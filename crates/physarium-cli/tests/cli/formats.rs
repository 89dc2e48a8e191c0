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
