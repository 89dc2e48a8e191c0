//! Models in a store in memory: mirrors, reads by ranges, uploads.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod mirrors;
mod ranges;
mod uploads;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use physarium_store::{Client, Mirror, StoreAddress, register};

/// The cache of this process, which [`register`] takes once.
static CACHE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let cache = tempfile::tempdir().unwrap();
    register(cache.path());
    cache
});

/// A bucket of its own, and a directory in it.
pub struct Store {
    pub address: StoreAddress,
    pub memory: Arc<InMemory>,
}

impl Store {
    pub fn new(bucket: &str) -> Store {
        let address = StoreAddress::parse(Path::new(&format!("s3://{bucket}/models/one"))).unwrap();
        let memory = Arc::new(InMemory::new());
        Client::register(&address, memory.clone());
        Store { address, memory }
    }

    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let key = object_store::path::Path::from(format!("models/one/{path}"));
        let payload = bytes.into().into();
        runtime().block_on(self.memory.put(&key, payload)).unwrap();
    }

    /// Puts an object whose key may end with a slash, as consoles make for a directory; the store drops the slash.
    pub fn put_key(&self, key: &str, bytes: &str) {
        let key = object_store::path::Path::from(key);
        runtime().block_on(self.memory.put(&key, bytes.to_owned().into())).unwrap();
    }

    pub fn delete(&self, path: &str) {
        let key = object_store::path::Path::from(format!("models/one/{path}"));
        runtime().block_on(self.memory.delete(&key)).unwrap();
    }

    /// Paths of the objects in the directory.
    pub fn paths(&self) -> Vec<String> {
        use futures_util::TryStreamExt;
        let listed: Vec<_> = runtime().block_on(self.memory.list(None).try_collect()).unwrap();
        let mut paths: Vec<String> = listed
            .iter()
            .map(|object| object.location.as_ref().strip_prefix("models/one").unwrap())
            .map(|path| path.trim_start_matches('/').to_owned())
            .collect();
        paths.sort();
        paths
    }

    pub fn mirror(&self) -> Result<PathBuf, physarium_checkpoint::Error> {
        Ok(Mirror::of(&self.address, CACHE.path())?.dir)
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}
