/*!
The surgery itself: a shard goes through read, decide, hash and write, in pieces, on a few threads.

`treatment` says what is done to a piece, `pieces` how a tensor falls into pieces, `solve` decides
tiles, `search` finds cuts that span more than a tile, `memory` says what all of it needs,
`pipeline` moves one shard through.

A method that sees activations comes before: `allocation` says how many weights of each target go,
`calibrated` solves layer by layer, `solved` keeps what comes of it until shards are written.
*/

mod allocation;
mod calibrated;
mod memory;
mod pieces;
mod pipeline;
mod search;
mod solve;
mod solved;
mod tiles;
mod treatment;

use std::collections::HashMap;

use physarium_checkpoint::{
    Checkpoint, Method, NmPattern, PlannedTensor, Recipe, Scope, Source, Sparsity, TargetPlan,
};
use physarium_flow::Cut;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
pub(crate) use calibrated::{GRADIENT_TOKENS, Solving};
pub use memory::MemoryPlan;
use pieces::{Piece, PieceSizes};
pub(crate) use pipeline::{ShardRun, TensorDone};
use search::{SearchTarget, find_cuts};
use solve::TileRule;
pub(crate) use solved::{SolvedWeights, Trace};
use tiles::{Grid, Matrix};

/// How weights are chosen, ready to be applied.
enum Rule {
    Tiles { edge: u64, rule: TileRule },
    Tensor(Sparsity),
    Model(HashMap<String, Cut>),
    Pattern(NmPattern),
    Solved(SolvedWeights),
}

/// Largest tile edge; bounds the memory of one worker.
const MAX_BLOCK_SIZE: u64 = 1024;

/// Everything that is the same for all shards of a run.
pub(crate) struct Engine<'a> {
    checkpoint: &'a Checkpoint,
    rule: Rule,
    non_finite: physarium_checkpoint::NonFinite,
    memory: MemoryPlan,
    sizes: PieceSizes,
    cancel: &'a Cancel,
}

/// Checks the numbers of a recipe.
///
/// # Errors
/// `Usage`.
pub(crate) fn check_recipe(recipe: &Recipe) -> Result<()> {
    if let Some(edge) = recipe.tile_edge()
        && !(1..=MAX_BLOCK_SIZE).contains(&edge)
    {
        let what = format!("block size must be between 1 and {MAX_BLOCK_SIZE}, found {edge}");
        return Err(Error::Usage(what));
    }
    if let Method::MagnitudeFlow { flow, .. } = recipe.method {
        TileRule::flow(flow).map_err(Error::Usage)?;
    }
    Ok(())
}

impl<'a> Engine<'a> {
    /// Prepares a run; over the whole model, this reads all targets. `solved` is what a method that sees
    /// activations has made of them.
    ///
    /// # Errors
    /// `Usage`, or what reading gives.
    pub fn prepare(
        checkpoint: &'a Checkpoint,
        plan: &TargetPlan,
        recipe: &Recipe,
        memory: MemoryPlan,
        solved: Option<SolvedWeights>,
        cancel: &'a Cancel,
    ) -> Result<Engine<'a>> {
        check_recipe(recipe)?;
        let rule = match recipe.method {
            Method::Wanda(_) | Method::SparseGpt(_) | Method::ActivationFlow(_) => {
                Rule::Solved(solved.expect("a calibrated method is solved before"))
            }
            Method::MagnitudeFlow { block_size, flow } => {
                Rule::Tiles { edge: block_size, rule: TileRule::flow(flow).map_err(Error::Usage)? }
            }
            Method::Exact { sparsity, scope: Scope::Tile { block_size } } => {
                Rule::Tiles { edge: block_size, rule: TileRule::Exact(sparsity) }
            }
            Method::Exact { sparsity, scope: Scope::Tensor } => Rule::Tensor(sparsity),
            Method::Exact { sparsity, scope: Scope::Model } => {
                Rule::Model(model_cuts(checkpoint, plan, sparsity, memory.workers, cancel)?)
            }
            Method::Pattern { pattern } => Rule::Pattern(pattern),
        };
        let (non_finite, sizes) = (recipe.non_finite, PieceSizes::DEFAULT);
        Ok(Engine { checkpoint, rule, non_finite, memory, sizes, cancel })
    }

    /// The pieces of one tensor, whose shard `source` is.
    fn pieces(&self, source: &Source, tensor: &PlannedTensor) -> Result<Vec<Piece>> {
        let (offset, sizes) = (tensor.info.begin, self.sizes);
        let Some(matrix) = Matrix::of(tensor) else {
            return Ok(pieces::carried(offset, tensor.info.size_bytes(), sizes));
        };
        let workers = self.memory.workers;
        Ok(match &self.rule {
            Rule::Tiles { edge, rule } => {
                let grid = Grid { matrix, edge: *edge };
                pieces::tiled(source, offset, grid, *rule, sizes, workers)?
            }
            Rule::Tensor(sparsity) => {
                let shard = &self.checkpoint.shards()[tensor.shard];
                let target = SearchTarget { shard, info: &tensor.info, matrix };
                let zeros = sparsity.count(tensor.info.elements);
                let cuts = find_cuts(&[target], zeros, workers, self.cancel)?;
                pieces::cut(offset, matrix, cuts[0], sizes)
            }
            Rule::Model(cuts) => pieces::cut(offset, matrix, cuts[&tensor.info.name], sizes),
            Rule::Pattern(pattern) => pieces::patterned(offset, matrix, *pattern, sizes),
            Rule::Solved(weights) => {
                let solved = weights.of(&tensor.info.name);
                pieces::solved(offset, matrix, &solved.file, solved.begin, sizes)
            }
        })
    }

    /// What is to be known of a target's solution; `None` when the rule sees no activations.
    pub fn trace(&self, tensor: &PlannedTensor) -> Option<Trace> {
        match &self.rule {
            Rule::Solved(weights) => Some(weights.of(&tensor.info.name).trace),
            _ => None,
        }
    }

    /// Tiles that a target falls into; `None` when the rule knows no tiles.
    pub fn tiles(&self, tensor: &PlannedTensor) -> Option<u64> {
        match self.rule {
            Rule::Tiles { edge, .. } => {
                Matrix::of(tensor).map(|m| Grid { matrix: m, edge }.tiles())
            }
            Rule::Tensor(_) | Rule::Model(_) | Rule::Pattern(_) | Rule::Solved(_) => None,
        }
    }
}

/// One line through all targets; ties die in the order of the tensors' names.
fn model_cuts(
    checkpoint: &Checkpoint,
    plan: &TargetPlan,
    sparsity: Sparsity,
    threads: usize,
    cancel: &Cancel,
) -> Result<HashMap<String, Cut>> {
    let mut targets: Vec<SearchTarget<'_>> = plan
        .tensors
        .iter()
        .filter_map(|tensor| {
            let shard = &checkpoint.shards()[tensor.shard];
            Some(SearchTarget { shard, info: &tensor.info, matrix: Matrix::of(tensor)? })
        })
        .collect();
    targets.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    let zeros = sparsity.count(plan.target_elements());
    let cuts = find_cuts(&targets, zeros, threads, cancel)?;
    Ok(targets.iter().map(|t| t.info.name.clone()).zip(cuts).collect())
}
