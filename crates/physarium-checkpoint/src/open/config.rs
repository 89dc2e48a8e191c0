//! `config.json`, for what it may add to names and shapes.

use std::path::Path;

use serde_json::Value;

use crate::open::source::Source;

/// Name of the config in a checkpoint directory.
pub(crate) const CONFIG_NAME: &str = "config.json";
/// Largest config that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The config of a checkpoint directory; null if there is none, or none that is JSON of at most 4 MiB.
pub fn config_json(dir: &Path) -> Value {
    let source = Source::open(&dir.join(CONFIG_NAME));
    let bytes = source.and_then(|source| source.read_all(MAX_BYTES));
    serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default()
}
