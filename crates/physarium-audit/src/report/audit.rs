//! The result of an audit, field by field as in `physarium.audit.json` (`docs/FORMATS.md`).
//!
//! A *matrix* is the unit that is pruned by itself: the tensor of a projection, one map of a fused tensor,
//! or one map of one expert of a stack.

use std::collections::HashMap;

use physarium_checkpoint::{
    Action, Checkpoint, Dtype, Encoded, PlannedTensor, TargetPlan, sorted_naturally,
};
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::judgement::Judgement;
use super::provenance::Provenance;
use super::share::Share;
use crate::tiles::{MagnifiedTile, TileMap};

/// Schema of [`Audit`] as JSON.
pub(crate) const SCHEMA: &str = "physarium.audit/1";

/// What numbers are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The weights, all of which were read.
    Bytes,
    /// Headers and a journal; no weights were read.
    Journal,
}

/// What distinguishes pruned weights from weights that were zero before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The bytes of the original checkpoint.
    Original,
    /// The journal's count of weights that were zero before.
    Journal,
    /// Nothing: zeros are counted, but pruned weights are unknown.
    None,
}

/// A coverage audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// `physarium.audit/1`.
    pub schema: String,
    /// What the numbers are taken from.
    pub basis: Basis,
    /// What distinguishes pruned weights from weights that were zero before.
    pub base: Base,
    /// Whether all identities hold.
    pub denominator_correct: bool,
    /// Why the original is none: it is another model, or nearly all weights differ. The counts against it then
    /// mean nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrelated: Option<String>,
    /// Equations between the numbers.
    pub identities: Vec<Identity>,
    /// The whole checkpoint.
    pub model: Model,
    /// The whole original, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Model>,
    /// The tensors selected for pruning.
    pub target: Target,
    /// Processed weights; `None` without a journal and an original.
    pub processed: Option<Counted>,
    /// Weights of the targets that are zero for any reason.
    pub zero: Changed,
    /// Weights zeroed by pruning.
    pub pruned: Option<Pruned>,
    /// Pruned weights that the conversion to the element type of this checkpoint makes zero; `None` if the
    /// original has the same types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned_by_conversion: Option<Changed>,
    /// Weights that were zero before and still are.
    pub already_zero: Option<Changed>,
    /// Weights that were zero before, whether they still are or not.
    #[serde(default)]
    pub zero_before: Option<Changed>,
    /// Those of them that are not zero now; `None` without the original.
    #[serde(default)]
    pub no_longer_zero: Option<Changed>,
    /// Zeros with a sign bit (-0.0).
    pub sign_bit_zero: Option<Changed>,
    /// Nonzero weights that differ from the original, those that were zero among them.
    pub changed: Option<Changed>,
    /// Tensors that are not targets.
    pub untouched: Untouched,
    /// Weights of tensors that are not targets; `None` if no weights were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// Tiles of the targets; `None` if the method has no tiles or no journal records them.
    pub tiles: Option<TileCoverage>,
    /// The targets by projection.
    pub projections: Vec<Projection>,
    /// The targets, one entry per tensor.
    pub tensors: Vec<Tensor>,
    /// The tensors that are not targets.
    pub skipped: Vec<Skipped>,
    /// Projections that cannot be counted because they are not stored as plain weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encoded: Vec<Encoded>,
    /// Irregularities of the checkpoint and of its comparison with the original.
    pub warnings: Vec<String>,
    /// Judgements of claims; empty if there are no claims.
    pub claims: Vec<Judgement>,
    /// A tile of each projection, weight by weight; empty if no weights were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub magnified: Vec<MagnifiedTile>,
    /// What was audited, and how the checkpoint was made as far as it says so; `None` in reports of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

impl Audit {
    /// The tensors that are not targets and are not as before: those that differ from the original, and those that cannot be
    /// compared with it.
    pub fn not_untouched(&self) -> [Model; 2] {
        let elements: HashMap<&str, u64> =
            self.skipped.iter().map(|tensor| (tensor.name.as_str(), tensor.elements)).collect();
        [&self.untouched.differing, &self.untouched.uncompared].map(|names| Model {
            tensors: names.len() as u64,
            elements: names.iter().filter_map(|name| elements.get(name.as_str())).sum(),
        })
    }
}

/// A whole checkpoint, or some tensors of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Tensors in the headers.
    pub tensors: u64,
    /// Elements in the headers.
    pub elements: u64,
}

impl Model {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Model {
        let elements = checkpoint.tensors().map(|(_, tensor)| tensor.elements).sum();
        Model { tensors: checkpoint.tensors().count() as u64, elements }
    }

    /// `elements` as a share of the model.
    pub(crate) fn share(&self, elements: u64) -> Share {
        Share::new(elements, self.elements, "model")
    }
}

/// The tensors selected for pruning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Number of tensors.
    pub tensors: u64,
    /// Their elements.
    pub elements: u64,
    /// Share of the model.
    pub of_model: Share,
}

impl Target {
    pub(crate) fn of(plan: &TargetPlan, model: &Model) -> Target {
        let elements = plan.target_elements();
        let of_model = model.share(elements);
        Target { tensors: plan.targets().count() as u64, elements, of_model }
    }

    /// `elements` as a share of the target.
    pub(crate) fn share(&self, elements: u64) -> Share {
        Share::new(elements, self.elements, "target")
    }
}

