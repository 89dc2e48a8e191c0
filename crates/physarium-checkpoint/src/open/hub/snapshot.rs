//! A directory that is a snapshot of a hub cache says by its path which model it is, at which commit.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::id::{HubId, is_commit};

/// Name of the directory of a model's snapshots in a cache.
pub(super) const SNAPSHOTS: &str = "snapshots";

/// A model of the hub at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    /// Its id: `org/name`.
    pub hub: String,
    /// The branch, tag or commit that was asked for; `None` if the snapshot's directory was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The commit that was read: 40 hex digits.
    pub commit: String,
}

impl HubSource {
    /// The model in `dir`, if that is, or leads to, `models--ORG--NAME/snapshots/COMMIT`.
    pub fn of_snapshot(dir: &Path) -> Option<HubSource> {
        let dir = fs::canonicalize(dir).ok()?;
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let (commit, above) = (name(&dir)?, dir.parent()?);
        let id = HubId::of_folder(&name(above.parent()?)?)?;
        let is_snapshot = is_commit(&commit) && name(above)? == SNAPSHOTS;
        let hub = id.name().to_owned();
        is_snapshot.then_some(HubSource { hub, revision: None, commit })
    }

    /// Where the files of the snapshot `dir` are, which are links to there; `None` if it is none.
    pub fn blobs_of(dir: &Path) -> Option<PathBuf> {
        HubSource::of_snapshot(dir)?;
        let model = fs::canonicalize(dir.join("../..")).ok()?;
        fs::canonicalize(model.join("blobs")).ok()
    }

    /// The id with the first digits of the commit, which are enough to find it in the cache.
    pub fn short(&self) -> String {
        format!("{}@{}", self.hub, self.commit.get(..12).unwrap_or(&self.commit))
    }

    /// The command that completes the snapshot.
    pub fn download(&self) -> String {
        format!("hf download {} --revision {}", self.hub, self.commit)
    }
}

/// The cache that a snapshot is in.
pub(crate) fn cache_of(snapshot: &Path) -> Option<PathBuf> {
    HubSource::of_snapshot(snapshot)?;
    let dir = fs::canonicalize(snapshot).ok()?;
    dir.ancestors().nth(3).map(Path::to_owned)
}

/// What to do about a file that is missing in `dir`, if that is a snapshot.
pub(crate) fn incomplete_hint(dir: &Path) -> Option<String> {
    let source = HubSource::of_snapshot(dir)?;
    Some(format!("the download is not complete: {}", source.download()))
}
