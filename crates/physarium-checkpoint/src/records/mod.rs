//! Records of a run: recipe, journal, manifest.

pub(crate) mod amounts;
pub mod journal;
pub mod manifest;
pub(crate) mod method;
pub(crate) mod recipe;
