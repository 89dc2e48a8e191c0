//! Tensors of a checkpoint, each with its counterpart in the original. Tensors are matched by name: another
//! tool may have written the checkpoint in other shards, and with another prefix of all names.

use std::collections::HashMap;

use physarium_checkpoint::{Checkpoint, Dtype, PlannedTensor, Shard, TargetPlan, TensorInfo};

/// A tensor of the checkpoint with its counterpart in the original.
pub(crate) struct Pair<'a> {
    pub planned: &'a PlannedTensor,
    pub shard: &'a Shard,
    /// `None` without an original, and if there is a mismatch.
    pub original: Option<(&'a Shard, &'a TensorInfo)>,
    /// Name of the original's tensor, also if it cannot be compared.
    pub counterpart: Option<&'a str>,
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

/// The tensors of a plan, in its order.
pub(crate) struct Pairs<'a> {
    pub all: Vec<Pair<'a>>,
    /// How the names of the original differ, if tensors were paired by the rest of their names.
    pub renaming: Option<Renaming>,
}

/// A prefix of names, and the one that stands in its place in the original; either may be empty, or ends with a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renaming {
    pub here: String,
    pub there: String,
}

/// The tensors of a checkpoint by name.
type ByName<'a> = HashMap<&'a str, (&'a Shard, &'a TensorInfo)>;

impl Renaming {
    /// The renaming by which more than half of the targets have a counterpart of the same shape, if no target has one of the same
    /// name.
    fn of(plan: &TargetPlan, original: &ByName<'_>) -> Option<Renaming> {
        let targets = || plan.targets().map(|target| &target.input);
        if targets().any(|target| original.contains_key(target.name.as_str())) {
            return None;
        }
        let first = targets().next()?;
        let dots = first.name.match_indices('.').map(|(at, _)| at + 1);
        let renaming = std::iter::once(0).chain(dots).find_map(|at| {
            let (here, rest) = first.name.split_at(at);
            let mut prefixes = original.iter().filter_map(|(name, (_, tensor))| {
                let prefix = name.strip_suffix(rest)?;
                let is_prefix = prefix.is_empty() || prefix.ends_with('.');
                (is_prefix && tensor.shape == first.shape).then_some(prefix)
            });
            let there = prefixes.next()?.to_owned();
            prefixes.next().is_none().then(|| Renaming { here: here.to_owned(), there })
        })?;
        let is_paired = |target: &&TensorInfo| {
            let found = original.get(renaming.name_there(&target.name).as_str());
            found.is_some_and(|(_, there)| there.shape == target.shape)
        };
        (2 * targets().filter(is_paired).count() > targets().count()).then_some(renaming)
    }

    fn name_there(&self, name: &str) -> String {
        match name.strip_prefix(&self.here) {
            Some(rest) => format!("{}{rest}", self.there),
            None => name.to_owned(),
        }
    }
}

/// Finds the counterpart of each tensor of the plan.
pub(crate) fn pair_up<'a>(
    checkpoint: &'a Checkpoint,
    plan: &'a TargetPlan,
    original: Option<&'a Checkpoint>,
) -> Pairs<'a> {
    let by_name: ByName<'a> = original
        .into_iter()
        .flat_map(Checkpoint::tensors)
        .map(|(shard, tensor)| (tensor.name.as_str(), (shard, tensor)))
        .collect();
    let renaming = Renaming::of(plan, &by_name);
    let pair = |planned: &'a PlannedTensor| {
        let shard = &checkpoint.shards()[planned.shard];
        let name = planned.input.name.as_str();
        let renamed = renaming.as_ref().map(|renaming| renaming.name_there(name));
        let found = renamed.and_then(|name| by_name.get(name.as_str())).or(by_name.get(name));
        let there = found.map(|(_, there)| *there);
        let mismatch = original.and_then(|_| Mismatch::of(&planned.input, there));
        let original = found.copied().filter(|_| mismatch.is_none());
        let counterpart = there.map(|there| there.name.as_str());
        Pair { planned, shard, original, counterpart, mismatch }
    };
    let all = plan.tensors.iter().map(pair).collect();
    Pairs { all, renaming }
}
