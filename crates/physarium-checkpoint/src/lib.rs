/*!
Hugging Face checkpoints as bytes on disk: no maths.

In: a checkpoint directory (`model.safetensors`, or shards with `model.safetensors.index.json`).
Out: a validated [`Checkpoint`], a [`TargetPlan`] that says of each tensor whether it is pruned or
why not, and, while a result is written, a [`Staging`] directory that is published as a whole or
not at all, with its [`journal`] and [`manifest`].

The checkpoint directory is treated as hostile; the output's parent is the user's. What each kind
of bad input gets is tabulated in `docs/RELIABILITY.md`.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod checkpoint;
mod digest;
mod disk;
mod dtype;
mod error;
mod escape;
mod header;
mod index;
pub mod journal;
mod json;
pub mod manifest;
mod output;
mod output_path;
mod plan;
mod recipe;
mod resume;
mod role;
mod sidecar;
mod source;
mod staging;
mod threads;

/// Directory in an unfinished output for weights that are solved before shards are written. It is kept
/// when a run is continued; whoever uses it makes it and removes it before the output is published.
pub const SOLVED_DIR: &str = "physarium.solved";

pub use checkpoint::{Checkpoint, Layout, Shard, Warning};
pub use digest::{Blake3, Digest, Sha256};
pub use disk::Disk;
pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Malformed};
pub use escape::printable;
pub use header::TensorInfo;
pub use output::{NewDirectory, NewFile, NewInside};
pub use plan::{Decision, PlannedTensor, ProjectionShape, Selection, SkipReason, TargetPlan};
pub use recipe::{
    Amount, Calibrated, Calibration, FlowRecipe, Method, NmPattern, NonFinite, Price, Recipe,
    Scope, Sparsity,
};
pub use role::Role;
pub use sidecar::{Disposition, LinkPolicy, Purpose, Sidecar};
pub use source::{FileIdentity, Source};
pub use staging::{FinishedShard, Overwrite, PartFile, Resume, Staging, StagingRequest};
pub use threads::start_thread;
