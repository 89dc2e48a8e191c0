/*!
A checkpoint inside another file: its shards and index are checked as those of a directory are.

In: headers of shards, and the files that say which shards a loader takes. Out: nothing but an error, so that whoever
reads the container and whoever reads the unpacked directory see one model.
*/

use std::path::Path;

use crate::error::{Error, Malformed, Result};
use crate::escape::printable;
use crate::open::checkpoint::{Held, SINGLE_NAME, check_index, refuse_too_many, refuse_two_sets};
use crate::open::config;
use crate::open::header::{Header, LENGTH_BYTES, MAX_HEADER_BYTES, TensorInfo};
use crate::open::index::{INDEX_NAME, Index, MAX_INDEX_BYTES};
use crate::open::tied::is_tied;
use crate::open::unfinished::UNFINISHED_NAME;

/// A shard inside another file.
#[derive(Debug, Clone, Copy)]
pub struct EnclosedShard<'a> {
    /// Its path in the checkpoint.
    pub name: &'a str,
    /// Its bytes before the first tensor, with the length field.
    pub header: &'a [u8],
    /// Its size in bytes.
    pub size_bytes: u64,
}

impl EnclosedShard<'_> {
    /// Most bytes before the first tensor of a shard.
    pub const MAX_HEADER_BYTES: u64 = LENGTH_BYTES + MAX_HEADER_BYTES;

    /// Its tensors in the order of their bytes. `container` is the file that holds the shard, for messages.
    ///
    /// # Errors
    /// As [`Shard::open`](crate::Shard::open).
    pub fn tensors(&self, container: &Path) -> Result<Vec<TensorInfo>> {
        Ok(Header::of(&container.join(self.name), self.header, self.size_bytes)?.tensors)
    }
}

/// The files of a checkpoint inside another file.
pub trait EnclosedFiles {
    /// The path of the container, for messages.
    fn container(&self) -> &Path;

    /// Whether there is a file of this name, shards included.
    fn has(&self, name: &str) -> bool;

    /// The bytes of a file that is not a shard, if there is one of this name.
    ///
    /// # Errors
    /// `Malformed` for more than `limit` bytes; `Io`.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>>;
}

/// Checks that a loader of the files, once they are in a directory, takes these shards, by name, and no other file.
///
/// # Errors
/// `Malformed` for what [`Checkpoint::open`](crate::Checkpoint::open) refuses in a directory of these files, and for
/// shards that it would not open.
pub fn check_enclosed(files: &dyn EnclosedFiles, shards: &[(&str, Vec<TensorInfo>)]) -> Result<()> {
    let container = files.container();
    refuse_too_many(container, shards.iter().map(|(_, tensors)| tensors.len()).sum(), 0)?;
    if files.has(UNFINISHED_NAME) {
        return Err(Error::Unfinished { path: container.join(UNFINISHED_NAME) });
    }
    let index_path = container.join(INDEX_NAME);
    let index = match files.read(INDEX_NAME, MAX_INDEX_BYTES)? {
        Some(bytes) => Some(Index::parse(&index_path, &bytes)?),
        None => None,
    };
    let mut loaded: Vec<&str> = match &index {
        Some(index) => index.weight_map.values().map(String::as_str).collect(),
        None => vec![SINGLE_NAME],
    };
    if let (Some(index), true) = (&index, files.has(SINGLE_NAME)) {
        refuse_two_sets(container, index)?;
    }
    let mut stored: Vec<&str> = shards.iter().map(|(name, _)| *name).collect();
    loaded.sort_unstable();
    loaded.dedup();
    stored.sort_unstable();
    if loaded != stored {
        let shown = |names: &[&str]| {
            let shown: Vec<String> = names.iter().take(8).map(|name| printable(name)).collect();
            format!("{} ({})", names.len(), shown.join(", "))
        };
        let (expected, found) = (shown(&loaded), shown(&stored));
        let what = "other shards than a loader takes";
        return Err(Malformed::new(container, what, expected, found).into());
    }
    let Some(index) = index else { return Ok(()) };
    let is_tied = || {
        let bytes = files.read(config::CONFIG_NAME, config::MAX_BYTES).ok().flatten();
        is_tied(&config::of_bytes(&bytes.unwrap_or_default()))
    };
    let paths: Vec<_> = shards.iter().map(|(name, _)| container.join(name)).collect();
    let held = shards.iter().zip(&paths);
    let held = held.map(|((name, tensors), path)| Held { name, path, tensors });
    check_index(&index_path, &index, &held.collect::<Vec<_>>(), &is_tied)?;
    Ok(())
}
