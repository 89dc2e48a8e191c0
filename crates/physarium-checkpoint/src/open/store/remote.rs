/*!
Objects of a store that are read as if they were files here.

A link whose target is the address of an object stands for it. It says which bytes are meant: `ADDRESS#SIZE-ETAG`, the ETag in hex.
Whoever can read stores registers an [`Opener`]; nothing here knows how.
*/

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Malformed, Result};
use crate::escape::printable;

/// An object that is read by ranges.
pub trait RemoteFile: fmt::Debug + Send + Sync {
    /// Fills `buf` with the bytes from `offset` on, which are inside the object.
    ///
    /// # Errors
    /// `InputChanged` if the store holds other bytes now; `Io` when the store cannot be read.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;
}

/// The object that a link stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLink {
    /// Its address: `s3://bucket/path/model.safetensors`.
    pub address: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its ETag, as the store says it.
    pub etag: String,
}

impl RemoteLink {
    /// The target of the link.
    pub fn target(&self) -> String {
        let hex: String = self.etag.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("{}#{}-{hex}", self.address, self.size)
    }

    /// The object that the link at `path` stands for; `None` if it is no such link.
    pub fn at(path: &Path) -> Option<RemoteLink> {
        RemoteLink::of_target(std::fs::read_link(path).ok()?.to_str()?)
    }

    fn of_target(target: &str) -> Option<RemoteLink> {
        let (address, bytes) = target.rsplit_once('#')?;
        let (size, hex) = bytes.split_once('-')?;
        let (scheme, _) = address.split_once("://")?;
        if scheme.is_empty()
            || !scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        {
            return None;
        }
        let digits = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        let etag = (0..hex.len()).step_by(2).map(digits).collect::<Option<Vec<u8>>>()?;
        let (address, size) = (address.to_owned(), size.parse().ok()?);
        Some(RemoteLink { address, size, etag: String::from_utf8(etag).ok()? })
    }
}

/// What opens the object that the link at a path stands for.
pub type Opener = fn(&Path, &RemoteLink) -> Result<Arc<dyn RemoteFile>>;

static OPENER: OnceLock<Opener> = OnceLock::new();

/// Lets [`Source::open`](crate::Source::open) open links to objects by `opener`, from now on in this process. The first one stays.
pub fn open_remote_by(opener: Opener) {
    let _ = OPENER.set(opener);
}

/// Opens an object.
///
/// # Errors
/// `Malformed` in a program that reads no stores; what the opener returns.
pub(in crate::open) fn open(path: &Path, link: &RemoteLink) -> Result<Arc<dyn RemoteFile>> {
    let Some(opener) = OPENER.get() else {
        let expected = "a program that reads object stores";
        let found = format!("a link to {}", printable(&link.address));
        let hint = "build physarium with --features object-stores";
        let fault = Malformed::new(path, "in an object store", expected, found);
        return Err(Error::from(fault.with_hint(hint)));
    };
    opener(path, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_which_bytes_are_meant() {
        let link = RemoteLink {
            address: "s3://bucket/a#b-c/model.safetensors".to_owned(),
            size: 1 << 40,
            etag: "\"0a-#1é\"".to_owned(),
        };
        assert_eq!(RemoteLink::of_target(&link.target()), Some(link));
        for other in [
            "../../blobs/0123",
            "model.safetensors#1-aa",
            "s3://bucket/x",
            "s3://bucket/x#1",
            "s3://bucket/x#1-a",
            "s3://bucket/x#one-aa",
            "s3://bucket/x#1-aé",
            "://bucket/x#1-aa",
            "a/b://x#1-aa",
        ] {
            assert_eq!(RemoteLink::of_target(other), None, "{other}");
        }
    }
}
