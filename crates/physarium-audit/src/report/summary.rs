//! The summary of an audit: one row per count of the whole model.

use super::audit::{Audit, Base, Basis, Changed, Model, Target};
use super::share::{Share, grouped};

/// A row of a summary; a cell without a value stays empty, elements without one are unknown.
#[derive(Default)]
pub(super) struct SummaryRow<'a> {
    pub what: &'a str,
    pub tensors: Option<u64>,
    pub elements: Option<u64>,
    pub of_target: Option<Share>,
    pub of_model: Option<Share>,
}

impl SummaryRow<'_> {
    pub fn header() -> Vec<String> {
        ["", "tensors", "elements", "of target", "of model"].map(str::to_owned).to_vec()
    }

    pub fn cells(&self) -> Vec<String> {
        let share = |share: &Option<Share>| share.as_ref().map_or_else(String::new, Share::percent);
        let elements = self.elements.map_or_else(|| "unknown".to_owned(), grouped);
        let tensors = self.tensors.map_or_else(String::new, grouped);
        let (target, model) = (share(&self.of_target), share(&self.of_model));
        vec![self.what.to_owned(), tensors, elements, target, model]
    }
}

impl Model {
    pub(super) fn row(&self) -> SummaryRow<'static> {
        let (tensors, elements) = (Some(self.tensors), Some(self.elements));
        SummaryRow { what: "model", tensors, elements, ..SummaryRow::default() }
    }
}

impl Target {
    pub(super) fn row(&self) -> SummaryRow<'static> {
        let (tensors, elements) = (Some(self.tensors), Some(self.elements));
        let of_model = Some(self.of_model.clone());
        SummaryRow { what: "target", tensors, elements, of_target: None, of_model }
    }
}

/// Rows of what is counted, tensors, elements, share of the target, share of the model. A count that is not known
/// though there is an original is there as unknown; without targets there are no counts.
pub(super) fn summary(audit: &Audit) -> Vec<Vec<String>> {
    let mut rows = vec![audit.model.row(), audit.target.row()];
    if audit.target.tensors > 0 {
        rows.extend(counts(audit));
    }
    rows.extend(others(audit));
    rows.iter().map(SummaryRow::cells).collect()
}

/// The tensors that are not targets. Those that differ, or cannot be compared, have rows only if there are some.
fn others(audit: &Audit) -> Vec<SummaryRow<'static>> {
    let untouched = &audit.untouched;
    let row = |what, tensors, elements| SummaryRow {
        what,
        tensors,
        elements: Some(elements),
        of_target: None,
        of_model: Some(audit.model.share(elements)),
    };
    let what = if untouched.compared { "untouched" } else { "untouched (not compared)" };
    let mut rows = vec![row(what, Some(untouched.tensors), untouched.elements)];
    let [differing, uncompared] = audit.not_untouched();
    if differing.tensors > 0 {
        rows.push(row("not targets, changed", Some(differing.tensors), differing.elements));
    }
    let pruned = audit.outside.as_ref().and_then(|outside| outside.pruned.as_ref());
    if let Some(pruned) = pruned.filter(|pruned| pruned.elements > 0) {
        rows.push(row("  of these pruned", None, pruned.elements));
    }
    if uncompared.tensors > 0 {
        rows.push(row(
            "not targets, not comparable",
            Some(uncompared.tensors),
            uncompared.elements,
        ));
    }
    rows
}

/// The counts among the targets: what was processed, and the zeros.
fn counts(audit: &Audit) -> Vec<SummaryRow<'static>> {
    let unknown = |what| SummaryRow { what, ..SummaryRow::default() };
    let against = audit.base == Base::Original;
    let processed = audit.processed.as_ref().map(|processed| SummaryRow {
        what: match processed.basis {
            Basis::Bytes => "processed",
            Basis::Journal => "processed (journal)",
        },
        tensors: Some(processed.tensors),
        elements: Some(processed.elements),
        of_target: Some(processed.of_target.clone()),
        of_model: Some(processed.of_model.clone()),
    });
    let pruned = audit.pruned.as_ref().map(|pruned| SummaryRow {
        what: "pruned",
        tensors: None,
        elements: Some(pruned.elements),
        of_target: Some(pruned.of_target.clone()),
        of_model: Some(pruned.of_model.clone()),
    });
    let mut rows = Vec::new();
    rows.extend(processed.or_else(|| against.then(|| unknown("processed"))));
    rows.push(among_targets("zero now", &audit.zero));
    rows.extend(pruned.or_else(|| against.then(|| unknown("pruned"))));
    let converted = audit.pruned_by_conversion.as_ref().filter(|count| count.elements > 0);
    rows.extend(converted.map(|count| among_targets("  of these by conversion", count)));
    rows.extend(audit.zero_before.as_ref().map(|count| among_targets("zero before", count)));
    let revived = audit.no_longer_zero.as_ref().filter(|count| count.elements > 0);
    rows.extend(revived.map(|count| among_targets("no longer zero", count)));
    let others =
        [("zero with a sign bit", &audit.sign_bit_zero), ("changed otherwise", &audit.changed)];
    rows.extend(
        others.into_iter().filter_map(|(what, count)| Some(among_targets(what, count.as_ref()?))),
    );
    rows
}

fn among_targets(what: &'static str, count: &Changed) -> SummaryRow<'static> {
    let of_target = Some(count.of_target.clone());
    SummaryRow { what, elements: Some(count.elements), of_target, ..SummaryRow::default() }
}
