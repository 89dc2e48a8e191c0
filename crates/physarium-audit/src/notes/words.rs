//! Counts and names in a note.

use physarium_checkpoint::{printable, sorted_naturally};

use crate::report::share::grouped;

/// Names in a note; others are counted.
const SHOWN: usize = 3;

/// The first names in natural order, and the number of others.
pub(crate) fn names(tensors: &[&str]) -> String {
    let all = sorted_naturally(tensors.iter().map(|name| printable(name)), |name| name);
    let shown = all[..all.len().min(SHOWN)].join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {} more", grouped(more as u64)),
    }
}

pub(super) fn counted(tensors: usize) -> String {
    let plural = if tensors == 1 { "" } else { "s" };
    format!("{} tensor{plural}", grouped(tensors as u64))
}

pub(super) fn tensors_are(tensors: usize) -> String {
    format!("{} {}", counted(tensors), if tensors == 1 { "is" } else { "are" })
}
