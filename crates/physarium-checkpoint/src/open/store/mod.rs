//! Models in object stores, as far as the rest of the program sees them: a directory with links, and files that are read from afar.

pub mod remote;
pub mod source;
