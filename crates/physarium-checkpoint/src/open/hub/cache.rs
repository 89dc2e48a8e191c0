/*!
The local cache of the hub, which `huggingface_hub` fills and every library of that family reads.

A model is in `models--ORG--NAME`: `refs/REVISION` holds the commit of a branch or a tag, `snapshots/COMMIT` its files as
links into `blobs`. The cache is only read.
*/

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::id::{HubId, is_commit, is_hex};
use super::snapshot::{HubSource, SNAPSHOTS};
use crate::error::{Error, Malformed, Result};
use crate::escape::{printable, printable_path};
use crate::open::source::Source;
use crate::open::store::source::ModelSource;

/// Largest ref that is read, in bytes: a commit, and the end of its line.
const MAX_REF_BYTES: u64 = 64;
/// Fewest digits of a commit that are taken for its beginning.
const MIN_PREFIX: usize = 4;
/// Most revisions that an error lists.
const SHOWN: usize = 8;

/// The local cache of the hub.
#[derive(Debug, Clone)]
pub struct HubCache {
    /// Its directory, which need not exist; `None` if the environment names none.
    dir: Option<PathBuf>,
    downloads: Downloads,
}

/// Whether the user wants downloads, which the hint for a model that is not in the cache depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Downloads {
    Wanted,
    /// `HF_HUB_OFFLINE` is set.
    Refused,
}

/// What the user means by the name of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelName {
    /// A directory or file, which may not exist.
    Path(PathBuf),
    /// A model of the hub.
    Hub(HubId),
}

/// A model on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundModel {
    /// Its directory, or its packed file.
    pub path: PathBuf,
    /// Its place on the hub or in a store, if it is in a hub cache or a mirror.
    pub source: Option<ModelSource>,
}

impl FoundModel {
    /// The model at a path, which may be a snapshot of a hub cache, or a mirror.
    pub fn at(path: &Path) -> FoundModel {
        FoundModel { path: path.to_owned(), source: ModelSource::of_dir(path) }
    }
}

