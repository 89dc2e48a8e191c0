//! Stopping a run from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;

/// A flag that another thread, or a signal handler, raises to stop a run. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A `Cancel` that watches an existing flag, such as one that a signal handler raises.
    pub fn watching(flag: Arc<AtomicBool>) -> Cancel {
        Cancel(flag)
    }

    /// Stops every run that was given this `Cancel` or a clone of it, between two small pieces of work.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the flag is raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag as a question, for [`Compute::stopping_when`](physarium_model::Compute::stopping_when).
    pub(crate) fn asked(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let flag = self.clone();
        move || flag.is_raised()
    }

    /// Fails once the flag is raised.
    pub(crate) fn check(&self) -> Result<(), physarium_checkpoint::Error> {
        if self.is_raised() { Err(physarium_checkpoint::Error::Interrupted) } else { Ok(()) }
    }
}
