//! What layers need to run beside their weights: threads, rotation angles, buffers.

use std::sync::{Mutex, PoisonError};

use physarium_kernels::{Buffer, Compute};

use crate::open::config::Config;
use crate::open::rope::Angles;

/// What layers need to run beside their weights. Several windows may use it at the same time.
#[derive(Debug)]
pub struct Workspace<'a> {
    compute: &'a Compute,
    angles: Angles,
    /// Those of layers with a sliding window, where they differ.
    local_angles: Option<Angles>,
    /// Reused between calls: allocating takes as long as a matrix product.
    buffers: Mutex<Vec<Buffers>>,
}

/// Intermediate activations of a layer.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub normed: Buffer,
    pub q: Buffer,
    pub up: Buffer,
    pub added: Buffer,
}

impl<'a> Workspace<'a> {
    /// Creates a workspace for windows of at most `positions` tokens.
    pub fn new(compute: &'a Compute, config: &Config, positions: usize) -> Workspace<'a> {
        let angles = Angles::new(&config.rope, positions);
        let local_angles = config.local_rope.as_ref().map(|rope| Angles::new(rope, positions));
        Workspace { compute, angles, local_angles, buffers: Mutex::default() }
    }

    /// Makes room for windows of at most `positions` tokens of the same model.
    pub(crate) fn extend(&mut self, config: &Config, positions: usize) {
        self.angles.extend(&config.rope, positions);
        if let (Some(angles), Some(rope)) = (&mut self.local_angles, &config.local_rope) {
            angles.extend(rope, positions);
        }
    }

    /// The threads and the instruction set.
    pub fn compute(&self) -> &'a Compute {
        self.compute
    }

    /// Cosines and sines of the positions, for a layer with this sliding window or none.
    pub(crate) fn angles(&self, window: Option<usize>) -> &Angles {
        let local = window.and(self.local_angles.as_ref());
        local.unwrap_or(&self.angles)
    }

    /// Calls `work` with buffers, which may contain data of earlier calls.
    pub(crate) fn with_buffers(&self, work: impl FnOnce(&mut Buffers)) {
        let kept = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = kept().pop().unwrap_or_default();
        work(&mut buffers);
        kept().push(buffers);
    }
}
