/*!
Whether the original is one: another model, or the result in the original's place.

A checkpoint is not the original if no target can be compared with it. It is another model, or the result was
retrained, if nearly all remaining target weights *and* nearly all other weights differ: methods that update
remaining weights leave embeddings and norms alone.
*/

use std::path::Path;

use physarium_checkpoint::{Checkpoint, printable};
use physarium_checkpoint::{Dtype, Encoded, encoded_projections, manifest};

use super::compare::Tally;
use super::pairs::{Mismatch, Pair};
use super::recount::Found;
use crate::report::share::{Share, grouped};

/// Share of weights, in percent, that differ between two unrelated models.
const NEARLY_ALL: u64 = 90;

/// Why the original is none: one sentence, `None` if it is. `found` are the counts of each pair.
pub(crate) fn unrelated(
    pairs: &[Pair<'_>],
    found: &[Found],
    [here, original]: [&Checkpoint; 2],
) -> Option<String> {
    let targets = || pairs.iter().filter(|pair| pair.planned.is_target());
    let all = targets().count();
    if all == 0 {
        return None;
    }
    let dirs = [here, original].map(|checkpoint| shown(checkpoint.dir()));
    if targets().any(|pair| pair.mismatch.is_none()) {
        return by_values(pairs, found, &dirs);
    }
    let dtypes: Vec<Dtype> = targets()
        .filter_map(|pair| match &pair.mismatch {
            Some(Mismatch::Dtype(there)) => Some(*there),
            _ => None,
        })
        .collect();
    let [here, there] = dirs;
    if dtypes.len() == all {
        let dtype = dtypes[0];
        return Some(format!(
            "{there} cannot be compared with {here}: its target tensors are {dtype}"
        ));
    }
    let with = |is: fn(&Mismatch) -> bool| {
        pairs.iter().filter(|pair| pair.mismatch.as_ref().is_some_and(is)).count()
    };
    let names = with(|mismatch| *mismatch == Mismatch::NotInOriginal);
    let shapes = with(|mismatch| matches!(mismatch, Mismatch::Shape(_)));
    let encoded: Vec<String> =
        encoded_projections(original).iter().map(Encoded::to_string).collect();
    let stored = match encoded.as_slice() {
        [] => String::new(),
        formats => format!(" (there, {})", formats.join("; ")),
    };
    Some(headers_differ([&here, &there], [names, shapes], pairs.len()) + &stored)
}

/// The sentence on two checkpoints of which so many of `all` tensors have other names, and other shapes.
pub(crate) fn headers_differ(
    [here, original]: [&str; 2],
    [names, shapes]: [usize; 2],
    all: usize,
) -> String {
    let [names, shapes, all] = [names, shapes, all].map(|count| grouped(count as u64));
    let differ = match (&*names, &*shapes) {
        (_, "0") => format!("{names} of {all} tensors have other names"),
        ("0", _) => format!("{shapes} of {all} tensors have other shapes"),
        _ => format!("{names} of {all} tensors have other names, and {shapes} other shapes"),
    };
    let smaller = if names == "0" { ", or rows and columns were cut" } else { "" };
    format!("{original} is not the original of {here}{smaller}: {differ}")
}

/// A directory in a sentence.
pub(crate) fn shown(dir: &Path) -> String {
    printable(&dir.to_string_lossy())
}

/// Judges by the weights that could be compared.
fn by_values(
    pairs: &[Pair<'_>],
    found: &[Found],
    [here, original]: &[String; 2],
) -> Option<String> {
    let (mut remaining, mut changed, mut others, mut differing) = (0, 0, 0, 0);
    for (pair, found) in pairs.iter().zip(found).filter(|(pair, _)| pair.original.is_some()) {
        let info = &pair.planned.input;
        if pair.planned.is_target() {
            let tally = found.tally();
            remaining += info.elements - tally.zeros;
            changed += tally.changed;
        } else if info.dtype.is_prunable() {
            others += info.elements;
            differing += found.tally().differing();
        }
    }
    let nearly_all = |part: u64, whole: u64| {
        whole > 0 && u128::from(part) * 100 > u128::from(whole) * u128::from(NEARLY_ALL)
    };
    (nearly_all(changed, remaining) && nearly_all(differing, others)).then(|| {
        format!(
            "{original} is not the original of {here}, or one of them was retrained: {} and {} differ",
            Share::new(changed, remaining, "the remaining target weights").sentence(),
            Share::new(differing, others, "the other weights").sentence(),
        )
    })
}

/// A hint if the directories look swapped: the original has more zeros than the result.
pub(crate) fn swapped(total: Tally, [here, original]: [&Checkpoint; 2]) -> Option<String> {
    let has_records =
        |checkpoint: &Checkpoint| checkpoint.dir().join(manifest::FILE_NAME).is_file();
    let is_result = (has_records(original) && !has_records(here)) || total.pruned == 0;
    (total.zeros_before > total.zeros && is_result).then(|| {
        let [here, original] = [here, original].map(|checkpoint| shown(checkpoint.dir()));
        format!(
            "{original} has more zeros ({}) than {here} ({}); if it is the pruned one, the directories are \
             swapped: physarium audit {original} --against {here}",
            grouped(total.zeros_before),
            grouped(total.zeros),
        )
    })
}
