//! Files as they are on disk: headers, index, other files, and proof that they have not changed.

pub(crate) mod checkpoint;
pub(crate) mod digest;
pub(crate) mod dtype;
pub(crate) mod header;
pub(crate) mod index;
mod json;
pub(crate) mod source;
pub(crate) mod unfinished;
