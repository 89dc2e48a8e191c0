/*!
A decoder for Llama, Mistral, Qwen2 and Qwen3 checkpoints that works layer by layer.

In: a checkpoint directory and token ids. Out: logits at every position, and what flows into each
projection on the way. The families are one decoder; what differs between them is data
([`Config`]). A layer's weights are read, used and dropped, so memory holds one layer and not the
model; a [`Residency`] keeps them where they are wanted again and again.

* [`Decoder`] opens a checkpoint and lends [`Layer`]s and the [`Head`].
* [`Layer`] knows its [`Stage`]s: what goes into the projections, and what comes of it.
* [`walk`] carries two streams, the dense model's and the pruned-so-far model's, past a [`Capture`].
* [`sensitivities`] tells how much the model's predictions feel each output of each projection.
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
mod weights;

pub use capture::{Capture, Place, walk};
pub use config::{Biases, Config};
pub use decoder::{Decoder, Residency};
pub use error::Error;
pub use files::ModelFiles;
pub use generation::Generation;
pub use head::Head;
pub use layer::{KeysValues, Layer, Projection, Run, Stage};
pub use physarium_kernels::{
    Buffer, Compute, Dense, Gram, Instructions, Linear, ThreadsUnavailable, VectorKind, add_cross,
    large_zeroed, vector,
};
pub use rope::{Angles, Rope};
pub use sensitivity::{Labels, Sensitivity, sensitivities};
