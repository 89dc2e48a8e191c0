//! Layers with their weights, and the forward pass through them.

pub(crate) mod attention;
pub(crate) mod head;
pub(crate) mod layer;
mod output_norm;
pub(crate) mod stages;
pub(crate) mod workspace;
