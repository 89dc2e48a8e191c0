//! Stopping a run from outside, between two pieces of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;

/// A flag that a signal handler, or another thread, raises to stop a run.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A token that watches an existing flag (one that a signal handler raises, say).
    pub fn watching(flag: Arc<AtomicBool>) -> Cancel {
        Cancel(flag)
    }

    /// Asks every run that holds this token to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run shall stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails once the run shall stop.
    pub(crate) fn check(&self) -> Result<(), physarium_checkpoint::Error> {
        if self.is_raised() { Err(physarium_checkpoint::Error::Interrupted) } else { Ok(()) }
    }
}
