//! Writes pruned shards into the staging directory, and records them.

use physarium_checkpoint::Staging;
use physarium_checkpoint::journal::ShardRecord;

use crate::engine::ShardRun;
use crate::error::Result;
use crate::progress::{Event, Progress};
use crate::records::{Records, tensor_record};

/// Writes pruned shards into the staging directory, and records them.
pub(super) struct ShardWriter<'a> {
    pub staging: &'a mut Staging,
    pub records: &'a mut Records,
    pub progress: &'a mut dyn Progress,
}

impl ShardWriter<'_> {
    /// Prunes one shard and makes it durable.
    pub fn write(&mut self, run: &ShardRun<'_>) -> Result<()> {
        let shard = run.shard;
        let mut part = self.staging.create_shard(&shard.name, shard.size_bytes())?;
        let (input_sha256, output_sha256) = run.run(&mut part, &mut |bytes, complete| {
            self.progress.event(Event::Bytes(bytes));
            let Some(tensor) = complete else { return Ok(()) };
            self.progress.event(Event::Tensor(&tensor.planned.input.name));
            let record = tensor_record(run.engine, shard, &tensor);
            self.staging.record_tensor(record.clone())?;
            self.records.tensors.push(record);
            Ok(())
        })?;
        let (name, size_bytes) = (shard.name.clone(), shard.size_bytes());
        let record = ShardRecord { name, size_bytes, input_sha256, output_sha256 };
        self.staging.finish_shard(&shard.path, part, record.clone())?;
        self.records.shards.push(record);
        self.progress.event(Event::Shard(&shard.name));
        Ok(())
    }
}