impl HubCache {
    /// The cache that these environment variables name: `HF_HUB_CACHE`, or the older `HUGGINGFACE_HUB_CACHE`; else
    /// `hub` in `HF_HOME`; else `huggingface/hub` in `XDG_CACHE_HOME` or in `HOME/.cache`. Empty ones count as not set.
    pub fn of_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> HubCache {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = set("HOME").map(PathBuf::from);
        let path = |name: &str| {
            let path = PathBuf::from(set(name)?);
            match (path.strip_prefix("~"), &home) {
                (Ok(below), Some(home)) => Some(home.join(below)),
                _ => Some(path),
            }
        };
        let cache_home = || path("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")));
        let hf_home = || path("HF_HOME").or_else(|| Some(cache_home()?.join("huggingface")));
        let dir = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(hf_home()?.join("hub")));
        let offline = set("HF_HUB_OFFLINE").is_some_and(|value| {
            let value = value.to_string_lossy().to_ascii_uppercase();
            ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
        });
        HubCache { dir, downloads: if offline { Downloads::Refused } else { Downloads::Wanted } }
    }

    /// What `model` means: a path if something is there; else a hub id if it has the form of one. A name without
    /// organisation is an id only if the cache has it.
    ///
    /// # Errors
    /// `Malformed` for a hub id with a revision that is none.
    pub fn name(&self, model: &Path) -> Result<ModelName> {
        let path = || ModelName::Path(model.to_owned());
        if model.symlink_metadata().is_ok() {
            return Ok(path());
        }
        let Some(text) = model.to_str() else { return Ok(path()) };
        let Some(id) = HubId::parse(text)? else { return Ok(path()) };
        let is_here = || self.folder(&id).is_some_and(|folder| folder.is_dir());
        let is_meant = id.name().contains('/') || is_here();
        Ok(if is_meant { ModelName::Hub(id) } else { path() })
    }

    /// Finds a model's snapshot: that of a branch or tag, of a commit, or of the only commit that begins with the
    /// revision's digits. Without a revision, it is that of `main`.
    ///
    /// # Errors
    /// `Malformed` with what the cache has, and the command that downloads the model; `Io`.
    pub fn find(&self, id: &HubId) -> Result<FoundModel> {
        let Some(folder) = self.folder(id) else {
            let expected = "HF_HUB_CACHE, HF_HOME or HOME to be set";
            return Err(self.missing(id, "no hub cache", expected, "none of them"));
        };
        if !folder.is_dir() {
            let cache = folder.parent().unwrap_or(&folder);
            let expected =
                format!("a directory, or a model in the hub cache {}", printable_path(cache));
            return Err(self.missing(id, "no such model here", &expected, "neither"));
        }
        let revision = id.revision().unwrap_or("main");
        let commit = self.commit(id, &folder, revision)?;
        let path = folder.join(SNAPSHOTS).join(&commit);
        if !path.is_dir() {
            let expected = format!("the snapshot {}", printable_path(&path));
            return Err(self.missing(id, "not downloaded", &expected, "nothing there"));
        }
        let (hub, revision) = (id.name().to_owned(), Some(revision.to_owned()));
        let source = ModelSource::Hub(HubSource { hub, revision, commit });
        Ok(FoundModel { path, source: Some(source) })
    }

    /// Fails if an output would be in the cache, where everything is a download.
    ///
    /// # Errors
    /// `Output`.
    pub fn refuse_output(&self, out: &Path) -> Result<()> {
        let Some(cache) = self.dir.as_ref().and_then(|dir| fs::canonicalize(dir).ok()) else {
            return Ok(());
        };
        let absolute = std::path::absolute(out).map_err(|e| Error::io(out, "resolve", e))?;
        let real = absolute.ancestors().find_map(|above| fs::canonicalize(above).ok());
        match real {
            Some(real) if real.starts_with(&cache) => Err(inside_cache(out, &cache)),
            _ => Ok(()),
        }
    }

    /// Where the model is, if it is here.
    fn folder(&self, id: &HubId) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(id.folder()))
    }

    /// The commit of a revision.
    fn commit(&self, id: &HubId, folder: &Path, revision: &str) -> Result<String> {
        if is_commit(revision) {
            return Ok(revision.to_owned());
        }
        let path = folder.join("refs").join(revision);
        if path.is_file() {
            let bytes = Source::open(&path)?.read_all(MAX_REF_BYTES)?;
            let text = String::from_utf8_lossy(&bytes);
            return match text.trim_end() {
                commit if is_commit(commit) => Ok(commit.to_owned()),
                _ => {
                    Err(Malformed::new(&path, "ref", "a commit of 40 hex digits", printable(&text))
                        .into())
                }
            };
        }
        let mut commits = commits(folder);
        let listed = listed(&commits);
        let is_prefix = revision.len() >= MIN_PREFIX && is_hex(revision);
        commits.retain(|commit| is_prefix && commit.starts_with(revision));
        match commits.as_slice() {
            [commit] => Ok(commit.clone()),
            [] => {
                let what = "revision is not in the hub cache";
                let expected = format!("a branch, tag or commit of {}", printable_path(folder));
                let found = format!("no {revision}; commits there: {listed}");
                Err(self.missing(id, what, &expected, &found))
            }
            several => {
                let found = self::listed(several);
                Err(self.missing(id, "several commits begin so", "one", &found))
            }
        }
    }

    fn missing(&self, id: &HubId, what: &'static str, expected: &str, found: &str) -> Error {
        let revision = id.revision().map(|revision| format!(" --revision {revision}"));
        let command = format!("hf download {}{}", id.name(), revision.unwrap_or_default());
        let hint = match self.downloads {
            Downloads::Wanted => command,
            Downloads::Refused => format!(
                "HF_HUB_OFFLINE is set and the cache has no such model; where downloads are allowed: {command}"
            ),
        };
        let fault = Malformed::new(Path::new(&id.to_string()), what, expected, found);
        fault.with_hint(hint).into()
    }
}

/// The error for an output in a cache.
pub(crate) fn inside_cache(out: &Path, cache: &Path) -> Error {
    Error::Output {
        path: out.to_owned(),
        what: "output is inside the hub cache",
        expected: "a path outside the cache, which holds downloads only".to_owned(),
        found: printable_path(cache),
    }
}

/// The commits in a model's folder, sorted.
fn commits(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join(SNAPSHOTS)).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut commits: Vec<String> = names.filter(|name| is_commit(name)).collect();
    commits.sort();
    commits
}

/// Commits for an error.
fn listed(commits: &[String]) -> String {
    let shown: Vec<&str> = commits.iter().take(SHOWN).map(|commit| &commit[..12]).collect();
    match commits.len() {
        0 => "none".to_owned(),
        n if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}
