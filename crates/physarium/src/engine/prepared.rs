//! The part of a run that all shards share: the recipe's rule, ready to be applied.

use std::collections::BTreeMap;

use physarium_checkpoint::{
    Amount, Checkpoint, Criterion, MatrixView, NmPattern, NonFinite, PlannedTensor, Recipe, Scope,
    Source, Sparsity, TargetPlan,
};
use physarium_flow::Cut;

use super::memory::MemoryPlan;
use super::pieces::{Extent, Piece, PieceSizes, TensorPieces, Tiling, copied};
use super::search::{SearchTarget, find_cuts};
use super::solve::TileRule;
use super::solved::{SolutionStats, SolvedWeights};
use super::tiles::{Grid, RowMajor};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// How weights are pruned.
enum Rule {
    /// Each tile is decided by itself.
    Tiles { edge: u64, rule: TileRule },
    /// Each matrix is pruned to this sparsity.
    Matrix(Sparsity),
    /// One threshold over the model was found.
    Model(ModelCuts),
    /// Each group of consecutive inputs is pruned to this pattern.
    Pattern(NmPattern),
    /// An activation-aware method has solved the targets.
    Solved(SolvedWeights),
}

/// Largest side length of a tile, which bounds the memory of a worker.
const MAX_BLOCK_SIZE: u64 = 1024;

/// Prunes the shards of one run.
pub(crate) struct Engine<'a> {
    checkpoint: &'a Checkpoint,
    rule: Rule,
    pub(super) non_finite: NonFinite,
    pub(super) memory: MemoryPlan,
    pub(super) sizes: PieceSizes,
    pub(super) cancel: &'a Cancel,
}

/// What an engine is prepared from.
pub(crate) struct Preparation<'a> {
    pub checkpoint: &'a Checkpoint,
    pub recipe: &'a Recipe,
    pub memory: MemoryPlan,
    pub found: Found,
}

/// What was found out about all targets before the shards are written.
pub(crate) enum Found {
    /// Nothing: each tile, matrix or group is decided by itself.
    Nothing,
    /// The cuts of one threshold over the model.
    Cuts(ModelCuts),
    /// The targets as an activation-aware method has solved them.
    Solved(SolvedWeights),
}

/// The cut of each matrix of a target, by the target's name.
pub(crate) type ModelCuts = BTreeMap<String, Vec<Cut>>;

/// Checks the block size and the flow parameters of a recipe.
///
/// # Errors
/// `Usage` for a number out of range.
pub fn check_recipe(recipe: &Recipe) -> Result<()> {
    if let Some(edge) = recipe.needs().tile_edge
        && !(1..=MAX_BLOCK_SIZE).contains(&edge)
    {
        let what = format!("block size must be between 1 and {MAX_BLOCK_SIZE}, found {edge}");
        return Err(Error::Usage(what));
    }
    if let Criterion::MagnitudeFlow { flow, .. } = recipe.method.criterion() {
        TileRule::flow(flow).map_err(Error::Usage)?;
    }
    if let Criterion::ActivationFlow { flow: None, .. } = recipe.method.criterion() {
        let what = "key \"flow\" of the method: expected the parameters of the activation flow, found none: the record is \
                    of its earlier dynamics, which cannot be repeated; to prune anew, use --method activation-flow \
                    with the options of that run";
        return Err(Error::Usage(what.to_owned()));
    }
    Ok(())
}

