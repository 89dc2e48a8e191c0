//! Tensors of a checkpoint, each with its counterpart in the original. Tensors are matched by name: another
//! tool may have written the checkpoint in other shards.

use std::collections::HashMap;

use physarium_checkpoint::{Checkpoint, Dtype, PlannedTensor, Shard, TargetPlan, TensorInfo};

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
    /// The original's tensor has this shape.
    Shape(Vec<u64>),
    /// The original's tensor has this element type, and one of the two types is not of weights.
    Dtype(Dtype),
}

impl Mismatch {
    /// Whether a tensor cannot be compared with this one of the original.
    pub fn of(here: &TensorInfo, there: Option<&TensorInfo>) -> Option<Mismatch> {
        let Some(there) = there else { return Some(Mismatch::NotInOriginal) };
        let convertible = here.dtype.is_prunable() && there.dtype.is_prunable();
        if here.shape != there.shape {
            Some(Mismatch::Shape(there.shape.clone()))
        } else if here.dtype != there.dtype && !convertible {
            Some(Mismatch::Dtype(there.dtype))
        } else {
            None
        }
    }
}

impl Pair<'_> {
    /// The element types here and in the original if they differ and the weights are compared by value.
    pub fn cast(&self) -> Option<[Dtype; 2]> {
        let (_, original) = self.original?;
        let dtypes = [self.planned.input.dtype, original.dtype];
        (dtypes[0] != dtypes[1]).then_some(dtypes)
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
        let there = found.map(|(_, there)| there);
        let mismatch = original.and_then(|_| Mismatch::of(&planned.input, there));
        let original = found.filter(|_| mismatch.is_none());
        Pair { planned, shard, original, mismatch }
    };
    plan.tensors.iter().map(pair).collect()
}
