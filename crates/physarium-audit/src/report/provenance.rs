//! What was audited, and how the checkpoint was made as far as it says so.

use std::path::Path;

use physarium_checkpoint::journal::{Journal, ShardRecord};
use physarium_checkpoint::{ModelSource, Recipe};
use serde::{Deserialize, Serialize};

/// What was audited, and what the journal states about its making.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Program and version that audited.
    pub audited_by: String,
    /// Last component of the checkpoint's path; of a snapshot of a hub cache, `org/name@` and the commit's first 12
    /// digits.
    pub checkpoint: String,
    /// Where the checkpoint is on the hub or in a store; `None` for any other directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ModelSource>,
    /// The same of the original; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// The same of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_source: Option<ModelSource>,
    /// Program and version that pruned, by the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned_by: Option<String>,
    /// The recipe, by the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// Digests of the shards before and after, by the journal; `verify` compares them with the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardRecord>,
}

impl Provenance {
    /// Of a checkpoint in a directory, its original in another, and its journal.
    pub(crate) fn of(dir: &Path, against: Option<&Path>, journal: Option<&Journal>) -> Provenance {
        Provenance {
            audited_by: concat!("physarium ", env!("CARGO_PKG_VERSION")).to_owned(),
            checkpoint: name_of(dir),
            source: ModelSource::of_dir(dir),
            against: against.map(name_of),
            against_source: against.and_then(ModelSource::of_dir),
            pruned_by: journal.map(|journal| journal.run.tool.clone()),
            recipe: journal.map(|journal| journal.run.recipe.clone()),
            shards: journal.map_or_else(Vec::new, |journal| journal.shards.clone()),
        }
    }
}

/// The whole path of somebody's machine is nobody else's business.
fn name_of(path: &Path) -> String {
    if let Some(source) = ModelSource::of_dir(path) {
        return source.short();
    }
    let real = std::fs::canonicalize(path);
    let path = real.as_deref().unwrap_or(path);
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into())
}
