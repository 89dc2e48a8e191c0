/*!
The surgery itself: a shard goes through read, decide, hash and write, in pieces, on a few threads.

`treatment` says what is done to a piece, `pieces` how a tensor is divided into pieces, `solve` decides
tiles, `search` finds cuts that span more than a tile, `memory` says what all of it needs, `prepared` is what
all shards of a run share, `pipeline` moves one shard through.

An activation-aware method comes before: `allocation` says how many weights of each target are pruned,
`calibrated` solves layer by layer, `solved` keeps the results until shards are written.
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

pub(crate) use calibrated::Solving;
pub(crate) use memory::Activations;
pub use memory::MemoryPlan;
pub(crate) use pipeline::{ShardRun, TensorDone};
pub(crate) use prepared::{Engine, Preparation, check_recipe};
pub(crate) use solved::SolvedWeights;
pub(crate) use treatment::Done;
