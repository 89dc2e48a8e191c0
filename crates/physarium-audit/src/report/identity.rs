//! Equations between an audit's numbers. If one is false, the report is wrong.

use serde::{Deserialize, Serialize};

/// Two numbers that are computed in different ways and must be equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The equation in words.
    pub says: String,
    /// The left-hand side.
    pub left: u64,
    /// The right-hand side.
    pub right: u64,
    /// Whether both sides are equal.
    pub holds: bool,
}

impl Identity {
    /// Compares two numbers.
    pub fn new(says: impl Into<String>, left: u64, right: u64) -> Identity {
        Identity { says: says.into(), left, right, holds: left == right }
    }
}
