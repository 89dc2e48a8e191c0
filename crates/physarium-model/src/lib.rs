/*!
A decoder for Llama, Mistral, Qwen2, Qwen3 and Gemma 3 checkpoints that works layer by layer.

In: a checkpoint directory or a packed file, and token ids. Out: logits at every position, and the inputs of
each linear map. One decoder serves all families; their differences are data ([`Config`]). A layer's weights
are read, used and dropped, so that memory holds one layer instead of the model; with
[`Residency::Resident`] they are kept for the next use.

* [`Decoder`] opens a model (`open/`) and returns its [`Embedding`], [`Layer`]s and [`Head`] (`layers/`).
* A [`Layer`] is a list of [`Stage`]s; a stage lists the maps that have the same inputs, each with its
  [`Site`](physarium_checkpoint::Site).
* A [`Walk`] shows a [`Capture`] the activations of two models: the dense one and the one pruned so far. A [`Passage`] does so
  for one stage and some windows.
* A [`GradientPass`] measures how much the predictions depend on each output of each map (`sensitivity/`).
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod batches;
mod capture;
mod decoder;
mod embedding;
mod error;
mod generation;
mod layers;
mod open;
mod passage;
mod sensitivity;
mod streams;

pub use batches::{BATCH_TOKENS, window_groups};
pub use capture::{Capture, Walk};
pub use decoder::{Decoder, Residency};
pub use embedding::Embedding;
pub use error::Error;
pub use generation::Generation;
pub use layers::head::Head;
pub use layers::layer::{KeysValues, Layer};
pub use layers::stages::Stage;
pub use layers::workspace::Workspace;
pub use open::config::{Biases, Config, NormWeights};
pub use open::files::ModelFiles;
pub use open::notes::Note;
pub use open::rope::{Angles, Rope};
pub use open::shapes::{MapShape, StageKind, StageShape};
pub use passage::{Layers, Passage, PrunedInputs, Shown, ShownDense};
pub use physarium_kernels::{
    Activation, Arithmetic, Buffer, Compute, ComputeError, Dense, Gram, Linear, NoSuchInstructions,
    VectorKind, add_cross, check_instructions, large_zeroed, release_memory, vector,
};
pub use sensitivity::GradientPass;
pub use sensitivity::loss::{Labelled, Labels};
pub use sensitivity::sums::Sensitivity;
pub use streams::StreamPlace;
