//! Where a model is that a run was given by name: on the hub, or in an object store.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::open::hub::snapshot::HubSource;
use crate::open::source::Source;

/// Largest record of a mirror that is read, in bytes; one takes some 150 bytes per object.
const MAX_RECORD_BYTES: u64 = 64 << 20;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModelSource {
    /// On the hub, at a commit.
    Hub(HubSource),
    /// In an object store.
    Store(StoreSource),
}

/// A model in an object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSource {
    /// Its address: `s3://bucket/path`.
    pub store: String,
}

impl ModelSource {
    /// Where the model in `dir` comes from, if that is a snapshot of a hub cache or the mirror of a directory in a store.
    pub fn of_dir(dir: &Path) -> Option<ModelSource> {
        let hub = HubSource::of_snapshot(dir).map(ModelSource::Hub);
        hub.or_else(|| StoreSource::of_mirror(dir).map(ModelSource::Store))
    }

    /// The place on the hub.
    pub fn hub(&self) -> Option<&HubSource> {
        match self {
            ModelSource::Hub(source) => Some(source),
            ModelSource::Store(_) => None,
        }
    }

    /// The id with the first digits of the commit, or the address.
    pub fn short(&self) -> String {
        match self {
            ModelSource::Hub(source) => source.short(),
            ModelSource::Store(source) => source.store.clone(),
        }
    }
}

impl StoreSource {
    /// The schemes of addresses.
    pub const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

    /// Whether a path is meant as an address in a store.
    pub fn is_address(path: &Path) -> bool {
        let scheme = path.to_str().and_then(|text| Some(text.split_once("://")?.0));
        scheme.is_some_and(|scheme| StoreSource::SCHEMES.contains(&scheme))
    }

    /// Name of the directory of a mirror that is read as a checkpoint.
    pub const FILES: &str = "files";
    /// Name of the record beside it: a JSON object with the address as its field `store`.
    pub const RECORD: &str = "store.json";

    /// The address whose mirror `dir` is.
    fn of_mirror(dir: &Path) -> Option<StoreSource> {
        #[derive(Deserialize)]
        struct Record {
            store: String,
        }
        let dir = std::fs::canonicalize(dir).ok()?;
        let record = dir.parent()?.join(StoreSource::RECORD);
        if dir.file_name()? != StoreSource::FILES || !record.is_file() {
            return None;
        }
        let bytes = Source::open(&record).ok()?.read_all(MAX_RECORD_BYTES).ok()?;
        let Record { store } = serde_json::from_slice(&bytes).ok()?;
        Some(StoreSource { store })
    }
}
