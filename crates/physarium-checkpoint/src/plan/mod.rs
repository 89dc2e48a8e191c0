//! From names and shapes to sites, matrices and targets.

pub(crate) mod encoded;
mod family;
pub(crate) mod language_model;
pub(crate) mod names;
mod place;
pub(crate) mod selection;
pub(crate) mod site;
pub(crate) mod skip_reason;
pub(crate) mod target_plan;
mod towers;
mod views;
