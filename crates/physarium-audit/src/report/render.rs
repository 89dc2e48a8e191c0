//! An audit as text for a terminal and as Markdown for a report or a model card.

use physarium_checkpoint::{markdown as markdown_text, printable};

use super::audit::{Audit, Base, Basis, Projection};
use super::experts::expert_lines;
use super::share::{Share, grouped};
use super::summary::{SummaryRow, summary};
use super::table::{aligned, markdown_row};

/// Column headers of the table of projections.
const PROJECTION_COLUMNS: [&str; 6] = [
    "projection",
    "tensors",
    "elements",
    "pruned",
    "of projection",
    "sparsity of a matrix, min / mean / max",
];

/// Tables to paste into a report or a model card.
///
/// A matrix is the tensor of a projection, or one expert of a stack. Under the table of projections, a line
/// for each projection with stacked experts names the least and the most pruned of them.
pub fn markdown(audit: &Audit) -> String {
    let mut out = String::from("# Pruning audit\n\n");
    if let Some(unrelated) = &audit.unrelated {
        return out + &format!("**{}.**\n", markdown_text(unrelated));
    }
    out += &format!("Counted from {}. ", basis(audit));
    out += if audit.denominator_correct {
        "All counts agree with each other.\n\n"
    } else {
        "**Not all counts agree with each other: see the end.**\n\n"
    };
    out += "| what | tensors | elements | of target | of model |\n|---|---:|---:|---:|---:|\n";
    summary(audit).iter().for_each(|row| out += &markdown_row(row));
    if !audit.projections.is_empty() {
        out += "\n## By projection\n\n";
        out += &markdown_row(&PROJECTION_COLUMNS.map(str::to_owned));
        out += "|---|---:|---:|---:|---:|---:|\n";
        projections(audit).iter().for_each(|row| out += &markdown_row(row));
    }
    let experts = expert_lines(audit);
    if !experts.is_empty() {
        out += "\n";
        experts.iter().for_each(|line| out += &format!("- {}\n", markdown_text(line)));
    }
    if !audit.claims.is_empty() {
        out += "\n## Claims\n\n| id | claimed | verdict | should say |\n|---|---|---|---|\n";
        for claim in &audit.claims {
            let say = claim.should_say.as_ref().or(claim.reason.as_ref());
            let say = say.cloned().unwrap_or_default();
            let verdict = claim.verdict.words().to_owned();
            out += &markdown_row(&[printable(&claim.id), printable(&claim.claimed), verdict, say]);
        }
    }
    out += "\n## Checks of the counts\n\nEach compares two numbers that were counted in different ways.\n\n";
    out += "| these are equal | left | right | holds |\n|---|---:|---:|---|\n";
    for identity in &audit.identities {
        let (left, right) = (grouped(identity.left), grouped(identity.right));
        let holds = if identity.holds { "yes" } else { "**no**" };
        out += &format!("| {} | {left} | {right} | {holds} |\n", markdown_text(&identity.says));
    }
    for warning in &audit.warnings {
        out += &format!("\nNote: {}\n", markdown_text(warning));
    }
    out
}

/// The same tables for a terminal.
pub fn text(audit: &Audit) -> String {
    if let Some(unrelated) = &audit.unrelated {
        return format!("{unrelated}\nhint: without --against, audit counts the zeros\n");
    }
    let mut out = format!("audit from {}\n\n", basis(audit));
    out += &aligned(std::iter::once(SummaryRow::header()).chain(summary(audit)));
    if !audit.projections.is_empty() {
        out += "\n";
        let header = PROJECTION_COLUMNS.map(str::to_owned).to_vec();
        out += &aligned(std::iter::once(header).chain(projections(audit)));
    }
    let experts = expert_lines(audit);
    if !experts.is_empty() {
        out += "\n";
        experts.iter().for_each(|line| out += &format!("{line}\n"));
    }
    if let Some(tiles) = audit.tiles {
        out += &format!(
            "\ntiles of {0} x {0}: {1} expected; by the journal {2} visited, with {3} weights\n",
            tiles.block_size,
            grouped(tiles.expected),
            grouped(tiles.visited),
            grouped(tiles.elements)
        );
    }
    if !audit.claims.is_empty() {
        out += "\n";
    }
    for claim in &audit.claims {
        let (id, claimed) = (printable(&claim.id), printable(&claim.claimed));
        out += &format!("claim {id}: {claimed} -> {}", claim.verdict.words());
        if let Some(say) = &claim.should_say {
            out += &format!("; should say {say}");
        }
        if let Some(reason) = &claim.reason {
            out += &format!(": {reason}");
        }
        out += "\n";
    }
    let holding = audit.identities.iter().filter(|identity| identity.holds).count();
    out += &format!("\nchecks of the counts: {holding} of {} hold\n", audit.identities.len());
    for identity in audit.identities.iter().filter(|identity| !identity.holds) {
        let (left, right) = (grouped(identity.left), grouped(identity.right));
        out += &format!("  false: {} ({left} ≠ {right})\n", identity.says);
    }
    for warning in &audit.warnings {
        out += &format!("note: {warning}\n");
    }
    out
}

fn basis(audit: &Audit) -> &'static str {
    match (audit.basis, audit.base) {
        (Basis::Journal, _) => "headers and journal (no weights were read)",
        (Basis::Bytes, Base::Original) => "the bytes of the checkpoint and of its original",
        (Basis::Bytes, Base::Journal) => {
            "the bytes of the checkpoint; its journal gives the count of weights that were zero before"
        }
        (Basis::Bytes, Base::None) => {
            "the bytes of the checkpoint (pruned weights are unknown without --against)"
        }
    }
}

fn projections(audit: &Audit) -> Vec<Vec<String>> {
    let row = |p: &Projection| {
        let share = p.of_projection.as_ref();
        let sparsity = [p.sparsity_min, p.sparsity_mean, p.sparsity_max];
        vec![
            printable(&p.projection),
            grouped(p.tensors),
            grouped(p.elements),
            p.pruned.map_or("unknown".into(), grouped),
            share.map_or("unknown".into(), Share::percent),
            sparsity.map(|s| format!("{:.2} %", 100.0 * s)).join(" / "),
        ]
    };
    audit.projections.iter().map(row).collect()
}
