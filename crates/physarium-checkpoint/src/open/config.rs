//! `config.json`, for what it may add to names and shapes.

use std::path::Path;

use serde_json::Value;

use crate::open::source::Source;

/// Name of the config in a checkpoint directory.
pub(crate) const CONFIG_NAME: &str = "config.json";
/// Largest config that is read, in bytes.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// The config of a checkpoint directory; null if there is none, or none that is JSON of at most 4 MiB.
pub fn config_json(dir: &Path) -> Value {
    let source = Source::open(&dir.join(CONFIG_NAME));
    of_bytes(&source.and_then(|source| source.read_all(MAX_BYTES)).unwrap_or_default())
}

/// The config in these bytes; null if they are no JSON.
pub(crate) fn of_bytes(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}
