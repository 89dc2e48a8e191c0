//! The place of an output: its path, its lock, and what is there already, which is removed only if it is ours.

pub(super) mod lock;
pub(crate) mod occupant;
pub(crate) mod output_path;
pub(super) mod working;
