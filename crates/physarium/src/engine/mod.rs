/*!
The engine: reads, prunes, hashes and writes a shard in pieces, on several threads, in bounded memory.

In: shards, a plan and a recipe. Out: the bytes of pruned shards, and what was done to each tensor.

* `prepared` is what all shards of a run share; `pipeline` runs one shard.
* `tiles` divides a matrix into tiles, `pieces` a tensor into pieces, `treatment` processes a piece.
* `solve` decides tiles; `search` finds cuts over a tensor or the model.
* `memory` plans threads and memory.

For an activation-aware method, three modules run before: `allocation` decides how many weights of each target are
pruned, `calibrated` solves layer by layer, and `solved` keeps the solved weights until shards are written.
*/

mod allocation;
mod calibrated;
mod memory;
mod pieces;
mod pipeline;
mod prepared;
mod search;
mod solve;
mod solved;
mod tiles;
mod treatment;

pub(crate) use calibrated::{
    Budget, DeadInputs, DenseMeans, Footprint, GRADIENT_TOKENS, GroupSums, InputSums, OnTiles,
    SAMPLE_TOKENS, Solving, Squares, StageSolver, StageSums, Summed, TargetsBySite, Wanted, Watch,
    targets_by_site,
};
pub use memory::MemoryPlan;
pub(crate) use pipeline::{ShardRun, TensorDone};
pub use prepared::check_recipe;
pub(crate) use prepared::{Engine, Found, ModelCuts, ModelSearch, Preparation};
pub(crate) use solve::{TileRule, TileSolver};
pub(crate) use solved::{SolvedMap, SolvedWeights, Stored, write_solved};
pub(crate) use tiles::{Grid, RowMajor};
pub(crate) use treatment::{Done, Treatment};
