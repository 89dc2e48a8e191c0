//! From files to a description of the model: config, shapes of the layers, tensors by name.

pub(crate) mod config;
mod families;
mod fields;
pub(crate) mod files;
pub(crate) mod notes;
pub(crate) mod rope;
mod rope_fields;
pub(crate) mod shapes;
pub(crate) mod vocabulary;
pub(crate) mod weights;
