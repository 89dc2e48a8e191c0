/*!
Hugging Face checkpoints as bytes on disk; no arithmetic on weights.

In: a checkpoint directory (`model.safetensors`, or shards with `model.safetensors.index.json`).
Out: a validated [`Checkpoint`] (`open/`); a [`TargetPlan`] with a decision for each tensor: pruned as these
matrices, or skipped for this reason (`plan/`); and a [`Staging`] directory in which an output is written and
that is published as a whole or not at all (`publish/`), with its [`journal`] and [`manifest`] (`records/`).

The checkpoint directory is treated as hostile; the output's parent directory is trusted. `docs/RELIABILITY.md`
lists what is checked and what is guaranteed.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod error;
mod escape;
mod fault;
mod natural;
mod open;
mod plan;
mod publish;
mod records;
mod threads;

pub use error::{Error, ErrorKind, Malformed};
pub use escape::{excerpt, json_visible, markdown, printable, printable_path, visible};
pub use fault::Fault;
pub use natural::sorted_naturally;
pub use open::checkpoint::{Checkpoint, Layout, Shard, Warning};
pub use open::config::config_json;
pub use open::digest::{Blake3, Digest, Sha256};
pub use open::dtype::Dtype;
pub use open::enclosed::{EnclosedFiles, EnclosedShard, check_enclosed};
pub use open::header::TensorInfo;
pub use open::hub::cache::{FoundModel, HubCache, ModelName};
pub use open::hub::id::HubId;
pub use open::hub::snapshot::HubSource;
pub use open::source::{FileIdentity, Source};
pub use open::store::remote::{Opener, RemoteFile, RemoteLink, open_remote_by};
pub use open::store::source::{ModelSource, StoreSource};
pub use plan::encoded::{Encoded, decode_hint, encoded_projections};
pub use plan::language_model::LeftAlone;
pub use plan::names::{Named, Naming};
pub use plan::selection::{Selection, TargetNames};
pub use plan::site::{Map, MatrixView, Orientation, Site};
pub use plan::skip_reason::SkipReason;
pub use plan::target_plan::{Action, PlannedTensor, TargetPlan};
pub use publish::durable::{write_whole, write_whole_with};
pub use publish::inputs::{InputDigests, Inputs, ShardInputs};
pub use publish::output::{NewDirectory, NewFile, NewInside};
pub use publish::part_file::PartFile;
pub use publish::place::occupant::Occupant;
pub use publish::place::output_path::Found;
pub use publish::request::{FinishedShard, Overwrite, Resume, StagingRequest};
pub use publish::scratch::{ScratchFile, ScratchPiece};
pub use publish::sidecar::{Disposition, LinkPolicy, Purpose, Sidecar};
pub use publish::solved_dir::SOLVED_DIR;
pub use publish::space::Disk;
pub use publish::staging::Staging;
pub use publish::units::{Attempt, Published, Stopwatch, Took, UnitRecord, UnitsDir};
pub use records::amounts::{NmPattern, Price, Sparsity};
pub use records::method::{
    Amount, BosPlace, Calibration, Criterion, FlowRecipe, FlowSteps, Method, MethodMismatch, Needs,
    Scope,
};
pub use records::recipe::{Arithmetic, NonFinite, Recipe};
pub use records::{journal, manifest, readme};
pub use threads::{Tasks, start_thread};
