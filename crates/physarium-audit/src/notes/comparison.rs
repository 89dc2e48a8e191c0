//! What is odd about the comparison with the original.

use std::collections::{BTreeMap, HashSet};

use physarium_checkpoint::{Checkpoint, printable, sorted_naturally};

use super::beside::files_note;
use super::words::{counted, names, tensors_are};
use crate::count::pairs::{Mismatch, Pair, Pairs, Renaming};
use crate::count::recount::Found;
use crate::report::audit::Model;
use crate::report::share::{Share, grouped};

/// What is odd about the comparison with the original. `found` are the counts of each pair, if weights were read.
pub(crate) fn comparison_notes(
    pairs: &Pairs<'_>,
    found: Option<&[Found]>,
    sides: [&Checkpoint; 2],
) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(pairs.renaming.as_ref().map(renaming_note));
    notes.extend(cast_notes(&pairs.all, found));
    notes.extend(differing_note(&pairs.all, found));
    notes.extend(mismatch_notes(&pairs.all));
    notes.extend(lost_note(&pairs.all, sides[1]));
    notes.extend(size_note(sides));
    notes.extend(files_note(sides));
    notes
}

/// That names differ by a prefix.
fn renaming_note(renaming: &Renaming) -> String {
    let shown = |prefix: &str| match prefix.strip_suffix('.') {
        None => "no prefix".to_owned(),
        Some(prefix) => format!("the prefix {}", printable(prefix)),
    };
    format!(
        "names have {} here and {} in the original; tensors are compared by the rest of their names",
        shown(&renaming.here),
        shown(&renaming.there)
    )
}

/// The tensors that cannot be compared, one note for each reason.
fn mismatch_notes(pairs: &[Pair<'_>]) -> Vec<String> {
    let mut kinds: BTreeMap<String, Vec<&Pair<'_>>> = BTreeMap::new();
    for pair in pairs {
        let what = match &pair.mismatch {
            None => continue,
            Some(Mismatch::NotInOriginal) => "not in the original".to_owned(),
            Some(Mismatch::Shape(_)) => "another shape in the original".to_owned(),
            Some(Mismatch::Dtype(there)) => {
                format!("{} here, {there} in the original", pair.planned.input.dtype)
            }
        };
        kinds.entry(what).or_default().push(pair);
    }
    let note = |(what, pairs): (String, Vec<&Pair<'_>>)| {
        let pairs = sorted_naturally(pairs.into_iter(), |pair| &pair.planned.input.name);
        let tensors: Vec<&str> =
            pairs.iter().map(|pair| pair.planned.input.name.as_str()).collect();
        let shapes = match &pairs[0].mismatch {
            Some(Mismatch::Shape(there)) => {
                let first = if pairs.len() > 1 { "the first " } else { "" };
                format!(" ({first}{:?} here, {there:?} there)", pairs[0].planned.input.shape)
            }
            _ => String::new(),
        };
        format!("{} cannot be compared, {what}: {}{shapes}", counted(pairs.len()), names(&tensors))
    };
    kinds.into_iter().map(note).collect()
}

/// The tensors of the original that the checkpoint does not have.
fn lost_note(pairs: &[Pair<'_>], original: &Checkpoint) -> Option<String> {
    let kept: HashSet<&str> = pairs.iter().filter_map(|pair| pair.counterpart).collect();
    let lost = original.tensors().map(|(_, tensor)| tensor);
    let lost: Vec<_> = lost.filter(|tensor| !kept.contains(tensor.name.as_str())).collect();
    let elements: u64 = lost.iter().map(|tensor| tensor.elements).sum();
    let tensors: Vec<&str> = lost.iter().map(|tensor| tensor.name.as_str()).collect();
    let share = Share::new(elements, Model::of(original).elements, "its elements").sentence();
    (!lost.is_empty()).then(|| {
        format!(
            "{} in the original, not in this checkpoint ({share}): {}",
            tensors_are(lost.len()),
            names(&tensors)
        )
    })
}

/// That the two have other numbers of elements, so that a share of one is no share of the other.
fn size_note(sides: [&Checkpoint; 2]) -> Option<String> {
    let [here, there] = sides.map(|side| Model::of(side).elements);
    (here != there).then(|| {
        format!(
            "the model has {} elements, the original {}; shares of the model are of the former",
            grouped(here),
            grouped(there)
        )
    })
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
            *overflowed += found.map_or(0, |found| found[at].tally().overflowed);
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
