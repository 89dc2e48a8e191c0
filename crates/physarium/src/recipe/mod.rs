//! From what a user asks for to a recipe.

pub(crate) mod arithmetic;
pub(crate) mod effort;
pub(crate) mod error;
pub(crate) mod options;
pub(crate) mod table;
