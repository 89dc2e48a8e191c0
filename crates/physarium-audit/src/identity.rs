//! Equations that must hold between an audit's numbers. One that does not is a wrong report.

use serde::{Deserialize, Serialize};

/// Two numbers, come by in different ways, that must be equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What must be equal to what, in words.
    pub says: String,
    /// The left-hand side.
    pub left: u64,
    /// The right-hand side.
    pub right: u64,
    /// Whether they are equal.
    pub holds: bool,
}

impl Identity {
    /// Compares two numbers.
    pub fn new(says: impl Into<String>, left: u64, right: u64) -> Identity {
        Identity { says: says.into(), left, right, holds: left == right }
    }
}
