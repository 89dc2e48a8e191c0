//! The audit's result, field by field as in `physarium.audit.json` (`docs/FORMATS.md`).

use physarium_checkpoint::Dtype;
use serde::{Deserialize, Serialize};

use crate::claims::Judgement;
use crate::identity::Identity;
use crate::share::Share;

/// Schema of [`Audit`] as JSON.
pub(crate) const SCHEMA: &str = "physarium.audit/1";

/// What the numbers were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Every weight was read again.
    Bytes,
    /// Headers and a journal; no weight was read.
    Journal,
}

/// What tells pruned weights from weights that were zero before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The original checkpoint's bytes.
    Original,
    /// The journal's count of weights that were zero before.
    Journal,
    /// Nothing: zeros are known, pruned weights are not.
    None,
}

/// A coverage audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// `physarium.audit/1`.
    pub schema: String,
    /// What the numbers were read from.
    pub basis: Basis,
    /// What tells pruned from already zero.
    pub base: Base,
    /// Whether every identity holds.
    pub denominator_correct: bool,
    /// The identities.
    pub identities: Vec<Identity>,
    /// The whole checkpoint.
    pub model: Model,
    /// The projections that are to be pruned.
    pub target: Target,
    /// What the engine visited; unknown without a journal and an original.
    pub processed: Option<Counted>,
    /// Weights of the targets that are zero, for whatever reason.
    pub zero: Changed,
    /// Weights zeroed by the pruning.
    pub pruned: Option<Pruned>,
    /// Weights that were zero before.
    pub already_zero: Option<Changed>,
    /// Zeros with a sign bit (-0.0).
    pub sign_bit_zero: Option<Changed>,
    /// Weights that are neither as they were nor zero.
    pub changed: Option<Changed>,
    /// Everything that is no target.
    pub untouched: Untouched,
    /// Tiles of the targets, where the method knows tiles and a journal tells of them.
    pub tiles: Option<TileCoverage>,
    /// The targets by projection.
    pub projections: Vec<Projection>,
    /// The targets one by one.
    pub tensors: Vec<Tensor>,
    /// The rest one by one.
    pub skipped: Vec<Skipped>,
    /// Oddities of the checkpoint.
    pub warnings: Vec<String>,
    /// Judgements of claims; empty when there were none to judge.
    pub claims: Vec<Judgement>,
}

/// The whole checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Tensors in the headers.
    pub tensors: u64,
    /// Elements in the headers.
    pub elements: u64,
}

/// The projections that are to be pruned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// How many.
    pub tensors: u64,
    /// Their elements.
    pub elements: u64,
    /// Share of the model.
    pub of_model: Share,
}

/// What was processed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Tensors.
    pub tensors: u64,
    /// Elements.
    pub elements: u64,
    /// Share of the target.
    pub of_target: Share,
    /// Share of the model.
    pub of_model: Share,
}

/// What was pruned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pruned {
    /// Elements.
    pub elements: u64,
    /// Share of the target.
    pub of_target: Share,
    /// Share of the model.
    pub of_model: Share,
}

/// A count among the targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Elements.
    pub elements: u64,
    /// Share of the target.
    pub of_target: Share,
}

/// Everything that is no target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Untouched {
    /// Tensors that are no target and not known to differ from the original.
    pub tensors: u64,
    /// Their elements.
    pub elements: u64,
    /// Share of the model.
    pub of_model: Share,
    /// Whether their bytes were compared with the original's.
    pub compared: bool,
    /// Tensors that are no target and differ from the original.
    pub differing: Vec<String>,
}

/// Tiles of the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileCoverage {
    /// Edge of a tile, in weights.
    pub block_size: u64,
    /// Tiles that the shapes make, counted by the auditor.
    pub expected: u64,
    /// Tiles that the journal says were visited.
    pub visited: u64,
    /// Weights in those tiles, each counted once.
    pub elements: u64,
}

/// The targets of one projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// Its name: `mlp.down_proj`.
    pub projection: String,
    /// Tensors.
    pub tensors: u64,
    /// Elements.
    pub elements: u64,
    /// Weights zeroed by the pruning.
    pub pruned: Option<u64>,
    /// Share of the projection.
    pub of_projection: Option<Share>,
    /// Least sparsity (zeros of any origin in a matrix) over its matrices: tensors, or experts of stacks.
    pub sparsity_min: f64,
    /// Mean sparsity over its matrices, each weighted the same.
    pub sparsity_mean: f64,
    /// Greatest sparsity over its matrices.
    pub sparsity_max: f64,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its projection's name.
    pub role: String,
    /// Its layer, where its name has one.
    pub layer: Option<u64>,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Elements.
    pub elements: u64,
    /// Elements that were processed.
    pub processed: Option<u64>,
    /// Weights that are zero.
    pub zero: u64,
    /// Weights zeroed by the pruning.
    pub pruned: Option<u64>,
    /// Weights that were zero before.
    pub already_zero: Option<u64>,
    /// Zeros with a sign bit.
    pub sign_bit_zero: Option<u64>,
    /// Weights that are neither as they were nor zero.
    pub changed: Option<u64>,
    /// Its matrices one by one, of a fused tensor or stacked experts; their counts add up to the tensor's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrices: Vec<Matrix>,
}

impl Tensor {
    /// The sparsity of each of its matrices; of the tensor, where it is one or nothing else is known.
    pub(crate) fn sparsities(&self) -> Vec<f64> {
        if self.matrices.is_empty() {
            return vec![self.zero as f64 / self.elements as f64];
        }
        self.matrices.iter().map(|matrix| matrix.zero as f64 / matrix.elements as f64).collect()
    }
}

/// One matrix of a target that has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    /// Which map it is: `gate_proj`.
    pub map: String,
    /// Which expert it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<u32>,
    /// Elements.
    pub elements: u64,
    /// Weights that are zero.
    pub zero: u64,
    /// Weights zeroed by the pruning.
    pub pruned: Option<u64>,
}

/// One tensor that is no target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Elements.
    pub elements: u64,
    /// Why it is no target.
    pub reason: String,
}
