//! What identifies a model whose evaluation is on record.

use std::path::{Path, PathBuf};

use physarium_checkpoint::{
    Checkpoint, Disposition, Error as Fault, LinkPolicy, Purpose, Sidecar, Source,
};
use serde_json::{Value, json};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::progress::{Event, Progress};

/// SHA-256 of each file of a checkpoint that a pruned one would have, by name; that of a packed file.
///
/// # Errors
/// `Checkpoint` for a model that cannot be read; `Interrupted` when `cancel` is raised.
pub(crate) fn model_digests(
    model: &Path,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Value> {
    let open = |(name, path): (String, PathBuf)| Ok((name, Source::open(&path)?));
    let sources = files(model)?.into_iter().map(open).collect::<Result<Vec<_>, Fault>>()?;
    let bytes = sources.iter().map(|(_, source)| source.len()).sum();
    progress.event(Event::Started { task: "hash the model", bytes, tensors: 0 });
    let mut digests = serde_json::Map::new();
    for (name, source) in sources {
        let digest = source.sha256(&mut |bytes| {
            progress.event(Event::Bytes(bytes));
            cancel.check()
        })?;
        digests.insert(name, json!(digest));
    }
    progress.event(Event::Finished);
    Ok(Value::Object(digests))
}

/// The files by their names in the model; a packed file has none.
fn files(model: &Path) -> Result<Vec<(String, PathBuf)>> {
    if model.is_file() {
        return Ok(vec![(String::new(), model.to_owned())]);
    }
    let checkpoint = Checkpoint::open(model)?;
    let sidecars = Sidecar::list(&checkpoint, Purpose::NewWeights, LinkPolicy::Follow)?;
    let shards = checkpoint.shards().iter().map(|shard| PathBuf::from(&shard.name));
    let is_copied = |sidecar: &Sidecar| matches!(sidecar.disposition, Disposition::Copy);
    let copied = sidecars.into_iter().filter(is_copied).map(|sidecar| sidecar.path);
    let named = |path: PathBuf| (path.to_string_lossy().into_owned(), model.join(path));
    Ok(shards.chain(copied).map(named).collect())
}
