//! What reports say about stacked experts.

use physarium_audit::{Audit, Base, Basis, markdown, text};
use physarium_checkpoint::journal;
use physarium_fixtures::{Kind, Tensor};
use serde_json::json;

use super::{DOWN, GATE_UP, Stacks, failed};

/// The table of projections as text.
const TABLE: &str = "
projection                tensors  elements  pruned  of projection  sparsity of a matrix, min / mean / max
mlp.experts.down_proj           1        24       6        25.00 %             16.67 % / 29.17 % / 41.67 %
mlp.experts.gate_up_proj        1        48      14        29.17 %              8.33 % / 29.17 % / 50.00 %
";

const PRUNED: [&str; 2] = [
    "mlp.experts.down_proj: 2 experts; \
     least pruned 16.67 % of model.layers.3.mlp.experts.down_proj, expert 0; \
     most pruned 33.33 % of model.layers.3.mlp.experts.down_proj, expert 1",
    "mlp.experts.gate_up_proj: 2 experts; \
     least pruned 8.33 % of model.layers.3.mlp.experts.gate_up_proj, expert 1 (gate_proj); \
     most pruned 50.00 % of model.layers.3.mlp.experts.gate_up_proj, expert 0 (up_proj)",
];

const ZEROS: [&str; 2] = [
    "mlp.experts.down_proj: 2 experts; \
     fewest zeros 16.67 % of model.layers.3.mlp.experts.down_proj, expert 0; \
     most zeros 41.67 % of model.layers.3.mlp.experts.down_proj, expert 1",
    "mlp.experts.gate_up_proj: 2 experts; \
     fewest zeros 8.33 % of model.layers.3.mlp.experts.gate_up_proj, expert 1 (gate_proj); \
     most zeros 50.00 % of model.layers.3.mlp.experts.gate_up_proj, expert 0 (up_proj)",
];

const UNKNOWN: [&str; 2] = [
    "mlp.experts.down_proj: 2 experts; zeros of single experts are unknown",
    "mlp.experts.gate_up_proj: 2 experts; zeros of single experts are unknown",
];

/// Asserts that both reports have these lines on experts under the table of projections, and no others.
#[track_caller]
fn assert_lines(audit: &Audit, lines: &[&str]) {
    let text = text(audit);
    let found: Vec<&str> = text.lines().filter(|line| line.contains(" experts; ")).collect();
    assert_eq!(found, lines, "{text}");
    let table = text.find("\nprojection ").unwrap();
    assert!(table < text.find(lines[0]).unwrap() && text.contains(&format!("\n\n{}\n", lines[0])));
    let markdown = markdown(audit);
    let items = lines.iter().map(|line| format!("- {line}\n")).collect::<String>();
    assert!(markdown.contains(&format!(" |\n\n{items}\n## Checks of the counts")), "{markdown}");
}

#[test]
fn the_least_and_the_most_pruned_expert_of_each_projection_are_named() {
    let stacks = Stacks::new();
    let audit = stacks.audit(Some(&stacks.path("base")));
    assert_eq!((failed(&audit), audit.base), (vec![], Base::Original));
    assert!(text(&audit).contains(TABLE), "{}", text(&audit));
    assert_lines(&audit, &PRUNED);
    let header = "| of projection | sparsity of a matrix, min / mean / max |";
    assert!(markdown(&audit).contains(header), "{}", markdown(&audit));
}

#[test]
fn a_journal_with_matrices_gives_the_same_lines() {
    let stacks = Stacks::new();
    let from_journal = stacks.audit_from_journal().unwrap();
    assert_eq!((failed(&from_journal), from_journal.basis), (vec![], Basis::Journal));
    assert!(text(&from_journal).contains(TABLE), "{}", text(&from_journal));
    assert_lines(&from_journal, &PRUNED);
    let alone = stacks.audit(None);
    assert_eq!((failed(&alone), alone.base), (vec![], Base::Journal));
    assert_lines(&alone, &PRUNED);
}

#[test]
fn without_matrices_in_the_journal_single_experts_are_unknown() {
    let mut stacks = Stacks::new();
    for name in [DOWN, GATE_UP] {
        stacks.record(name).as_object_mut().unwrap().remove("matrices");
    }
    let from_journal = stacks.audit_from_journal().unwrap();
    assert_eq!(failed(&from_journal), [""; 0]);
    assert_lines(&from_journal, &UNKNOWN);
    // The weights give the zeros, but not which of them were zero before.
    let alone = stacks.audit(None);
    assert_eq!((failed(&alone), alone.base), (vec![], Base::Journal));
    assert_eq!(alone.pruned.as_ref().unwrap().elements, 20);
    assert_lines(&alone, &ZEROS);
    assert_lines(&stacks.audit(Some(&stacks.path("base"))), &PRUNED);
}

#[test]
fn without_journal_and_original_experts_are_ranked_by_zeros() {
    let stacks = Stacks::new();
    let audit = stacks.audit_by(None, physarium_audit::Evidence::Bytes).unwrap();
    assert_eq!((audit.base, audit.pruned.is_none()), (Base::None, true));
    assert!(!stacks.path("out").join(journal::FILE_NAME).exists());
    assert_lines(&audit, &ZEROS);
}

#[test]
fn an_expert_that_is_one_matrix_needs_no_map() {
    // Stored `[in_features, out_features]`: gate and up have no border between rows.
    let stacks = Stacks { dir: tempfile::tempdir().unwrap(), records: Vec::new() };
    let down = Tensor::new(DOWN, Kind::Bf16, &[2, 3, 4]);
    let gate_up = Tensor::new(GATE_UP, Kind::Bf16, &[2, 4, 6]);
    let stacks = stacks.with([down, gate_up], &json!({"model_type": "gpt_oss", "hidden_size": 4}));
    let audit = stacks.audit_by(Some(&stacks.path("base")), physarium_audit::Evidence::Bytes);
    let line = "mlp.experts.gate_up_proj: 2 experts; \
         least pruned 20.83 % of model.layers.3.mlp.experts.gate_up_proj, expert 1; \
         most pruned 37.50 % of model.layers.3.mlp.experts.gate_up_proj, expert 0";
    assert_lines(&audit.unwrap(), &[PRUNED[0], line]);
}

#[test]
fn a_report_says_what_it_takes_from_the_journal() {
    let stacks = Stacks::new();
    let base = stacks.path("base");
    let without = stacks.audit_by(Some(&base), physarium_audit::Evidence::Bytes).unwrap();
    let with = stacks.audit(Some(&base));
    for (audit, basis, row) in
        [(without, Basis::Bytes, "processed "), (with, Basis::Journal, "processed (journal) ")]
    {
        let processed = audit.processed.as_ref().unwrap();
        assert_eq!((processed.basis, processed.elements), (basis, 72));
        assert!(text(&audit).contains(&format!("\n{row} ")), "{}", text(&audit));
        assert!(markdown(&audit).contains(&format!("\n| {}|", row)), "{}", markdown(&audit));
    }
}
