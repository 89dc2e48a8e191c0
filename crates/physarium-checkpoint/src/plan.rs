/*!
The target plan: of each tensor of the checkpoint, whether it is pruned or why not.

In: a checkpoint's headers and the user's globs. Out: one decision per tensor, in file order. No
tensor is missing from the plan; what a report calls "skipped" is exactly what is not a target.
*/

use std::fmt;

use globset::{Glob, GlobMatcher};

use crate::checkpoint::{Checkpoint, Shard};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::header::TensorInfo;
use crate::printable;
use crate::role::Role;

/// Which tensors the user wants pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Globs on tensor names; empty means the default projections.
    pub target: Vec<String>,
    /// Globs on tensor names that are left alone even where `target` takes them.
    pub skip: Vec<String>,
}

/// Rows and columns of a projection, `[out_features, in_features]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionShape {
    /// `out_features`.
    pub rows: u64,
    /// `in_features`.
    pub cols: u64,
}

/// Why a tensor is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its name is not that of a projection, or no `--target` pattern takes it.
    NotATarget,
    /// A `--skip` pattern takes it.
    SkipPattern(String),
    /// The index does not list it.
    NotInIndex,
    /// Its elements cannot be pruned.
    Dtype(Dtype),
    /// It is not 2-D (stacked experts, packed weights).
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
pub enum Decision {
    /// Pruned, as a matrix of this shape.
    Target(ProjectionShape),
    /// Carried byte for byte.
    Skip(SkipReason),
}

/// One tensor of the plan.
#[derive(Debug, Clone)]
pub struct PlannedTensor {
    /// Index of its shard in [`Checkpoint::shards`].
    pub shard: usize,
    /// Its header entry.
    pub info: TensorInfo,
    /// Its place in the decoder; of targets always, of others where the name is a projection's.
    pub role: Option<Role>,
    /// What happens to it.
    pub decision: Decision,
}

impl PlannedTensor {
    /// Rows and columns, of a target.
    pub fn target(&self) -> Option<ProjectionShape> {
        match self.decision {
            Decision::Target(shape) => Some(shape),
            Decision::Skip(_) => None,
        }
    }
}

/// A decision for every tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct TargetPlan {
    /// Every tensor, in file order (shards by name, tensors by offset).
    pub tensors: Vec<PlannedTensor>,
}

impl TargetPlan {
    /// Decides for every tensor of `checkpoint`.
    ///
    /// # Errors
    /// `Pattern` for a glob that is not well-formed, `PatternMatchesNothing` for one that takes no
    /// tensor. That no target is left is not an error here: see [`TargetPlan::require_targets`].
    pub fn new(checkpoint: &Checkpoint, selection: &Selection) -> Result<TargetPlan> {
        let target = compile("--target", &selection.target)?;
        let skip = compile("--skip", &selection.skip)?;
        for pattern in target.iter().chain(&skip) {
            if !checkpoint.tensors().any(|(_, tensor)| pattern.matcher.is_match(&tensor.name)) {
                return Err(Error::PatternMatchesNothing {
                    option: pattern.option,
                    pattern: pattern.glob.clone(),
                    tensors: checkpoint.tensors().count(),
                    dir: checkpoint.dir().to_owned(),
                });
            }
        }
        let mut tensors = Vec::new();
        for (shard_index, shard) in checkpoint.shards().iter().enumerate() {
            for info in &shard.tensors {
                let role = role(&target, info);
                let decision = decide(checkpoint, &skip, role.as_ref(), info);
                tensors.push(PlannedTensor {
                    shard: shard_index,
                    info: info.clone(),
                    role,
                    decision,
                });
            }
        }
        Ok(TargetPlan { tensors })
    }

    /// The tensors that are pruned.
    pub fn targets(&self) -> impl Iterator<Item = (&PlannedTensor, ProjectionShape)> {
        self.tensors.iter().filter_map(|tensor| Some((tensor, tensor.target()?)))
    }

    /// Elements of all tensors.
    pub fn model_elements(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.info.elements).sum()
    }

    /// Elements of the targets.
    pub fn target_elements(&self) -> u64 {
        self.targets().map(|(tensor, _)| tensor.info.elements).sum()
    }

    /// Fails when no tensor can be pruned, saying what the projections are instead.
    ///
    /// # Errors
    /// `NothingToPrune`.
    pub fn require_targets(&self, checkpoint: &Checkpoint) -> Result<()> {
        if self.targets().next().is_some() {
            return Ok(());
        }
        let mut reasons: Vec<String> = Vec::new();
        let by_name = self.tensors.iter().filter_map(|tensor| match &tensor.decision {
            Decision::Skip(reason) if reason.is_target_by_name() => Some(reason.to_string()),
            _ => None,
        });
        let mut count = 0;
        for reason in by_name {
            count += 1;
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let packed = self.tensors.iter().filter(|t| t.info.name.ends_with(".qweight")).count();
        let why = if count > 0 {
            format!("all {count} projections are left out: {}", reasons.join("; "))
        } else if packed > 0 {
            format!("{packed} projections are packed integers (.qweight)")
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
            if let Decision::Skip(reason) = &tensor.decision
                && reason.is_target_by_name()
            {
                return Err(Error::Strict {
                    file: shards[tensor.shard].path.clone(),
                    tensor: tensor.info.name.clone(),
                    reason: reason.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Targets that are stored `[in_features, out_features]` (GPT-2's `Conv1D`): a pattern along
    /// the inputs must not be applied to them.
    pub fn first_transposed_target(&self) -> Option<&PlannedTensor> {
        self.targets().map(|(tensor, _)| tensor).find(|t| Role::is_transposed(&t.info.name))
    }
}

struct Pattern {
    option: &'static str,
    glob: String,
    matcher: GlobMatcher,
}

fn compile(option: &'static str, globs: &[String]) -> Result<Vec<Pattern>> {
    let compile_one = |glob: &String| {
        let matcher = Glob::new(glob)
            .map_err(|source| Error::Pattern { option, pattern: glob.clone(), source })?
            .compile_matcher();
        Ok(Pattern { option, glob: glob.clone(), matcher })
    };
    globs.iter().map(compile_one).collect()
}

/// The role of a tensor that is a target by name.
fn role(target: &[Pattern], info: &TensorInfo) -> Option<Role> {
    if target.is_empty() {
        Role::of_default_target(&info.name)
    } else {
        target.iter().any(|p| p.matcher.is_match(&info.name)).then(|| Role::of(&info.name))
    }
}

fn decide(
    checkpoint: &Checkpoint,
    skip: &[Pattern],
    role: Option<&Role>,
    info: &TensorInfo,
) -> Decision {
    if role.is_none() {
        return Decision::Skip(SkipReason::NotATarget);
    }
    if let Some(pattern) = skip.iter().find(|p| p.matcher.is_match(&info.name)) {
        return Decision::Skip(SkipReason::SkipPattern(pattern.glob.clone()));
    }
    if !checkpoint.is_listed(&info.name) {
        return Decision::Skip(SkipReason::NotInIndex);
    }
    if !info.dtype.is_prunable() {
        return Decision::Skip(SkipReason::Dtype(info.dtype));
    }
    match info.shape[..] {
        [rows, cols] if rows > 0 && cols > 0 => Decision::Target(ProjectionShape { rows, cols }),
        [_, _] => Decision::Skip(SkipReason::Empty),
        _ => Decision::Skip(SkipReason::Rank(info.shape.len())),
    }
}