impl<'a> Engine<'a> {
    /// Prepares a run.
    ///
    /// # Errors
    /// `Usage` for a number out of range.
    pub fn prepare(preparation: Preparation<'a>, cancel: &'a Cancel) -> Result<Engine<'a>> {
        let Preparation { checkpoint, recipe, memory, found } = preparation;
        check_recipe(recipe)?;
        let rule = match (found, recipe.method.criterion(), recipe.method.amount()) {
            (Found::Solved(solved), ..) => Rule::Solved(solved),
            (Found::Cuts(cuts), ..) => Rule::Model(cuts),
            (_, Criterion::MagnitudeFlow { block_size, flow }, _) => {
                Rule::Tiles { edge: block_size, rule: TileRule::flow(flow).map_err(Error::Usage)? }
            }
            (_, Criterion::Magnitude, Amount::Sparsity { sparsity, scope }) => match scope {
                Scope::Tile { block_size } => {
                    Rule::Tiles { edge: block_size, rule: TileRule::Exact(sparsity) }
                }
                Scope::Tensor => Rule::Matrix(sparsity),
                Scope::Model => unreachable!("the cuts of a threshold over the model are found"),
            },
            (_, Criterion::Magnitude, Amount::Pattern(pattern)) => Rule::Pattern(pattern),
            (_, criterion, amount) => {
                unreachable!("{} with {amount} has solved weights", criterion.name())
            }
        };
        let (non_finite, sizes) = (recipe.non_finite, PieceSizes::DEFAULT);
        Ok(Engine { checkpoint, rule, non_finite, memory, sizes, cancel })
    }

    /// The pieces of a tensor of the shard `source`.
    ///
    /// # Errors
    /// `Checkpoint` for weights that cannot be read.
    pub fn pieces(&self, source: &Source, tensor: &PlannedTensor) -> Result<TensorPieces> {
        if !tensor.is_target() {
            let pieces = copied(tensor.input.begin, tensor.input.size_bytes(), self.sizes);
            return Ok(pieces.into_iter().map(|piece| (0, piece)).collect());
        }
        let mut pieces = Vec::new();
        for (index, view) in tensor.views.iter().enumerate() {
            let of_view = self.view_pieces(source, tensor, (index, view))?;
            pieces.extend(of_view.into_iter().map(|piece| (index, piece)));
        }
        Ok(pieces)
    }

    fn view_pieces(
        &self,
        source: &Source,
        tensor: &PlannedTensor,
        (index, view): (usize, &MatrixView),
    ) -> Result<Vec<Piece>> {
        let matrix = RowMajor::of(view, tensor.input.dtype);
        let in_tensor = view.begin * matrix.element_bytes();
        let offset = tensor.input.begin + in_tensor;
        let extent = Extent { offset, matrix, sizes: self.sizes };
        let workers = self.memory.workers;
        Ok(match &self.rule {
            Rule::Tiles { edge, rule } => {
                extent.tiled(Tiling { source, edge: *edge, rule: *rule, workers })?
            }
            Rule::Matrix(sparsity) => {
                let shard = &self.checkpoint.shards()[tensor.shard];
                let target = SearchTarget { shard, begin: offset, matrix };
                let zeros = sparsity.count(view.elements());
                extent.cut(find_cuts(&[target], zeros, workers, self.cancel)?[0])
            }
            Rule::Model(cuts) => extent.cut(cuts[&tensor.input.name][index]),
            Rule::Pattern(pattern) => extent.patterned(*pattern),
            Rule::Solved(weights) => {
                let solved = weights.of(&tensor.input.name);
                extent.solved(&solved.file, solved.begin + in_tensor)
            }
        })
    }

    /// Frees what is no longer needed of tensors that the output holds.
    ///
    /// # Errors
    /// `Checkpoint` if a file of solved weights cannot be removed.
    pub fn release(&mut self, written: &[PlannedTensor]) -> Result<()> {
        match &mut self.rule {
            Rule::Solved(weights) => weights.release(written),
            _ => Ok(()),
        }
    }

    /// Figures of a target's solution; `None` unless the method is activation-aware.
    pub fn stats(&self, tensor: &PlannedTensor) -> Option<SolutionStats> {
        match &self.rule {
            Rule::Solved(weights) => Some(weights.of(&tensor.input.name).stats),
            _ => None,
        }
    }

    /// Number of tiles of a target; `None` if the rule has no tiles.
    pub fn tiles(&self, tensor: &PlannedTensor) -> Option<u64> {
        let Rule::Tiles { edge, .. } = self.rule else { return None };
        let dtype = tensor.input.dtype;
        let grid = |view| Grid { matrix: RowMajor::of(view, dtype), edge }.tiles();
        Some(tensor.views.iter().map(grid).sum())
    }
}

/// The search for one threshold over all targets.
pub(crate) struct ModelSearch<'a> {
    pub checkpoint: &'a Checkpoint,
    pub plan: &'a TargetPlan,
    pub threads: usize,
    pub cancel: &'a Cancel,
}

impl ModelSearch<'_> {
    /// The cuts at which `sparsity` of all targets is pruned. Ties are pruned in the order of the names. Reads all targets.
    ///
    /// # Errors
    /// `Checkpoint` for targets that cannot be read.
    pub fn cuts(&self, sparsity: Sparsity) -> Result<ModelCuts> {
        let mut tensors: Vec<&PlannedTensor> = self.plan.targets().collect();
        tensors.sort_by(|a, b| a.input.name.cmp(&b.input.name));
        let target = |tensor: &PlannedTensor, view: &MatrixView| {
            let matrix = RowMajor::of(view, tensor.input.dtype);
            let begin = tensor.input.begin + view.begin * matrix.element_bytes();
            SearchTarget { shard: &self.checkpoint.shards()[tensor.shard], begin, matrix }
        };
        let targets: Vec<SearchTarget<'_>> = tensors
            .iter()
            .flat_map(|tensor| tensor.views.iter().map(|view| target(tensor, view)))
            .collect();
        let zeros = sparsity.count(self.plan.target_elements());
        let mut cuts = find_cuts(&targets, zeros, self.threads, self.cancel)?.into_iter();
        let of_tensor = |tensor: &&PlannedTensor| {
            let cuts = cuts.by_ref().take(tensor.views.len()).collect();
            (tensor.input.name.clone(), cuts)
        };
        Ok(tensors.iter().map(of_tensor).collect())
    }
}
