//! What running layers takes beside their weights.

use std::sync::{Mutex, PoisonError};

use physarium_kernels::{Buffer, Compute};

use crate::config::Config;
use crate::rope::Angles;

/// What running layers takes beside their weights. Several windows may use it at the same time.
#[derive(Debug)]
pub struct Workspace<'a> {
    compute: &'a Compute,
    angles: Angles,
    /// Kept from one call to the next: fresh memory costs as much as a product.
    buffers: Mutex<Vec<Buffers>>,
}

/// Activations on the way through a layer.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub normed: Buffer,
    pub q: Buffer,
    pub up: Buffer,
    pub added: Buffer,
}

impl<'a> Workspace<'a> {
    /// For windows of at most `positions` tokens of a model.
    pub fn new(compute: &'a Compute, config: &Config, positions: usize) -> Workspace<'a> {
        let angles = Angles::new(&config.rope, positions);
        Workspace { compute, angles, buffers: Mutex::default() }
    }

    /// The threads and instructions that it runs on.
    pub fn compute(&self) -> &'a Compute {
        self.compute
    }

    /// Cosines and sines of the positions.
    pub(crate) fn angles(&self) -> &Angles {
        &self.angles
    }

    /// Lends buffers to `work`; their contents are left over from earlier work.
    pub(crate) fn with_buffers(&self, work: impl FnOnce(&mut Buffers)) {
        let kept = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = kept().pop().unwrap_or_default();
        work(&mut buffers);
        kept().push(buffers);
    }
}
