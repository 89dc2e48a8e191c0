//! Notes of an audit: what is odd about a checkpoint or its comparison with the original. One note for each
//! kind, with the number of tensors and the first names.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{Checkpoint, Encoded, Warning, printable, sorted_naturally};

use super::pairs::{Mismatch, Pair};
use super::recount::Found;
use crate::report::share::grouped;

/// Names in a note; others are counted.
const SHOWN: usize = 3;

/// Irregularities that opening a checkpoint has found.
pub(crate) fn checkpoint_notes(checkpoint: &Checkpoint) -> Vec<String> {
    let (mut notes, mut unlisted) = (Vec::new(), Vec::new());
    for warning in checkpoint.warnings() {
        match warning {
            Warning::Unlisted { tensor, .. } => unlisted.push(tensor.as_str()),
            other => notes.push(other.to_string()),
        }
    }
    match unlisted.len() {
        0 => {}
        1 => notes.extend(checkpoint.warnings().iter().filter_map(|warning| match warning {
            Warning::Unlisted { .. } => Some(warning.to_string()),
            _ => None,
        })),
        _ => notes.push(format!(
            "{} not listed in the index; copied byte for byte, not pruned: {}",
            tensors_are(unlisted.len()),
            names(&unlisted)
        )),
    }
    notes
}

/// The files that are not the original's, as the manifest says, if there is one that can be read.
pub(crate) fn rewritten_note(dir: &Path) -> Option<String> {
    let manifest = Manifest::read(&dir.join(manifest::FILE_NAME)).ok()?;
    let rewritten: Vec<&str> = manifest.rewritten.iter().map(String::as_str).collect();
    (!rewritten.is_empty())
        .then(|| format!("rewritten with the model card, by the manifest: {}", names(&rewritten)))
}

/// The projections that cannot be counted; `counted` is the number of target tensors.
pub(crate) fn encoded_note(encoded: &[Encoded], counted: u64) -> Option<String> {
    let formats: Vec<String> = encoded.iter().map(ToString::to_string).collect();
    let left_out = match counted {
        0 => "nothing can be counted or pruned",
        _ => "not part of the target, and not counted",
    };
    (!formats.is_empty()).then(|| format!("{}: {left_out}", formats.join("; ")))
}

/// What is odd about the comparison with the original. `found` are the counts of each pair, if weights were read.
pub(crate) fn comparison_notes(
    pairs: &[Pair<'_>],
    found: Option<&[Found]>,
    [here, original]: [&Checkpoint; 2],
) -> Vec<String> {
    let mut notes = cast_notes(pairs, found);
    notes.extend(differing_note(pairs, found));
    let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pair in pairs {
        let info = &pair.planned.input;
        let what = match &pair.mismatch {
            None => continue,
            Some(Mismatch::NotInOriginal) => "not in the original".to_owned(),
            Some(Mismatch::Shape(_)) => "another shape in the original".to_owned(),
            Some(Mismatch::Dtype(there)) => format!("{} here, {there} in the original", info.dtype),
        };
        kinds.entry(what).or_default().push(&info.name);
    }
    notes.extend(kinds.into_iter().map(|(what, tensors)| {
        format!("{} cannot be compared, {what}: {}", counted(tensors.len()), names(&tensors))
    }));
    let there: HashSet<&str> = here.tensors().map(|(_, tensor)| tensor.name.as_str()).collect();
    let names_of_original = original.tensors().map(|(_, tensor)| tensor.name.as_str());
    let lost: Vec<&str> = names_of_original.filter(|name| !there.contains(name)).collect();
    if !lost.is_empty() {
        let what = "in the original, not in this checkpoint";
        notes.push(format!("{} {what}: {}", tensors_are(lost.len()), names(&lost)));
    }
    notes
}

/// The tensors that are no targets and were compared, and differ.
fn differing_note(pairs: &[Pair<'_>], found: Option<&[Found]>) -> Option<String> {
    let others = pairs.iter().zip(found?).filter(|(pair, _)| !pair.planned.is_target());
    let differing: Vec<&str> = others
        .filter(|(_, found)| found.differs)
        .map(|(pair, _)| pair.planned.input.name.as_str())
        .collect();
    let what = match differing.len() {
        0 => return None,
        1 => "1 tensor that is no target differs".to_owned(),
        n => format!("{} that are no targets differ", counted(n)),
    };
    Some(format!("{what} from the original: {}", names(&differing)))
}

/// One note for each two element types that are compared by value.
fn cast_notes(pairs: &[Pair<'_>], found: Option<&[Found]>) -> Vec<String> {
    let mut casts: BTreeMap<[&str; 2], (usize, u64)> = BTreeMap::new();
    for (at, pair) in pairs.iter().enumerate() {
        if let Some(dtypes) = pair.cast() {
            let (tensors, overflowed) = casts.entry(dtypes.map(|d| d.name())).or_default();
            *tensors += 1;
            *overflowed += found.map_or(0, |found| found[at].overflowed());
        }
    }
    let note = |([here, there], (tensors, overflowed)): ([&str; 2], (usize, u64))| {
        let beyond = match overflowed {
            0 => String::new(),
            1 => format!("; 1 weight is beyond the range of {here}: infinite here"),
            n => format!("; {} weights are beyond the range of {here}: infinite here", grouped(n)),
        };
        format!(
            "{}: {here} here, {there} in the original: compared by value{beyond}",
            counted(tensors)
        )
    };
    casts.into_iter().map(note).collect()
}

/// The first names in natural order, and the number of others.
pub(crate) fn names(tensors: &[&str]) -> String {
    let all = sorted_naturally(tensors.iter().map(|name| printable(name)), |name| name);
    let shown = all[..all.len().min(SHOWN)].join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {} more", grouped(more as u64)),
    }
}

fn counted(tensors: usize) -> String {
    let plural = if tensors == 1 { "" } else { "s" };
    format!("{} tensor{plural}", grouped(tensors as u64))
}

fn tensors_are(tensors: usize) -> String {
    format!("{} {}", counted(tensors), if tensors == 1 { "is" } else { "are" })
}