/// Processed weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Where the count is from: what the journal records, or the targets whose bytes differ from the original.
    pub basis: Basis,
    /// Tensors.
    pub tensors: u64,
    /// Elements.
    pub elements: u64,
    /// Share of the target.
    pub of_target: Share,
    /// Share of the model.
    pub of_model: Share,
}

/// Pruned weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pruned {
    /// Elements.
    pub elements: u64,
    /// Share of the target.
    pub of_target: Share,
    /// Share of the model.
    pub of_model: Share,
}

/// A count among the weights of the targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Elements.
    pub elements: u64,
    /// Share of the target.
    pub of_target: Share,
}

/// The tensors that are not targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Untouched {
    /// Number of these tensors, without those that differ from the original or cannot be compared with it.
    pub tensors: u64,
    /// Their elements.
    pub elements: u64,
    /// Share of the model.
    pub of_model: Share,
    /// Whether their bytes were compared with the original's.
    pub compared: bool,
    /// Names of the tensors that are not targets and differ from the original.
    pub differing: Vec<String>,
    /// Names of the tensors that are not targets and cannot be compared: the original has none of this name, or one of
    /// another shape, or of a type that is not compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncompared: Vec<String>,
}

/// Weights of the tensors that are not targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outside {
    /// Weights that are zero for any reason.
    pub zero: OfModel,
    /// Weights that are zero and were not: those of tensors that the original does not have were not there before. `None` if it
    /// is not known.
    pub pruned: Option<OfModel>,
    /// Weights that were zero before and still are; `None` if it is not known.
    pub already_zero: Option<OfModel>,
}

/// A count in the whole model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfModel {
    /// Elements.
    pub elements: u64,
    /// Share of the model.
    pub of_model: Share,
}

/// Tiles of the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileCoverage {
    /// Side length of a tile, in weights.
    pub block_size: u64,
    /// Tiles by the shapes of the matrices, counted by the auditor.
    pub expected: u64,
    /// Tiles that the journal records as visited.
    pub visited: u64,
    /// Weights in those tiles by the journal, each counted once.
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
    /// Weights zeroed by pruning.
    pub pruned: Option<u64>,
    /// Share of the projection.
    pub of_projection: Option<Share>,
    /// Minimum sparsity of its matrices. The sparsity of a matrix is its share of zeros of any origin.
    pub sparsity_min: f64,
    /// Mean sparsity of its matrices, each with the same weight.
    pub sparsity_mean: f64,
    /// Maximum sparsity of its matrices.
    pub sparsity_max: f64,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its projection's name.
    pub role: String,
    /// Its layer; `None` if its name has none.
    pub layer: Option<u64>,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Elements.
    pub elements: u64,
    /// Processed elements.
    pub processed: Option<u64>,
    /// Weights that are zero.
    pub zero: u64,
    /// Weights zeroed by pruning.
    pub pruned: Option<u64>,
    /// Weights that were zero before and still are.
    pub already_zero: Option<u64>,
    /// Weights that were zero before and are not.
    #[serde(default)]
    pub no_longer_zero: Option<u64>,
    /// Zeros with a sign bit.
    pub sign_bit_zero: Option<u64>,
    /// Nonzero weights that differ from the original.
    pub changed: Option<u64>,
    /// Relative squared error of its outputs on calibration tokens, as the journal states it; `None` if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// The same before remaining weights were updated, as the journal states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_before_update: Option<f64>,
    /// Zeros of its tiles; `None` if no weights were read, and for a tensor of several matrices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile_map: Option<TileMap>,
    /// The matrices of a fused tensor or a stack of experts; their counts add up to the tensor's. Empty for
    /// a tensor of one matrix, and if nothing is known about single matrices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrices: Vec<Matrix>,
}

impl Tensor {
    /// Number of experts stacked in it; 0 if it is not a stack. Only stacks have three dimensions.
    pub(crate) fn experts(&self) -> u64 {
        match self.shape[..] {
            [experts, _, _] => experts,
            _ => 0,
        }
    }

    /// The tile maps of its matrices, as far as their zeros were counted.
    pub fn tile_maps(&self) -> impl Iterator<Item = &TileMap> {
        let of_matrices = self.matrices.iter().filter_map(|matrix| matrix.tile_map.as_ref());
        self.tile_map.iter().chain(of_matrices)
    }

    /// The sparsity of each of its matrices; that of the tensor if its matrices are not known.
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
    /// Its map: `gate_proj`.
    pub map: String,
    /// Number of its expert; `None` in a fused tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<u32>,
    /// Elements.
    pub elements: u64,
    /// Weights that are zero.
    pub zero: u64,
    /// Weights zeroed by pruning.
    pub pruned: Option<u64>,
    /// Zeros of its tiles; `None` if no weights were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile_map: Option<TileMap>,
}

/// One tensor that is not a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Elements.
    pub elements: u64,
    /// Why it is not a target.
    pub reason: String,
}

impl Skipped {
    /// The tensors that are not targets, in the natural order of their names.
    pub(crate) fn all(plan: &TargetPlan) -> Vec<Skipped> {
        sorted_naturally(plan.tensors.iter().filter_map(Skipped::of), |tensor| &tensor.name)
    }

    /// `None` for a target.
    fn of(planned: &PlannedTensor) -> Option<Skipped> {
        match &planned.action {
            Action::Prune => None,
            Action::Copy(reason) => Some(Skipped {
                name: planned.input.name.clone(),
                elements: planned.input.elements,
                reason: reason.to_string(),
            }),
        }
    }
}
