/*!
The target plan: for each tensor of the checkpoint, as which matrices it is pruned, or why it is not.

In: a checkpoint's headers and the user's globs. Out: one decision per tensor, in file order. Every tensor is
in the plan; "skipped" in a report means every tensor that is not a target.
*/

use std::fmt;

use crate::error::{Error, Result};
use crate::escape::printable;
use crate::open::checkpoint::{Checkpoint, Shard};
use crate::open::dtype::Dtype;
use crate::open::header::TensorInfo;

use super::encoded::{DECODE_HINT, encoded_projections};
use super::family::Family;
use super::names::{Named, Naming};
use super::selection::{Selection, TargetNames};
use super::site::{MatrixView, Orientation};
use super::views::views;

/// Why a tensor is not pruned. Its text is the `reason` in a journal, so that it must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its name is not that of a projection, or no `--target` pattern matches it.
    NotATarget,
    /// A `--skip` pattern matches it.
    SkipPattern(String),
    /// The index does not list it.
    NotInIndex,
    /// Its dtype cannot be pruned.
    Dtype(Dtype),
    /// It is neither a matrix nor a stack of experts.
    Rank(usize),
    /// It has no elements.
    Empty,
}

impl SkipReason {
    /// Whether the tensor would have been a target by its name: what `--strict` refuses.
    pub fn is_target_by_name(&self) -> bool {
        matches!(self, SkipReason::Dtype(_) | SkipReason::Rank(_) | SkipReason::NotInIndex)
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SkipReason::NotATarget => f.write_str("not a target projection"),
            SkipReason::SkipPattern(glob) => write!(f, "taken out by --skip {}", printable(glob)),
            SkipReason::NotInIndex => f.write_str("not listed in the index"),
            SkipReason::Dtype(dtype) => write!(f, "dtype {dtype} cannot be pruned"),
            SkipReason::Rank(rank) => write!(f, "{rank}-D, expected 2-D"),
            SkipReason::Empty => f.write_str("no elements"),
        }
    }
}

/// What happens to one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Each of its views is pruned.
    Prune,
    /// Its bytes are copied.
    Copy(SkipReason),
}

/// One tensor of the plan.
#[derive(Debug, Clone)]
pub struct PlannedTensor {
    /// Index of its shard in [`Checkpoint::shards`].
    pub shard: usize,
    /// Its header entry.
    pub input: TensorInfo,
    /// What its name says, if the selection takes that name: of every target, and of tensors that are skipped
    /// for another reason than their name.
    pub named: Option<Named>,
    /// The matrices in it, if the selection takes its name; at least one for a target. They cover it without
    /// gaps, in the order of its elements.
    pub views: Vec<MatrixView>,
    /// What happens to it.
    pub action: Action,
}

impl PlannedTensor {
    /// Whether it is pruned.
    pub fn is_target(&self) -> bool {
        self.action == Action::Prune
    }

    /// What the name of a target says.
    ///
    /// # Panics
    /// If the selection does not take the tensor's name; it takes every target's.
    #[track_caller]
    pub fn projection(&self) -> &Named {
        self.named.as_ref().expect("a target is named")
    }
}

/// A decision for every tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct TargetPlan {
    /// Every tensor, in file order (shards by name, tensors by offset).
    pub tensors: Vec<PlannedTensor>,
    /// How the checkpoint spells the names of its language model.
    pub naming: Naming,
}

impl TargetPlan {
    /// Makes the decision for every tensor of `checkpoint`.
    ///
    /// # Errors
    /// `Pattern` for a glob that is not well-formed, `PatternMatchesNothing` for one that matches no
    /// tensor. A plan without targets is not an error here: see [`TargetPlan::require_targets`].
    pub fn new(checkpoint: &Checkpoint, selection: &Selection) -> Result<TargetPlan> {
        let names = TargetNames::new(selection)?;
        names.refuse_unmatched(checkpoint)?;
        let family = Family::read(checkpoint.dir());
        let mut tensors = Vec::new();
        for (shard_index, shard) in checkpoint.shards().iter().enumerate() {
            for info in &shard.tensors {
                let named = names.named(&info.name);
                let views = named.as_ref().map_or_else(Vec::new, |n| views(info, n, &family));
                let action = match &named {
                    None => Action::Copy(SkipReason::NotATarget),
                    Some(_) => decide(checkpoint, &names, info, &views),
                };
                let input = info.clone();
                tensors.push(PlannedTensor { shard: shard_index, input, named, views, action });
            }
        }
        let naming = Naming::of(checkpoint.tensors().map(|(_, tensor)| tensor.name.as_str()));
        Ok(TargetPlan { tensors, naming })
    }

