//! Opening a checkpoint: headers, index, and detection of files that change.

pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod digest;
pub(crate) mod dtype;
pub(crate) mod enclosed;
pub(crate) mod header;
pub(crate) mod hub;
pub(crate) mod index;
mod json;
pub(crate) mod source;
pub(crate) mod store;
mod tied;
pub(crate) mod unfinished;
