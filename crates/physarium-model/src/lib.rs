/*!
A decoder for Llama, Mistral, Qwen2 and Qwen3 checkpoints that works layer by layer.

In: a checkpoint directory and token ids. Out: logits at every position, and the inputs of each linear map on
the way. The families are one decoder; their differences are data ([`Config`]). A layer's weights are read,
used and dropped, so that memory holds one layer and not the model; with [`Residency::Resident`] they are
kept for the next use.

* [`Decoder`] opens a checkpoint and lends [`Layer`]s and the [`Head`].
* A [`Layer`] is a list of [`Stage`]s; a stage lists the maps that see the same inputs, each with its
  [`Site`](physarium_checkpoint::Site).
* [`walk`] shows a [`Capture`] two streams, that of the dense model and that of the model pruned so far.
* [`sensitivities`] measures how much the model's predictions depend on each output of each map.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod attention;
mod capture;
mod config;
mod decoder;
mod error;
mod fields;
mod files;
mod generation;
mod head;
mod layer;
mod rope;
mod sensitivity;
mod stages;
mod weights;
mod workspace;

pub use capture::{Capture, walk};
pub use config::{Biases, Config};
pub use decoder::{Decoder, Residency};
pub use error::Error;
pub use files::ModelFiles;
pub use generation::Generation;
pub use head::Head;
pub use layer::{KeysValues, Layer};
pub use physarium_kernels::{
    Buffer, Compute, Dense, Gram, Instructions, Linear, ThreadsUnavailable, VectorKind, add_cross,
    large_zeroed, vector,
};
pub use rope::{Angles, Rope};
pub use sensitivity::{Labelled, Labels, Sensitivity, sensitivities};
pub use stages::{MapShape, Stage, StageKind, StageShape};
pub use workspace::Workspace;
