/*!
An object that is read by ranges, a part ahead.

Every request names the object's ETag, so that bytes of another object are never mixed in. Readers usually go forward through a tensor,
some at several places at once: an object remembers up to [`STREAMS`] places. At each, it holds a chunk, and once a reader goes
on from one chunk to the next, the one after is requested meanwhile. Chunks grow from 256 KiB to 8 MiB: a header costs little, and
weights need few requests. So an open object takes 16 MiB for each place and each further reader: 64 MiB for up to four.
*/

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore};
use physarium_checkpoint::{Error, Malformed, RemoteFile, RemoteLink, open_remote_by};
use tokio::task::JoinHandle;

use crate::address::StoreAddress;
use crate::client::{Client, failed, runtime};
use crate::mirror::is_mirrored;

/// Bytes of the first request at a place.
const FIRST_CHUNK: u64 = 256 << 10;
/// Most bytes of a request.
const MAX_CHUNK: u64 = 8 << 20;
/// Places at which an object is read at once.
const STREAMS: usize = 4;

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
    streams: Mutex<Vec<Stream>>,
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
        Ok(RemoteObject {
            address: PathBuf::from(&link.address),
            request,
            streams: Mutex::default(),
        })
    }

    /// The stream that goes on at `offset`, or a new one. It is this reader's until it is given back.
    fn take_stream(&self, offset: u64) -> Stream {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        match streams.iter().position(|stream| stream.reaches(offset)) {
            Some(index) => streams.remove(index),
            None => Stream::at(offset),
        }
    }

    fn give_back(&self, stream: Stream) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.insert(0, stream);
        streams.truncate(STREAMS);
    }
}

impl RemoteFile for RemoteObject {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.request.size) {
            let path = self.address.clone();
            return Err(Error::FileShrank { path, offset, expected: buf.len() });
        }
        let mut stream = self.take_stream(offset);
        let (mut filled, mut at) = (0, offset);
        while filled < buf.len() {
            let wanted = (buf.len() - filled) as u64;
            let piece = stream.read(&self.request, at, wanted).map_err(|e| self.fault(e))?;
            buf[filled..filled + piece.len()].copy_from_slice(&piece);
            filled += piece.len();
            at += piece.len() as u64;
        }
        self.give_back(stream);
        Ok(())
    }
}

impl RemoteObject {
    /// The error of a request.
    fn fault(&self, fault: RequestFault) -> Error {
        let address = self.address.display();
        match fault {
            RequestFault::Store(object_store::Error::Precondition { .. }) => Error::InputChanged {
                path: self.address.clone(),
                what: "ETag",
                before: physarium_checkpoint::printable(&self.request.etag),
                after: "another one".to_owned(),
            },
            RequestFault::Store(error) => failed(&address, "read", error),
            RequestFault::Short { offset, expected } => {
                Error::FileShrank { path: self.address.clone(), offset, expected }
            }
            RequestFault::Runtime(error) => error,
        }
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

/// Why a range was not read.
enum RequestFault {
    Store(object_store::Error),
    /// The store sent another number of bytes.
    Short {
        offset: u64,
        expected: usize,
    },
    /// The threads of requests cannot be started.
    Runtime(Error),
}

impl Request {
    /// The bytes from `start` on, at most `length` of them and not beyond the end.
    async fn range(self, start: u64, length: u64) -> Result<Bytes, RequestFault> {
        let end = self.size.min(start + length);
        let options = GetOptions {
            if_match: Some(self.etag),
            range: Some(GetRange::Bounded(start..end)),
            ..GetOptions::default()
        };
        let read = async { self.store.get_opts(&self.key, options).await?.bytes().await };
        let bytes = read.await.map_err(RequestFault::Store)?;
        let expected = (end - start) as usize;
        match bytes.len() == expected {
            true => Ok(bytes),
            false => Err(RequestFault::Short { offset: start, expected }),
        }
    }
}

/// A place at which an object is read.
struct Stream {
    /// Where `chunk` begins.
    start: u64,
    chunk: Bytes,
    /// Bytes of the next request.
    length: u64,
    /// The chunk after this one, which is on its way.
    next: Option<Ahead>,
}

/// A request that is on its way. It is given up when nobody waits for it any more.
struct Ahead(JoinHandle<Result<Bytes, RequestFault>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stream {
    /// A stream that begins at `offset`.
    fn at(offset: u64) -> Stream {
        Stream { start: offset, chunk: Bytes::new(), length: FIRST_CHUNK, next: None }
    }

    fn end(&self) -> u64 {
        self.start + self.chunk.len() as u64
    }

    /// Whether the byte at `offset` is in this chunk, or the first after it.
    fn reaches(&self, offset: u64) -> bool {
        (self.start..=self.end()).contains(&offset)
    }

    /// Some of the bytes from `offset` on, which this stream reaches; at most `wanted`.
    fn read(&mut self, request: &Request, offset: u64, wanted: u64) -> Result<Bytes, RequestFault> {
        if offset == self.end() {
            self.go_on(request, wanted)?;
        }
        let from = (offset - self.start) as usize;
        let to = self.chunk.len().min(from + wanted as usize);
        Ok(self.chunk.slice(from..to))
    }

    /// Takes the next chunk, of which `wanted` bytes are asked for now.
    fn go_on(&mut self, request: &Request, wanted: u64) -> Result<(), RequestFault> {
        let runtime = runtime().map_err(RequestFault::Runtime)?;
        let (start, is_first) = (self.end(), self.chunk.is_empty());
        let chunk = match self.next.take() {
            Some(mut ahead) => {
                let ended = runtime.block_on(&mut ahead.0);
                ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?
            }
            None => {
                self.length = self.length.max(wanted.min(MAX_CHUNK));
                runtime.block_on(request.clone().range(start, self.length))?
            }
        };
        (self.start, self.chunk) = (start, chunk);
        self.length = (2 * self.length).min(MAX_CHUNK);
        let goes_on = !is_first || wanted > self.chunk.len() as u64;
        if goes_on && self.end() < request.size {
            let ahead = request.clone().range(self.end(), self.length);
            self.next = Some(Ahead(runtime.spawn(ahead)));
        }
        Ok(())
    }
}
