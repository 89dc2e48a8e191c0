//! The marker of an unfinished output, which identifies the input's files on this machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::durable::write_whole;
use crate::error::Result;
use crate::open::checkpoint::{Checkpoint, Shard};
use crate::open::unfinished::UNFINISHED_NAME;

/// Inode, size and time of each input shard, by which a replaced or modified file is detected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    /// For a user who opens the file. It is compared like the rest, so that it must not change.
    note: String,
    shards: Vec<ShardFingerprint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ShardFingerprint {
    name: String,
    inode: u64,
    size_bytes: u64,
    modified_ns: i128,
}

impl Fingerprint {
    pub fn of(shards: &[Shard]) -> Fingerprint {
        let note = "unfinished physarium output: run the same prune command again to finish it";
        let one = |shard: &Shard| ShardFingerprint {
            name: shard.name.clone(),
            inode: shard.identity.inode,
            size_bytes: shard.identity.size,
            modified_ns: shard.identity.modified_ns,
        };
        Fingerprint { note: note.to_owned(), shards: shards.iter().map(one).collect() }
    }
}

/// Writes the marker into a staging directory.
pub(super) fn mark_unfinished(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let fingerprint = Fingerprint::of(checkpoint.shards());
    let text = serde_json::to_string_pretty(&fingerprint).expect("a fingerprint is plain JSON");
    write_whole(&dir.join(UNFINISHED_NAME), (text + "\n").as_bytes())
}
