//! What is odd about one checkpoint.

use std::collections::HashSet;
use std::path::Path;

use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{
    Action, Checkpoint, Encoded, SkipReason, TargetPlan, Warning, config_json,
};

use super::words::{names, tensors_are};
use crate::count::pairs::Pair;
use crate::count::recount::Found;
use crate::report::share::grouped;

/// Irregularities that opening a checkpoint has found.
pub(crate) fn checkpoint_notes(checkpoint: &Checkpoint) -> Vec<String> {
    let (mut notes, mut unlisted) = (Vec::new(), Vec::new());
    for warning in checkpoint.warnings() {
        match warning {
            Warning::Unlisted { tensor, .. } => unlisted.push(tensor.as_str()),
            other => notes.push(other.to_string()),
        }
    }
    if !unlisted.is_empty() {
        notes.push(format!(
            "{} not listed in the index, so that loaders leave them out, and no targets: {}",
            tensors_are(unlisted.len()),
            names(&unlisted)
        ));
    }
    let config = checkpoint.dir().join("config.json");
    if config.symlink_metadata().is_ok() && !config_json(checkpoint.dir()).is_object() {
        notes.push(
            "config.json holds no JSON object; numbers of layers and heads are unknown".to_owned(),
        );
    }
    notes
}

/// The projections in layers beyond those that the config names.
pub(crate) fn beyond_note(plan: &TargetPlan) -> Option<String> {
    let mut why = None;
    let beyond = plan.tensors.iter().filter_map(|tensor| match &tensor.action {
        Action::Copy(reason @ SkipReason::BeyondDecoder { .. }) => {
            why = Some(reason);
            Some(tensor.input.name.as_str())
        }
        _ => None,
    });
    let beyond: Vec<&str> = beyond.collect();
    Some(format!("{} no targets, {}: {}", tensors_are(beyond.len()), why?, names(&beyond)))
}

/// Infinite and NaN weights, except those that are infinite only by the conversion to another element type.
pub(crate) fn non_finite_note(pairs: &[Pair<'_>], found: &[Found]) -> Option<String> {
    let (mut all, mut tensors) = (0, Vec::new());
    for (pair, found) in pairs.iter().zip(found) {
        let tally = found.tally();
        let weights = tally.non_finite - tally.overflowed;
        if weights > 0 {
            all += weights;
            tensors.push(pair.planned.input.name.as_str());
        }
    }
    let weights = match all {
        0 => return None,
        1 => "1 weight is".to_owned(),
        n => format!("{} weights are", grouped(n)),
    };
    Some(format!("{weights} infinite or NaN: {}", names(&tensors)))
}

/// The files that are not the original's, as the manifest says, if there is one that can be read.
pub(crate) fn rewritten_note(dir: &Path) -> Option<String> {
    let manifest = Manifest::read(&dir.join(manifest::FILE_NAME)).ok()?;
    let rewritten: Vec<&str> = manifest.rewritten.iter().map(String::as_str).collect();
    (!rewritten.is_empty())
        .then(|| format!("rewritten with the model card, by the manifest: {}", names(&rewritten)))
}

/// The projections that are not stored as plain weights; `targets` are the names of the targets.
pub(crate) fn encoded_note(encoded: &[Encoded], targets: &HashSet<&str>) -> Option<String> {
    let is_target = |encoded: &&Encoded| targets.contains(encoded.example.as_str());
    let (counted, left_out): (Vec<_>, Vec<_>) = encoded.iter().partition(is_target);
    let formats = |formats: &[&Encoded]| {
        formats.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let without = match targets.len() {
        0 => "nothing can be counted or pruned",
        _ => "not part of the target, and not counted",
    };
    let mut notes = Vec::new();
    if !left_out.is_empty() {
        notes.push(format!("{}: {without}", formats(&left_out)));
    }
    if !counted.is_empty() {
        let what = "counted as stored, without what the format adds, such as masks";
        notes.push(format!("{}: {what}", formats(&counted)));
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}
