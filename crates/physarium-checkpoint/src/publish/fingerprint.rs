//! The marker of an unfinished output: the input as it is on this machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::durable::write_whole;
use crate::error::Result;
use crate::open::checkpoint::{Checkpoint, Shard};
use crate::open::unfinished::UNFINISHED_NAME;

/// The input as it is on this machine: told apart from a file that replaced it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    note: String,
    shards: Vec<FingerprintShard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FingerprintShard {
    pub name: String,
    pub inode: u64,
    pub size_bytes: u64,
    pub modified_ns: i128,
}

impl Fingerprint {
    pub fn of(shards: &[Shard]) -> Fingerprint {
        let note = "unfinished physarium output: run the same prune command again to finish it";
        let one = |shard: &Shard| FingerprintShard {
            name: shard.name.clone(),
            inode: shard.identity.inode,
            size_bytes: shard.identity.size,
            modified_ns: shard.identity.modified_ns,
        };
        Fingerprint { note: note.to_owned(), shards: shards.iter().map(one).collect() }
    }
}

/// Puts the marker into a staging directory, whole or not at all.
pub(super) fn mark_unfinished(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let fingerprint = Fingerprint::of(checkpoint.shards());
    let text = serde_json::to_string_pretty(&fingerprint).expect("a fingerprint is plain JSON");
    write_whole(&dir.join(UNFINISHED_NAME), (text + "\n").as_bytes())
}
