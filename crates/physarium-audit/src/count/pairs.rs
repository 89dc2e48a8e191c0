//! Tensors of a checkpoint, each with its counterpart in the original. Tensors are matched by name: another
//! tool may have written the checkpoint in other shards.

use std::collections::{HashMap, HashSet};
use std::fmt;

use physarium_checkpoint::{Checkpoint, PlannedTensor, Shard, TargetPlan, TensorInfo, printable};

/// A tensor of the checkpoint with its counterpart in the original.
pub(crate) struct Pair<'a> {
    pub planned: &'a PlannedTensor,
    pub shard: &'a Shard,
    /// `None` without an original, and if there is a mismatch.
    pub original: Option<(&'a Shard, &'a TensorInfo)>,
    pub mismatch: Option<Mismatch>,
}

/// Why a tensor cannot be compared with the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The original has no tensor of this name.
    NotInOriginal,
    /// The original's tensor has this element type and shape.
    Different(String),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::NotInOriginal => f.write_str("not in the original"),
            Mismatch::Different(what) => write!(f, "{what} in the original"),
        }
    }
}

/// Finds the counterpart of each tensor of the plan.
pub(crate) fn pair_up<'a>(
    checkpoint: &'a Checkpoint,
    plan: &'a TargetPlan,
    original: Option<&'a Checkpoint>,
) -> Vec<Pair<'a>> {
    let by_name: HashMap<&str, (&Shard, &TensorInfo)> = original
        .into_iter()
        .flat_map(Checkpoint::tensors)
        .map(|(shard, tensor)| (tensor.name.as_str(), (shard, tensor)))
        .collect();
    let pair = |planned: &'a PlannedTensor| {
        let shard = &checkpoint.shards()[planned.shard];
        let found = by_name.get(planned.input.name.as_str()).copied();
        let (original, mismatch) = match (original, found) {
            (None, _) => (None, None),
            (Some(_), None) => (None, Some(Mismatch::NotInOriginal)),
            (Some(_), Some((_, there))) if !same_kind(&planned.input, there) => {
                let what = format!("{} {:?}", there.dtype, there.shape);
                (None, Some(Mismatch::Different(what)))
            }
            (Some(_), found) => (found, None),
        };
        Pair { planned, shard, original, mismatch }
    };
    plan.tensors.iter().map(pair).collect()
}

fn same_kind(a: &TensorInfo, b: &TensorInfo) -> bool {
    a.dtype == b.dtype && a.shape == b.shape
}

/// A warning for each tensor without a counterpart, on either side.
pub(crate) fn unmatched(
    pairs: &[Pair<'_>],
    here: &Checkpoint,
    original: Option<&Checkpoint>,
) -> Vec<String> {
    let warning = |pair: &Pair<'_>| {
        let name = printable(&pair.planned.input.name);
        Some(format!("tensor {name}: cannot be compared: {}", pair.mismatch.as_ref()?))
    };
    let mut warnings: Vec<String> = pairs.iter().filter_map(warning).collect();
    let names: HashSet<&str> = here.tensors().map(|(_, tensor)| tensor.name.as_str()).collect();
    let lost = original.into_iter().flat_map(Checkpoint::tensors);
    let lost = lost.filter(|(_, tensor)| !names.contains(tensor.name.as_str()));
    warnings.extend(lost.map(|(_, tensor)| {
        format!("tensor {}: in the original, not in this checkpoint", printable(&tensor.name))
    }));
    warnings
}
