//! Models of the Hugging Face hub: their ids, and the local cache that holds them. Nothing is downloaded.

pub(crate) mod cache;
pub(crate) mod id;
pub(crate) mod snapshot;
