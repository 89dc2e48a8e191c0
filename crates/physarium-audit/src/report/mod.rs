//! From counts to reports: the fields of an audit, shares, identities, tables, inspection, provenance.

pub(crate) mod audit;
mod experts;
pub(crate) mod identity;
pub(crate) mod inspection;
pub(crate) mod judgement;
mod kinds;
pub(crate) mod provenance;
pub(crate) mod render;
pub(crate) mod share;
mod summary;
mod table;
