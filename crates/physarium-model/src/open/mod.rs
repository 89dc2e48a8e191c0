//! From files to a description of the model: config, shapes of the layers, tensors by name.

pub(crate) mod config;
mod fields;
pub(crate) mod files;
pub(crate) mod rope;
pub(crate) mod shapes;
pub(crate) mod weights;
