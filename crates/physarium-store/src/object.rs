/*!
An object that is read by ranges, a part ahead.

Every request names the object's ETag, so that bytes of another object are never mixed in. An object is read in blocks of 1 MiB, of which the 32
that were used last are kept: readers go forward through a tensor, at several places at once, and over the same rows again for each
column of tiles. Once a reader has gone through some blocks, as many after them, up to eight, are requested before it asks. So an
open object takes at most 32 MiB, beside what is on its way for readers of more places than that.
*/

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore};
use physarium_checkpoint::{Error, Malformed, RemoteFile, RemoteLink, open_remote_by};

use crate::address::StoreAddress;
use crate::client::{Client, kind_of, reason, runtime};
use crate::mirror::is_mirrored;

/// Bytes of a block and of a request.
const BLOCK: u64 = 1 << 20;
/// Blocks that are kept.
const KEPT: usize = 32;
/// Most blocks that are requested before a reader asks for them.
const AHEAD: u64 = 8;

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
struct RemoteObject {
    address: PathBuf,
    request: Request,
    /// By index, the one that was used last first.
    blocks: Mutex<Vec<(u64, Arc<Block>)>>,
}

impl fmt::Debug for RemoteObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteObject").field("address", &self.address).finish_non_exhaustive()
    }
}

impl RemoteObject {
    /// An object at its address. Nothing is requested yet.
    ///
    /// # Errors
    /// `Malformed` for an address that is none; `Io` for a store without credentials.
    fn open(link: &RemoteLink) -> Result<RemoteObject, Error> {
        let address = StoreAddress::parse(Path::new(&link.address))?;
        let request = Request {
            store: Client::of(&address)?.store,
            key: address.prefix().clone(),
            etag: link.etag.clone(),
            size: link.size,
        };
        let address = PathBuf::from(&link.address);
        Ok(RemoteObject { address, request, blocks: Mutex::default() })
    }

    /// The block at an index, which may be on its way, and requests for those after it that its reader will want.
    fn block(&self, index: u64) -> Result<Arc<Block>, Error> {
        let mut blocks = unpoisoned(self.blocks.lock());
        let has = |index: u64| blocks.iter().any(|(other, _)| *other == index);
        let before = (1..=AHEAD.min(index)).take_while(|back| has(index - back)).count() as u64;
        let after = self.request.size.div_ceil(BLOCK);
        let ahead: Vec<u64> =
            (index + 1..after.min(index + 1 + before)).filter(|index| !has(*index)).collect();
        let block = match blocks.iter().position(|(other, _)| *other == index) {
            Some(place) => blocks.remove(place).1,
            None => self.requested(index)?,
        };
        for index in ahead {
            blocks.insert(0, (index, self.requested(index)?));
        }
        blocks.insert(0, (index, Arc::clone(&block)));
        blocks.truncate(KEPT);
        Ok(block)
    }

    /// A block that is on its way.
    fn requested(&self, index: u64) -> Result<Arc<Block>, Error> {
        let block = Arc::new(Block::default());
        let (request, filling) = (self.request.clone(), Filling(Arc::clone(&block)));
        runtime()?.spawn(async move { filling.0.fill(request.block(index).await) });
        Ok(block)
    }

    /// The bytes of the block at an index. One that failed is requested again by the next reader.
    fn bytes(&self, index: u64) -> Result<Bytes, Error> {
        let block = self.block(index)?;
        block.wait().map_err(|fault| {
            unpoisoned(self.blocks.lock()).retain(|(_, other)| !Arc::ptr_eq(other, &block));
            self.error(fault, index * BLOCK)
        })
    }

    fn error(&self, fault: Fault, offset: u64) -> Error {
        let path = self.address.clone();
        match fault {
            Fault::Changed => Error::InputChanged {
                path,
                what: "ETag",
                before: physarium_checkpoint::printable(&self.request.etag),
                after: "another one".to_owned(),
            },
            Fault::Short { expected } => Error::FileShrank { path, offset, expected },
            Fault::Store(kind, said) => Error::io(&path, "read", io::Error::new(kind, said)),
        }
    }
}

impl RemoteFile for RemoteObject {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.request.size) {
            let path = self.address.clone();
            return Err(Error::FileShrank { path, offset, expected: buf.len() });
        }
        let (mut filled, mut at) = (0, offset);
        while filled < buf.len() {
            let bytes = self.bytes(at / BLOCK)?;
            let from = (at % BLOCK) as usize;
            let length = (bytes.len() - from).min(buf.len() - filled);
            buf[filled..filled + length].copy_from_slice(&bytes[from..from + length]);
            (filled, at) = (filled + length, at + length as u64);
        }
        Ok(())
    }
}

/// What is requested, but for the range.
#[derive(Clone)]
struct Request {
    store: Arc<dyn ObjectStore>,
    key: Key,
    etag: String,
    size: u64,
}

impl Request {
    /// The bytes of the block at an index, of which the last may be shorter.
    async fn block(self, index: u64) -> Result<Bytes, Fault> {
        let (start, end) = (index * BLOCK, self.size.min((index + 1) * BLOCK));
        let options = GetOptions {
            if_match: Some(self.etag),
            range: Some(GetRange::Bounded(start..end)),
            ..GetOptions::default()
        };
        let read = async { self.store.get_opts(&self.key, options).await?.bytes().await };
        let bytes = read.await.map_err(|error| match error {
            object_store::Error::Precondition { .. } => Fault::Changed,
            error => Fault::Store(kind_of(&error), reason(&error)),
        })?;
        let expected = (end - start) as usize;
        if bytes.len() == expected { Ok(bytes) } else { Err(Fault::Short { expected }) }
    }
}

/// Why a block was not read.
#[derive(Clone)]
enum Fault {
    /// The object has another ETag now.
    Changed,
    /// The store sent another number of bytes.
    Short { expected: usize },
    /// The store's reason.
    Store(io::ErrorKind, String),
}

/// A block, once it is there.
#[derive(Default)]
struct Block {
    bytes: Mutex<Option<Result<Bytes, Fault>>>,
    there: Condvar,
}

impl Block {
    fn fill(&self, bytes: Result<Bytes, Fault>) {
        *unpoisoned(self.bytes.lock()) = Some(bytes);
        self.there.notify_all();
    }

    fn wait(&self) -> Result<Bytes, Fault> {
        let mut bytes = unpoisoned(self.bytes.lock());
        loop {
            match &*bytes {
                Some(bytes) => return bytes.clone(),
                None => bytes = unpoisoned(self.there.wait(bytes)),
            }
        }
    }
}

/// A block on its way. If its request is given up, nobody waits for it for ever.
struct Filling(Arc<Block>);

impl Drop for Filling {
    fn drop(&mut self) {
        let is_empty = unpoisoned(self.0.bytes.lock()).is_none();
        if is_empty {
            self.0.fill(Err(Fault::Store(io::ErrorKind::Other, "request given up".to_owned())));
        }
    }
}

/// A lock's contents, also if a thread has panicked with it: nothing here is left half changed.
fn unpoisoned<'a, T>(
    locked: Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>,
) -> MutexGuard<'a, T> {
    locked.unwrap_or_else(PoisonError::into_inner)
}
