//! From weights, headers and a journal to counts: pair, recount, compare with the journal, check.

mod cast;
pub(crate) mod compare;
pub(crate) mod coverage;
mod identities;
pub(crate) mod journal_checks;
pub(crate) mod pairs;
pub(crate) mod recount;
pub(crate) mod relation;
pub(crate) mod sources;
mod tensors;
