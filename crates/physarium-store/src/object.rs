/*!
An object that is read by ranges. What is requested, and what is kept, is decided in `ranges`.
*/

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use physarium_checkpoint::{Error, Malformed, RemoteFile, RemoteLink, open_remote_by};

use crate::address::StoreAddress;
use crate::client::{Client, failed};
use crate::mirror::is_mirrored;
use crate::ranges::{Fault, MAX_CHUNK, Ranged, forget, request};

/// The cache whose mirrors are read.
static CACHE: OnceLock<PathBuf> = OnceLock::new();

/// Lets [`Source::open`](physarium_checkpoint::Source::open) read the objects that the links of mirrors stand for. Links anywhere else
/// than in `cache` are not followed: a model from a stranger decides nothing about requests. The first cache of a process stays.
pub fn register(cache: &Path) {
    let _ = CACHE.set(cache.to_owned());
    open_remote_by(open);
}

/// Opens the object that the link at `path` stands for.
fn open(path: &Path, link: &RemoteLink) -> Result<Arc<dyn RemoteFile>, Error> {
    if !CACHE.get().is_some_and(|cache| is_mirrored(cache, path)) {
        let expected = "a regular file or a link to one";
        let found = format!("a link to {}", physarium_checkpoint::printable(&link.address));
        let hint = "models in stores are given by their address";
        let fault =
            Malformed::new(path, "a link into a store, not made by physarium", expected, found);
        return Err(fault.with_hint(hint).into());
    }
    Ok(Arc::new(RemoteObject::open(link)?))
}

/// An object whose bytes are known by its ETag.
#[derive(Debug)]
struct RemoteObject {
    address: PathBuf,
    object: Ranged,
}

impl RemoteObject {
    /// An object at its address. Nothing is requested yet.
    ///
    /// # Errors
    /// `Malformed` for an address that is none; `Io` for a store without credentials.
    fn open(link: &RemoteLink) -> Result<RemoteObject, Error> {
        let address = StoreAddress::parse(Path::new(&link.address))?;
        let object = Ranged {
            store: Client::of(&address)?.store,
            key: address.prefix().clone(),
            etag: link.etag.clone(),
            size: link.size,
        };
        Ok(RemoteObject { address: PathBuf::from(&link.address), object })
    }

    /// The error of a request.
    fn fault(&self, fault: &Fault) -> Error {
        match fault {
            Fault::Store(object_store::Error::Precondition { .. }) => Error::InputChanged {
                path: self.address.clone(),
                what: "ETag",
                before: physarium_checkpoint::printable(&self.object.etag),
                after: "another one".to_owned(),
            },
            Fault::Store(error) => failed(&self.address.display(), "read", error),
            Fault::Short { offset, expected } => Error::FileShrank {
                path: self.address.clone(),
                offset: *offset,
                expected: *expected,
            },
        }
    }
}

impl RemoteFile for RemoteObject {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.object.size) {
            let path = self.address.clone();
            return Err(Error::FileShrank { path, offset, expected: buf.len() });
        }
        let mut at = offset;
        for part in buf.chunks_mut(MAX_CHUNK as usize) {
            let end = at + part.len() as u64;
            for chunk in request(&self.object, at..end)? {
                let bytes = chunk.wait().map_err(|fault| {
                    forget(&self.object);
                    self.fault(&fault)
                })?;
                let (from, to) = (at.max(chunk.start), end.min(chunk.end()));
                let [begin, stop] = [from, to].map(|place| (place - chunk.start) as usize);
                let into = &mut part[(from - at) as usize..(to - at) as usize];
                into.copy_from_slice(&bytes[begin..stop]);
            }
            at = end;
        }
        Ok(())
    }
}
