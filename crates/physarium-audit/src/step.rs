//! Progress of an audit or a verification.

/// Progress of an audit or a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Bytes to be read in total.
    Total(u64),
    /// Bytes read since the last step.
    Read(u64),
}
