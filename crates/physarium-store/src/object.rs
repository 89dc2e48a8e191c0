/*!
An object that is read by ranges. What is requested, and what is kept, is decided in `ranges`.
*/

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use physarium_checkpoint::{Error, Malformed, RemoteFile, RemoteLink, open_remote_by};

use crate::address::StoreAddress;
use crate::client::{Client, failed};
use crate::mirror::is_mirrored;
use crate::ranges::{Fault, Origin, Ranged, Ranges};

/// Bytes of one read that are requested at once.
const IN_FLIGHT: u64 = 8 << 20;

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
    /// What is kept of it.
    ranges: Arc<Ranges>,
}

impl RemoteObject {
    /// An object at its address. Nothing is requested yet.
    ///
    /// # Errors
    /// `Malformed` for an address that is none; `Io` for a store without credentials.
    fn open(link: &RemoteLink) -> Result<RemoteObject, Error> {
        let address = StoreAddress::parse(Path::new(&link.address))?;
        let Client { store, ranges, .. } = Client::of(&address)?;
        let object = Ranged {
            store,
            key: address.prefix().clone(),
            etag: link.etag.clone(),
            size: link.size,
        };
        Ok(RemoteObject { address: PathBuf::from(&link.address), object, ranges })
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

impl RemoteObject {
    /// Bytes from `range` on, which is the rest of a read from `begin` on: those of its first chunk. What was requested before and has
    /// failed since is requested once more.
    fn read(&self, range: Range<u64>, begin: u64) -> Result<(u64, Bytes), Error> {
        loop {
            let (chunk, origin) = self.ranges.request(&self.object, range.clone(), begin)?;
            let fault = match chunk.wait() {
                Ok(bytes) => return Ok((chunk.start, bytes)),
                Err(fault) => fault,
            };
            self.ranges.forget(&self.object);
            if origin == Origin::New {
                return Err(self.fault(&fault));
            }
        }
    }
}

impl RemoteFile for RemoteObject {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        let end = offset.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.object.size) else {
            let path = self.address.clone();
            return Err(Error::FileShrank { path, offset, expected: buf.len() });
        };
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (start, bytes) = self.read(at..end.min(at + IN_FLIGHT), offset)?;
            let bytes = &bytes[(at - start) as usize..];
            let (into, after) = rest.split_at_mut(bytes.len().min(rest.len()));
            into.copy_from_slice(&bytes[..into.len()]);
            at += into.len() as u64;
            rest = after;
        }
        Ok(())
    }
}
