//! Cancellation and progress of the work on layers.

use crate::cancel::Cancel;
use crate::progress::Progress;

/// Cancellation and progress of a run.
pub(crate) struct Watch<'a> {
    pub cancel: &'a Cancel,
    pub progress: &'a mut dyn Progress,
}
