//! The summary of an audit: one row per count of the whole model.

use super::audit::{Audit, Basis, Model, Target};
use super::share::{Share, grouped};

/// A row of a summary; a cell without a value stays empty.
#[derive(Default)]
pub(super) struct SummaryRow<'a> {
    pub what: &'a str,
    pub tensors: Option<u64>,
    pub elements: u64,
    pub of_target: Option<&'a Share>,
    pub of_model: Option<&'a Share>,
}

impl SummaryRow<'_> {
    pub fn header() -> Vec<String> {
        ["", "tensors", "elements", "of target", "of model"].map(str::to_owned).to_vec()
    }

    pub fn cells(&self) -> Vec<String> {
        let share = |share: Option<&Share>| share.map_or_else(String::new, Share::percent);
        let tensors = self.tensors.map_or_else(String::new, grouped);
        let (target, model) = (share(self.of_target), share(self.of_model));
        vec![self.what.to_owned(), tensors, grouped(self.elements), target, model]
    }
}

impl Model {
    pub(super) fn row(&self) -> SummaryRow<'_> {
        let (tensors, elements) = (Some(self.tensors), self.elements);
        SummaryRow { what: "model", tensors, elements, ..SummaryRow::default() }
    }
}

impl Target {
    pub(super) fn row(&self) -> SummaryRow<'_> {
        let (tensors, elements) = (Some(self.tensors), self.elements);
        let of_model = Some(&self.of_model);
        SummaryRow { what: "target", tensors, elements, of_target: None, of_model }
    }
}

/// Rows of what is counted, tensors, elements, share of the target, share of the model.
pub(super) fn summary(audit: &Audit) -> Vec<Vec<String>> {
    let mut rows = vec![audit.model.row(), audit.target.row()];
    rows.extend(audit.processed.as_ref().map(|processed| SummaryRow {
        what: match processed.basis {
            Basis::Bytes => "processed",
            Basis::Journal => "processed (journal)",
        },
        tensors: Some(processed.tensors),
        elements: processed.elements,
        of_target: Some(&processed.of_target),
        of_model: Some(&processed.of_model),
    }));
    rows.extend(audit.pruned.as_ref().map(|pruned| SummaryRow {
        what: "pruned",
        tensors: None,
        elements: pruned.elements,
        of_target: Some(&pruned.of_target),
        of_model: Some(&pruned.of_model),
    }));
    let among_targets = [
        ("zero", Some(&audit.zero).filter(|_| audit.pruned.is_none())),
        ("already zero", audit.already_zero.as_ref()),
        ("zero with a sign bit", audit.sign_bit_zero.as_ref()),
        ("changed otherwise", audit.changed.as_ref()),
    ];
    rows.extend(among_targets.into_iter().filter_map(|(what, count)| {
        let count = count?;
        let of_target = Some(&count.of_target);
        Some(SummaryRow { what, elements: count.elements, of_target, ..SummaryRow::default() })
    }));
    let untouched = &audit.untouched;
    rows.push(SummaryRow {
        what: if untouched.compared { "untouched" } else { "untouched (not compared)" },
        tensors: Some(untouched.tensors),
        elements: untouched.elements,
        of_target: None,
        of_model: Some(&untouched.of_model),
    });
    rows.iter().map(SummaryRow::cells).collect()
}
