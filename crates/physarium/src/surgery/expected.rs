//! What a run is expected to take: memory, disk and time.

use std::collections::BTreeMap;
use std::time::Duration;

use physarium_checkpoint::{Dtype, Shard};
use physarium_model::{Decoder, Residency};

use super::{RECORD_BYTES, Surgery};
use crate::cancel::Cancel;
use crate::engine::{Engine, Footprint, Found, MemoryPlan, OnTiles};
use crate::error::Result;
use crate::estimate::{self, CalibratedRun, Measured};

impl Surgery {
    /// Bytes that the output will take, at most.
    pub fn output_bytes(&self) -> u64 {
        let shards: u64 = self.checkpoint.shards().iter().map(Shard::size_bytes).sum();
        let sidecars: u64 = self.sidecars.iter().map(|sidecar| sidecar.size_bytes).sum();
        shards + sidecars + self.plan.tensors.len() as u64 * RECORD_BYTES
    }

    /// Bytes that an activation-aware method takes beside those of the output, where it takes the most: solved weights, of which a
    /// layer's file is removed with the last shard that holds them, and the scratch file, if there is one.
    pub fn solved_bytes(&self) -> u64 {
        if self.recipe.needs().calibration.is_none() {
            return 0;
        }
        let shards = self.checkpoint.shards();
        // By layer, the last shard and the bytes.
        let mut layers = BTreeMap::<Option<u64>, (usize, u64)>::new();
        for target in self.plan.targets() {
            let (last, bytes) = layers.entry(target.views[0].site.layer).or_default();
            *last = target.shard.max(*last);
            *bytes += target.input.size_bytes() + RECORD_BYTES;
        }
        let mut solved: u64 = layers.values().map(|(_, bytes)| bytes).sum();
        let (mut written, mut most) = (0, solved + self.memory.scratch_bytes());
        for (index, shard) in shards.iter().enumerate() {
            written += shard.size_bytes();
            most = most.max(written + solved);
            let released = layers.values().filter(|(last, _)| *last == index);
            solved -= released.map(|(_, bytes)| bytes).sum::<u64>();
        }
        most.saturating_sub(self.output_bytes())
    }

    /// How long the run would take, from about a second of its work. `None` for a magnitude method with a sparsity of
    /// the whole model, which reads all targets before it writes.
    ///
    /// # Errors
    /// `Checkpoint` and `Model` for weights that cannot be read; `Usage` for an activation-aware method without a
    /// calibration text; `Interrupted` when `cancel` is raised.
    pub fn estimate(&self, cancel: &Cancel) -> Result<Option<Duration>> {
        if self.recipe.needs().calibration.is_some() {
            let decoder = Decoder::open(self.checkpoint.dir(), Residency::Streamed)?;
            let run = self.calibrated_run(&decoder, cancel)?;
            return Ok(Some(Measured::of(&run)?.whole(&run)));
        }
        if self.is_over_model() {
            return Ok(None);
        }
        let engine = Engine::prepare(self.preparation(Found::Nothing), cancel)?;
        let shards = self.checkpoint.shards();
        let bytes = shards.iter().map(Shard::size_bytes).sum();
        let targets = self.plan.targets().map(|target| (&shards[target.shard], target));
        Ok(Some(estimate::of_weights(&engine, targets, bytes, self.memory.threads)?))
    }

    /// The run of an activation-aware method, to be estimated.
    ///
    /// # Errors
    /// `Usage` without a calibration text.
    pub(crate) fn calibrated_run<'a>(
        &'a self,
        decoder: &'a Decoder,
        cancel: &'a Cancel,
    ) -> Result<CalibratedRun<'a>> {
        Ok(CalibratedRun {
            decoder,
            plan: &self.plan,
            recipe: &self.recipe,
            windows: self.windows()?,
            threads: self.memory.threads,
            pruned_inputs: self.memory.pruned_inputs,
            cancel,
        })
    }

    /// What an activation-aware method needs of memory.
    ///
    /// # Errors
    /// `Model` for faults in the weights' headers.
    pub(crate) fn footprint<'a>(
        &'a self,
        decoder: &'a Decoder,
        windows: &'a [Vec<u32>],
    ) -> Result<Footprint<'a>> {
        let dtype = decoder.dtype()?;
        Ok(Footprint {
            config: decoder.config(),
            windows,
            recipe: &self.recipe,
            threads: self.memory.threads,
            element_bytes: dtype.bits() / 8,
            on_tiles: OnTiles::of(self.recipe.arithmetic.filter(|_| dtype == Dtype::BF16)),
        })
    }

    /// Fails if this many resident bytes are more than the run's options allow.
    ///
    /// # Errors
    /// `NoMemory`.
    pub(crate) fn check_memory(&self, resident_bytes: u64) -> Result<()> {
        MemoryPlan { resident_bytes, ..self.memory }.check(self.allowed)
    }
}
