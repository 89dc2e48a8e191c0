//! Models in object stores, if the program is built to read them.

use std::path::{Path, PathBuf};

#[cfg(feature = "object-stores")]
pub use reading::{by_address, mirror, register};

#[cfg(feature = "object-stores")]
mod reading {
    use std::collections::BTreeMap;
    use std::env::var_os;
    use std::sync::{Mutex, PoisonError};

    use anyhow::Context;
    use physarium_store::{Mirror, StoreAddress, cache_of_environment};

    use super::{Path, PathBuf};

    /// The address of each mirror that this process has used.
    static USED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

    /// Lets every command read links of mirrors.
    pub fn register() {
        if let Some(cache) = cache() {
            physarium_store::register(&cache);
        }
    }

    /// The directory as which the model at an address is read.
    ///
    /// # Errors
    /// For an address that is none, a store that cannot be reached, and a cache that cannot be written.
    pub fn mirror(address: &Path) -> anyhow::Result<PathBuf> {
        let place =
            "no place for a mirror, expected PHYSARIUM_CACHE, XDG_CACHE_HOME or HOME to be set";
        let cache = cache().with_context(|| format!("{}: {place}", address.display()))?;
        let address = StoreAddress::parse(address)?;
        let dir = Mirror::of(&address, &cache)?.dir;
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(dir.display().to_string(), address.to_string());
        Ok(dir)
    }

    /// A message in which mirrors are called by their addresses.
    pub fn by_address(message: String) -> String {
        let used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter().fold(message, |message, (dir, address)| message.replace(dir, address))
    }

    fn cache() -> Option<PathBuf> {
        cache_of_environment(&|name| var_os(name))
    }
}

/// Nothing to register.
#[cfg(not(feature = "object-stores"))]
pub fn register() {}

/// A message; there are no mirrors in it.
#[cfg(not(feature = "object-stores"))]
pub fn by_address(message: String) -> String {
    message
}

/// Refuses an address.
///
/// # Errors
/// Always.
#[cfg(not(feature = "object-stores"))]
pub fn mirror(address: &Path) -> anyhow::Result<PathBuf> {
    anyhow::bail!(
        "{}: in an object store, which this program was built without\nhint: build it with --features \
         object-stores, or copy the model to a directory",
        address.display()
    )
}
