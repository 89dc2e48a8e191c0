//! Records of a run: recipe, journal, manifest, and the README that it rewrites.

pub(crate) mod amounts;
mod form;
pub mod journal;
pub mod manifest;
pub(crate) mod method;
pub mod readme;
pub(crate) mod recipe;

use serde::de::DeserializeOwned;

/// Reads JSON. The error names the key that it is about.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read =
        serde_path_to_error::deserialize(&mut json).map_err(|e| match e.path().to_string() {
            path if path == "." => e.inner().to_string(),
            path => format!("{path}: {}", e.inner()),
        })?;
    json.end().map_err(|e| e.to_string())?;
    Ok(read)
}
