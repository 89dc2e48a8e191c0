//! An audit as text for a terminal and as Markdown for a report or a model card.

use physarium_checkpoint::printable;

use crate::Verdict;
use crate::report::{Audit, Base, Basis};
use crate::share::{Share, grouped, percent};

/// Tables to paste into a report or a model card.
pub fn markdown(audit: &Audit) -> String {
    let mut out = String::from("# Pruning audit\n\n");
    out += &format!("Counted from {}. ", basis(audit));
    out += if audit.denominator_correct {
        "Every identity between the numbers holds.\n\n"
    } else {
        "**Not every identity between the numbers holds: see the end.**\n\n"
    };
    out += "| what | tensors | elements | of target | of model |\n|---|---:|---:|---:|---:|\n";
    for row in summary(audit) {
        out += &line(&row);
    }
    out += "\n## By projection\n\n";
    out += "| projection | tensors | elements | pruned | of projection | zeros of tensor, min / mean / max |\n";
    out += "|---|---:|---:|---:|---:|---:|\n";
    for row in projections(audit) {
        out += &line(&row);
    }
    if !audit.claims.is_empty() {
        out += "\n## Claims\n\n| id | claimed | verdict | should say |\n|---|---|---|---|\n";
        for claim in &audit.claims {
            let say = claim.should_say.clone().unwrap_or_default();
            let verdict = verdict(claim.verdict).to_owned();
            out += &line(&[printable(&claim.id), printable(&claim.claimed), verdict, say]);
        }
    }
    out += "\n## Identities\n\n| identity | left | right | holds |\n|---|---:|---:|---|\n";
    for identity in &audit.identities {
        let (left, right) = (grouped(identity.left), grouped(identity.right));
        let holds = if identity.holds { "yes" } else { "**no**" };
        out += &format!("| {} | {left} | {right} | {holds} |\n", identity.says);
    }
    for warning in &audit.warnings {
        out += &format!("\nNote: {warning}\n");
    }
    out
}

/// A row of a table; names from files may hold what would end a cell.
fn line(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The same for a terminal.
pub fn text(audit: &Audit) -> String {
    let mut out = format!("audit from {}\n\n", basis(audit));
    let header = ["", "tensors", "elements", "of target", "of model"].map(str::to_owned);
    out += &aligned(std::iter::once(header.to_vec()).chain(summary(audit)));
    out += "\n";
    let header = [
        "projection",
        "tensors",
        "elements",
        "pruned",
        "of projection",
        "zeros of tensor, min/mean/max",
    ]
    .map(str::to_owned);
    out += &aligned(std::iter::once(header.to_vec()).chain(projections(audit)));
    if let Some(tiles) = audit.tiles {
        out += &format!(
            "\ntiles of {0} x {0}: {1} expected, {2} visited, {3} weights in them\n",
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
        out += &format!("claim {id}: {claimed} -> {}", verdict(claim.verdict));
        if let Some(say) = &claim.should_say {
            out += &format!("; should say {say}");
        }
        out += "\n";
    }
    let holding = audit.identities.iter().filter(|identity| identity.holds).count();
    out += &format!("\nidentities: {holding} of {} hold\n", audit.identities.len());
    for identity in audit.identities.iter().filter(|identity| !identity.holds) {
        let (left, right) = (grouped(identity.left), grouped(identity.right));
        out += &format!("  false: {}: {left} is not {right}\n", identity.says);
    }
    for warning in &audit.warnings {
        out += &format!("note: {warning}\n");
    }
    out
}

fn basis(audit: &Audit) -> &'static str {
    match (audit.basis, audit.base) {
        (Basis::Journal, _) => "headers and journal (no weight was read)",
        (Basis::Bytes, Base::Original) => "the bytes of the checkpoint and of its original",
        (Basis::Bytes, Base::Journal) => {
            "the bytes of the checkpoint (what was zero before is taken from its journal)"
        }
        (Basis::Bytes, Base::None) => {
            "the bytes of the checkpoint (without --against, pruned and already zero look the same)"
        }
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Correct => "correct",
        Verdict::Denominator => "wrong or missing denominator",
        Verdict::Wrong => "wrong",
    }
}

/// Rows of what, tensors, elements, share of target, share of model.
fn summary(audit: &Audit) -> Vec<Vec<String>> {
    let share = |share: &Share| format!("{} %", percent(share.part, share.whole, 2));
    let none = String::new;
    let row = |what: &str, tensors: Option<u64>, elements: u64, target: String, model: String| {
        let tensors = tensors.map_or_else(none, grouped);
        vec![what.to_owned(), tensors, grouped(elements), target, model]
    };
    let (model, target) = (&audit.model, &audit.target);
    let mut rows = vec![
        row("model", Some(model.tensors), model.elements, none(), none()),
        row("target", Some(target.tensors), target.elements, none(), share(&target.of_model)),
    ];
    if let Some(p) = &audit.processed {
        let (of_target, of_model) = (share(&p.of_target), share(&p.of_model));
        rows.push(row("processed", Some(p.tensors), p.elements, of_target, of_model));
    }
    if let Some(p) = &audit.pruned {
        rows.push(row("pruned", None, p.elements, share(&p.of_target), share(&p.of_model)));
    }
    let counts = [
        ("already zero", &audit.already_zero),
        ("zero with a sign bit", &audit.sign_bit_zero),
        ("changed otherwise", &audit.changed),
    ];
    if audit.pruned.is_none() {
        rows.push(row("zero", None, audit.zero.elements, share(&audit.zero.of_target), none()));
    }
    for (what, count) in counts {
        if let Some(count) = count {
            rows.push(row(what, None, count.elements, share(&count.of_target), none()));
        }
    }
    let u = &audit.untouched;
    let what = if u.compared { "untouched" } else { "untouched (not compared)" };
    rows.push(row(what, Some(u.tensors), u.elements, none(), share(&u.of_model)));
    rows
}

fn projections(audit: &Audit) -> Vec<Vec<String>> {
    let row = |p: &crate::Projection| {
        let share = p.of_projection.as_ref();
        let sparsity = [p.sparsity_min, p.sparsity_mean, p.sparsity_max];
        vec![
            printable(&p.projection),
            grouped(p.tensors),
            grouped(p.elements),
            p.pruned.map_or("unknown".into(), grouped),
            share.map_or("unknown".into(), |s| format!("{} %", percent(s.part, s.whole, 2))),
            sparsity.map(|s| format!("{s:.4}")).join(" / "),
        ]
    };
    audit.projections.iter().map(row).collect()
}

/// Columns padded to their widest cell: the first to the left, the others to the right.
pub(crate) fn aligned(rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match i {
                0 => line += &format!("{cell:<width$}"),
                _ => line += &format!("  {cell:>width$}"),
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}
