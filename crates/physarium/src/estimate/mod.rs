//! How long a run would take, from about a second of its work.

mod activations;
mod weights;

pub(crate) use activations::{CalibratedRun, Measured};
pub(crate) use weights::of_weights;
