//! Models in object stores, if the program is built to read them.

use std::path::{Path, PathBuf};

#[cfg(feature = "object-stores")]
pub use reading::{mirror, register};

#[cfg(feature = "object-stores")]
mod reading {
    use std::env::var_os;

    use anyhow::Context;
    use physarium_store::{Mirror, StoreAddress, cache_of_environment};

    use super::{Path, PathBuf};

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
        Ok(Mirror::of(&StoreAddress::parse(address)?, &cache)?.dir)
    }

    fn cache() -> Option<PathBuf> {
        cache_of_environment(&|name| var_os(name))
    }
}

/// Nothing to register.
#[cfg(not(feature = "object-stores"))]
pub fn register() {}

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
