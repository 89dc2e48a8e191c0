//! The records in the lines of a journal.

use serde::{Deserialize, Serialize};

use crate::open::digest::Digest;
use crate::open::dtype::Dtype;
use crate::records::recipe::Recipe;

/// Name of the journal in an output directory.
pub const FILE_NAME: &str = "physarium.journal.jsonl";
/// Schema of the journal's first record.
pub const SCHEMA: &str = "physarium.journal/1";

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// First line: the recipe and the input.
    Run(RunRecord),
    /// A tensor, written once its bytes are.
    Tensor(TensorRecord),
    /// A shard, written once it is durable under its name.
    Shard(ShardRecord),
    /// Last line: sums over all tensors.
    Totals(Totals),
}

/// The recipe and the input of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// Program and version.
    pub tool: String,
    /// What determines the output's bytes.
    pub recipe: Recipe,
    /// The input's shards, sorted by name.
    pub input: Vec<InputShard>,
}

/// A shard of the input, as its header describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputShard {
    /// File name.
    pub name: String,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// Digest of the header with its length field.
    pub header_sha256: Digest,
}

/// What was done to one tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorRecord {
    /// Its name.
    pub name: String,
    /// The shard that holds it.
    pub shard: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Product of the dimensions.
    pub elements: u64,
    /// Whether it was processed, or why it was skipped.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Digest of its bytes in the output; may be absent in a journal of another tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_blake3: Option<Digest>,
}

impl TensorRecord {
    /// The result of processing it; `None` if it was skipped.
    pub fn processed(&self) -> Option<&Processed> {
        match &self.outcome {
            Outcome::Processed(done) => Some(done),
            Outcome::Skipped { .. } => None,
        }
    }
}

/// Processed or skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Outcome {
    /// It was pruned by the recipe's method.
    Processed(Processed),
    /// It was copied byte for byte.
    Skipped {
        /// Why it was skipped.
        reason: String,
    },
}

/// The result of pruning a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Processed {
    /// Path of its module in a layer, as the checkpoint spells it: `mlp.down_proj`.
    pub projection: String,
    /// Decoder layer index; null when the name has none.
    pub layer: Option<u64>,
    /// Elements that were considered for pruning.
    pub processed: u64,
    /// Elements set to +0.0 that were not zero before.
    pub pruned: u64,
    /// Elements that were zero before (+0.0 or -0.0) and are unchanged.
    pub already_zero: u64,
    /// NaN and infinite elements, which are kept unchanged.
    #[serde(default)]
    pub non_finite: u64,
    /// Nonzero elements whose values changed: updated to compensate for pruned ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refitted: u64,
    /// Inputs of the projection that were always zero on the calibration text.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dead_inputs: u64,
    /// ‖X (Ŵ − W)ᵀ‖² ÷ ‖X Wᵀ‖² over the calibration tokens (for `wanda`, the first 2,048), with X the inputs in the
    /// pruned model: the squared relative error of the projection's outputs against those of its original weights on
    /// the same inputs. Absent for methods that are not activation-aware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// The same if the pruned weights were only set to zero and the others left as they were: what the update has
    /// gained. Absent for methods that are not activation-aware and in journals of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_before_update: Option<f64>,
    /// Tiles of the projection; may be absent in a journal of another tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<Tiles>,
    /// The matrices of a fused tensor or a stack of experts, in the order of its elements. Their counts add up to
    /// the tensor's. Empty for a plain projection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrices: Vec<MatrixRecord>,
}

/// The result of pruning one matrix of a tensor that has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixRecord {
    /// The map that it is: `gate_proj`.
    pub map: String,
    /// The expert that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<u32>,
    /// Its elements.
    pub elements: u64,
    /// Elements set to +0.0 that were not zero before.
    pub pruned: u64,
    /// Elements that were zero before (+0.0 or -0.0) and are unchanged.
    pub already_zero: u64,
}

/// Tile coverage of a tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiles {
    /// Tiles that follow from the shapes and the block size.
    pub expected: u64,
    /// Tiles that were processed.
    pub visited: u64,
}

/// A shard that is durable under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// File name, in input and output.
    pub name: String,
    /// Size of the file in bytes, in input and output.
    pub size_bytes: u64,
    /// Digest of the input's file.
    pub input_sha256: Digest,
    /// Digest of the output's file.
    pub output_sha256: Digest,
}

/// Sums over all tensor records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Tensors of the model.
    pub tensors: u64,
    /// Elements of the model.
    pub elements: u64,
    /// Tensors that were processed.
    pub processed_tensors: u64,
    /// Elements that were processed.
    pub processed: u64,
    /// Elements set to +0.0 that were not zero before.
    pub pruned: u64,
    /// Elements of processed tensors that were zero before.
    pub already_zero: u64,
    /// NaN and infinite elements of processed tensors.
    pub non_finite: u64,
    /// Nonzero elements whose values changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refitted: u64,
    /// Inputs of processed tensors that were always zero on the calibration text.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dead_inputs: u64,
}

/// Whether a count is omitted from the record.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Totals {
    /// Adds up tensor records.
    pub fn of<'a>(tensors: impl IntoIterator<Item = &'a TensorRecord>) -> Totals {
        let mut totals = Totals::default();
        for tensor in tensors {
            totals.tensors += 1;
            totals.elements += tensor.elements;
            if let Some(done) = tensor.processed() {
                totals.processed_tensors += 1;
                totals.processed += done.processed;
                totals.pruned += done.pruned;
                totals.already_zero += done.already_zero;
                totals.non_finite += done.non_finite;
                totals.refitted += done.refitted;
                totals.dead_inputs += done.dead_inputs;
            }
        }
        totals
    }
}
