//! The name of the directory for solved weights in an unfinished output.

/// Directory in an unfinished output for weights that are solved before shards are written. It is kept
/// when a run is resumed; whoever uses it makes it and removes it before the output is published.
pub const SOLVED_DIR: &str = "physarium.solved";
