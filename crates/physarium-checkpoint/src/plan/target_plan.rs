/*!
The target plan: for each tensor of the checkpoint, as which matrices it is pruned, or why it is not.

In: a checkpoint's headers and the user's globs. Out: one decision per tensor, in file order. Every tensor is
in the plan; "skipped" in a report means every tensor that is not a target.
*/

use crate::error::{Error, Result};
use crate::escape::printable;
use crate::open::checkpoint::{Checkpoint, Shard};
use crate::open::header::TensorInfo;

use super::encoded::{decode_hint, encoded_projections};
use super::family::Family;
use super::language_model::{LanguageModel, LeftAlone};
use super::names::{Named, Naming};
use super::selection::{Selection, TargetNames};
use super::site::{MatrixView, Orientation};
use super::skip_reason::SkipReason;
use super::views::views;

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
    /// What the default targets leave alone in the decoder's layers; `None` with targets that the user selects.
    pub left_alone: Option<LeftAlone>,
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
        let infos = || checkpoint.tensors().map(|(_, tensor)| tensor);
        let family = Family::read(checkpoint.dir());
        let by_default = selection.target.is_empty();
        let language_model = by_default.then(|| LanguageModel::of(infos(), &family));
        let rules = Rules { checkpoint, names: &names, language_model: language_model.as_ref() };
        let mut tensors = Vec::new();
        for (shard_index, shard) in checkpoint.shards().iter().enumerate() {
            for info in &shard.tensors {
                let named = names.named(&info.name);
                let views = named.as_ref().map_or_else(Vec::new, |n| views(info, n, &family));
                let action = match &named {
                    None => Action::Copy(SkipReason::NotATarget),
                    Some(_) => rules.decide(info, &views),
                };
                let input = info.clone();
                tensors.push(PlannedTensor { shard: shard_index, input, named, views, action });
            }
        }
        let naming = Naming::of(infos().map(|tensor| tensor.name.as_str()));
        let left_alone = language_model.and_then(|model| model.left_alone(infos()));
        Ok(TargetPlan { tensors, naming, left_alone })
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
            Action::Copy(reason) if reason.is_projection() => Some(reason.to_string()),
            _ => None,
        });
        let mut count = 0;
        for reason in by_name {
            count += 1;
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let is_taken_out = |tensor: &&PlannedTensor| {
            matches!(tensor.action, Action::Copy(SkipReason::SkipPattern(_)))
        };
        let taken_out = self.tensors.iter().filter(is_taken_out).count();
        let encoded = encoded_projections(checkpoint);
        let why = if taken_out > 0 {
            format!("--skip takes out all targets, {taken_out} tensors")
        } else if encoded.iter().any(|encoded| !encoded.is_plain_dtype()) {
            let formats: Vec<String> = encoded.iter().map(ToString::to_string).collect();
            format!("{}\n{}", formats.join("; "), decode_hint(&encoded))
        } else if count > 0 {
            format!("all {count} projections are skipped: {}", reasons.join("; "))
        } else {
            format!("none of the {} tensors is a target by its name", self.tensors.len())
        };
        let why = match &self.left_alone {
            Some(left) if encoded.is_empty() => {
                let pattern = printable(&left.pattern);
                format!("{why}; --target '{pattern}' takes the matrices of its layers")
            }
            _ => why,
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

/// What decides about the tensors whose names the selection takes.
struct Rules<'a> {
    checkpoint: &'a Checkpoint,
    names: &'a TargetNames,
    /// Only with the default targets.
    language_model: Option<&'a LanguageModel>,
}

impl Rules<'_> {
    /// What happens to such a tensor.
    fn decide(&self, info: &TensorInfo, views: &[MatrixView]) -> Action {
        if let Some(glob) = self.names.skip_pattern(&info.name) {
            return Action::Copy(SkipReason::SkipPattern(glob.to_owned()));
        }
        let against = self.language_model.and_then(|model| model.reason_against(&info.name));
        if let Some(reason) = against {
            return Action::Copy(reason);
        }
        if !self.checkpoint.is_listed(&info.name) {
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
}
