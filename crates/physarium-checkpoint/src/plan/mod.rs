//! From names and shapes to sites, matrices and targets.

pub(crate) mod encoded;
mod family;
pub(crate) mod names;
pub(crate) mod selection;
pub(crate) mod site;
pub(crate) mod target_plan;
mod views;