    /// The tensors that are pruned.
    pub fn targets(&self) -> impl Iterator<Item = &PlannedTensor> {
        self.tensors.iter().filter(|tensor| tensor.is_target())
    }

    /// The matrices that are pruned, with their tensors.
    pub fn matrices(&self) -> impl Iterator<Item = (&PlannedTensor, &MatrixView)> {
        self.targets().flat_map(|tensor| tensor.views.iter().map(move |view| (tensor, view)))
    }

    /// Elements of all tensors.
    pub fn model_elements(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.input.elements).sum()
    }

    /// Elements of the targets.
    pub fn target_elements(&self) -> u64 {
        self.targets().map(|tensor| tensor.input.elements).sum()
    }

    /// Fails when no tensor can be pruned, with the reasons.
    ///
    /// # Errors
    /// `NothingToPrune`.
    pub fn require_targets(&self, checkpoint: &Checkpoint) -> Result<()> {
        if self.targets().next().is_some() {
            return Ok(());
        }
        let mut reasons: Vec<String> = Vec::new();
        let by_name = self.tensors.iter().filter_map(|tensor| match &tensor.action {
            Action::Copy(reason) if reason.is_target_by_name() => Some(reason.to_string()),
            _ => None,
        });
        let mut count = 0;
        for reason in by_name {
            count += 1;
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let encoded = encoded_projections(checkpoint);
        let why = if encoded.iter().any(|encoded| !encoded.is_plain_dtype()) {
            let formats: Vec<String> = encoded.iter().map(ToString::to_string).collect();
            format!("{}\n{DECODE_HINT}", formats.join("; "))
        } else if count > 0 {
            format!("all {count} projections are skipped: {}", reasons.join("; "))
        } else {
            format!("none of the {} tensors is a target by its name", self.tensors.len())
        };
        Err(Error::NothingToPrune { dir: checkpoint.dir().to_owned(), why })
    }

    /// `--strict`: fails on the first tensor that is a target by name but cannot be pruned.
    ///
    /// # Errors
    /// `Strict`.
    pub fn refuse_skipped_projections(&self, shards: &[Shard]) -> Result<()> {
        for tensor in &self.tensors {
            if let Action::Copy(reason) = &tensor.action
                && reason.is_target_by_name()
            {
                return Err(Error::Strict {
                    file: shards[tensor.shard].path.clone(),
                    tensor: tensor.input.name.clone(),
                    reason: reason.to_string(),
                });
            }
        }
        Ok(())
    }

    /// The first target with a matrix that is not stored `[out_features, in_features]`, or not known to be:
    /// methods that choose along inputs cannot prune it.
    pub fn first_not_by_rows(&self) -> Option<(&PlannedTensor, Orientation)> {
        let mut matrices = self.matrices();
        matrices.find_map(|(tensor, view)| match view.orientation {
            Orientation::OutIn => None,
            other => Some((tensor, other)),
        })
    }
}

/// What happens to a tensor whose name the selection takes.
fn decide(
    checkpoint: &Checkpoint,
    names: &TargetNames,
    info: &TensorInfo,
    views: &[MatrixView],
) -> Action {
    if let Some(glob) = names.skip_pattern(&info.name) {
        return Action::Copy(SkipReason::SkipPattern(glob.to_owned()));
    }
    if !checkpoint.is_listed(&info.name) {
        return Action::Copy(SkipReason::NotInIndex);
    }
    if !info.dtype.is_prunable() {
        return Action::Copy(SkipReason::Dtype(info.dtype));
    }
    match (views, info.elements) {
        ([], _) => Action::Copy(SkipReason::Rank(info.shape.len())),
        (_, 0) => Action::Copy(SkipReason::Empty),
        _ => Action::Prune,
    }
}
