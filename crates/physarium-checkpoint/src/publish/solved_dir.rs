//! The directory for solved weights in an unfinished output.

/// Name of a directory in an unfinished output, for weights that are solved before shards are written. A resumed
/// run keeps it. Its user creates it, and removes it before the output is published.
pub const SOLVED_DIR: &str = "physarium.solved";
