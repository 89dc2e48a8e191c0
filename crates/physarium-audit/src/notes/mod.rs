//! Notes of an audit: what is odd about a checkpoint or its comparison with the original. One note for each kind, with
//! the number of tensors and the first names.

pub(crate) mod beside;
pub(crate) mod checkpoint;
pub(crate) mod comparison;
pub(crate) mod words;
