/*!
What a run writes about itself: the journal's records and the manifest.

In: the run's recipe and what the engine did to each tensor. Out: records of `physarium_checkpoint`. Every count
is checked against the headers before it is recorded.
*/

use physarium_checkpoint::journal::{
    self, InputShard, MatrixRecord, Outcome, Processed, RunRecord, ShardRecord, TensorRecord,
    Tiles, Totals,
};
use physarium_checkpoint::manifest::{self, FileEntry, LeftOut, Manifest, TensorEntry};
use physarium_checkpoint::{
    Action, Checkpoint, FinishedShard, MatrixView, ModelSource, Recipe, Shard,
};

use crate::engine::{Done, Engine, TensorDone};

/// Program and version, as records name them.
pub(crate) const TOOL: &str = concat!("physarium ", env!("CARGO_PKG_VERSION"));

/// The journal's first record.
pub(crate) fn run_record(recipe: &Recipe, checkpoint: &Checkpoint) -> RunRecord {
    let input = |shard: &Shard| InputShard {
        name: shard.name.clone(),
        size_bytes: shard.size_bytes(),
        header_sha256: shard.header_sha256,
    };
    RunRecord {
        schema: journal::SCHEMA.to_owned(),
        tool: TOOL.to_owned(),
        recipe: recipe.clone(),
        input: checkpoint.shards().iter().map(input).collect(),
    }
}

/// Records of all shards that are written, and of their tensors.
#[derive(Default)]
pub(crate) struct Records {
    /// Shards that an earlier, interrupted run wrote.
    pub resumed: usize,
    pub shards: Vec<ShardRecord>,
    pub tensors: Vec<TensorRecord>,
}

/// Files of the output beside its shards, and where the input's are from.
#[derive(Default)]
pub(crate) struct OtherFiles {
    /// All files beside the shards.
    pub files: Vec<FileEntry>,
    /// Those that are rewritten instead of copied.
    pub rewritten: Vec<String>,
    pub left_out: Vec<LeftOut>,
    /// Where the input is on the hub or in a store.
    pub source: Option<ModelSource>,
}

impl Records {
    /// The records of an interrupted run.
    pub fn of_resumed(finished: &[FinishedShard]) -> Records {
        Records {
            resumed: finished.len(),
            shards: finished.iter().map(|finished| finished.shard.clone()).collect(),
            tensors: finished.iter().flat_map(|finished| finished.tensors.clone()).collect(),
        }
    }

    /// The output's last file.
    pub fn manifest(&self, recipe: &Recipe, totals: Totals, other_files: OtherFiles) -> Manifest {
        Manifest {
            schema: manifest::SCHEMA.to_owned(),
            tool: TOOL.to_owned(),
            recipe: recipe.clone(),
            source: other_files.source,
            totals,
            shards: self.shards.clone(),
            files: other_files.files,
            rewritten: other_files.rewritten,
            left_out: other_files.left_out,
            tensors: self.tensors.iter().filter_map(TensorEntry::of).collect(),
            check: String::new(),
        }
    }

    /// Mean of the targets' output errors; `None` unless the method is activation-aware.
    pub fn mean_output_error(&self) -> Option<f64> {
        mean_output_error(&self.tensors)
    }
}

/// Mean of the targets' output errors; `None` unless the method is activation-aware.
pub(crate) fn mean_output_error(tensors: &[TensorRecord]) -> Option<f64> {
    let of_target = |tensor: &TensorRecord| tensor.processed()?.output_error;
    let errors: Vec<f64> = tensors.iter().filter_map(of_target).collect();
    let count = errors.len() as f64;
    (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / count)
}

/// The record of a tensor that is written.
pub(crate) fn tensor_record(
    engine: &Engine<'_>,
    shard: &Shard,
    tensor: &TensorDone<'_>,
) -> TensorRecord {
    let input = &tensor.planned.input;
    let outcome = match &tensor.planned.action {
        Action::Copy(reason) => Outcome::Skipped { reason: reason.to_string() },
        Action::Prune => Outcome::Processed(processed(engine, tensor)),
    };
    TensorRecord {
        name: input.name.clone(),
        shard: shard.name.clone(),
        dtype: input.dtype,
        shape: input.shape.clone(),
        elements: input.elements,
        outcome,
        output_blake3: Some(tensor.output_blake3),
    }
}

fn processed(engine: &Engine<'_>, tensor: &TensorDone<'_>) -> Processed {
    let (input, named) = (&tensor.planned.input, tensor.planned.projection());
    let (expected, stats) = (engine.tiles(tensor.planned), engine.stats(tensor.planned));
    let done = tensor.sum();
    assert_eq!(done.elements, input.elements, "{}: elements visited", input.name);
    assert_eq!(done.tiles, expected.unwrap_or(0), "{}: tiles visited", input.name);
    Processed {
        projection: named.projection.clone(),
        layer: named.site.layer,
        processed: done.elements,
        pruned: done.counts.pruned,
        already_zero: done.counts.already_zero,
        non_finite: done.counts.non_finite,
        refitted: done.refitted,
        dead_inputs: stats.map_or(0, |stats| stats.dead_inputs),
        output_error: stats.map(|stats| stats.output_error),
        error_before_update: stats.map(|stats| stats.error_before_update),
        tiles: expected.map(|expected| Tiles { expected, visited: done.tiles }),
        matrices: matrix_records(tensor),
    }
}

/// Counts of each matrix, where a tensor has several.
fn matrix_records(tensor: &TensorDone<'_>) -> Vec<MatrixRecord> {
    let views = &tensor.planned.views;
    if views.len() == 1 {
        return Vec::new();
    }
    assert_eq!(views.len(), tensor.matrices.len(), "{}: matrices", tensor.planned.input.name);
    let record = |(view, done): (&MatrixView, &Done)| MatrixRecord {
        map: view.site.map.name().to_owned(),
        expert: view.site.expert,
        elements: done.elements,
        pruned: done.counts.pruned,
        already_zero: done.counts.already_zero,
    };
    views.iter().zip(&tensor.matrices).map(record).collect()
}
