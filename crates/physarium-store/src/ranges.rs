/*!
Which ranges of objects are requested, and which bytes are kept.

Readers go forward through a tensor, some at several places at once, some twice over the same bytes; threads that share the work open an
object again and again. So the process as a whole remembers the last [`PLACES`] places at which an object was read: a row of
consecutive chunks. Whoever reads there, or goes on from there, takes chunks of that row; a chunk is requested once, and whoever needs
it waits for it. Once a reader goes on from one chunk to the next, those after it are requested meanwhile. Chunks grow from 256 KiB to
4 MiB: a header costs little, and weights need few requests. A place takes at most 20 MiB.

Every request names the object's ETag, so that bytes of another object are never mixed in.
*/

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore};
use physarium_checkpoint::Error;
use tokio::task::JoinHandle;

use crate::client::runtime;

/// Bytes of the first request at a place.
const FIRST_CHUNK: u64 = 256 << 10;
/// Most bytes of a request.
pub(crate) const MAX_CHUNK: u64 = 4 << 20;
/// Bytes before the last reader that are kept for the next.
const KEPT: u64 = 4 << 20;
/// Places that are remembered.
const PLACES: usize = 3;

/// The places of this process, the last one used first.
static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// An object that is read by ranges.
#[derive(Debug, Clone)]
pub(crate) struct Ranged {
    pub store: Arc<dyn ObjectStore>,
    pub key: Key,
    pub etag: String,
    pub size: u64,
}

/// The chunks that hold the bytes of a range of at most [`MAX_CHUNK`] bytes, in order. Those that the process does not have are on their
/// way.
///
/// # Errors
/// `Thread` if the threads of requests cannot be started.
pub(crate) fn request(object: &Ranged, range: Range<u64>) -> Result<Vec<Arc<Chunk>>, Error> {
    runtime()?;
    let mut rows = rows();
    let of_object = |row: &Row| row.object.is(object);
    let found = rows.iter().position(|row| of_object(row) && row.holds(range.start));
    let found =
        found.or_else(|| rows.iter().position(|row| of_object(row) && row.reaches(range.start)));
    let mut row = match found {
        Some(index) => rows.remove(index),
        None => Row::at(object, range.start),
    };
    let chunks = row.take(range)?;
    rows.insert(0, row);
    rows.truncate(PLACES);
    Ok(chunks)
}

/// Drops what is kept of an object, so that the next reader requests it again.
pub(crate) fn forget(object: &Ranged) {
    rows().retain(|row| !row.object.is(object));
}

fn rows() -> MutexGuard<'static, Vec<Row>> {
    ROWS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a range was not read.
pub(crate) enum Fault {
    Store(object_store::Error),
    /// The store sent another number of bytes.
    Short {
        offset: u64,
        expected: usize,
    },
}

impl Ranged {
    /// Whether `other` stands for the same bytes.
    fn is(&self, other: &Ranged) -> bool {
        self.key == other.key && self.etag == other.etag && Arc::ptr_eq(&self.store, &other.store)
    }

    async fn get(self, range: Range<u64>) -> Result<Bytes, Fault> {
        let (offset, expected) = (range.start, (range.end - range.start) as usize);
        let options = GetOptions {
            if_match: Some(self.etag),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let read = async { self.store.get_opts(&self.key, options).await?.bytes().await };
        let bytes = read.await.map_err(Fault::Store)?;
        match bytes.len() == expected {
            true => Ok(bytes),
            false => Err(Fault::Short { offset, expected }),
        }
    }
}

/// A range of an object that was requested.
pub(crate) struct Chunk {
    pub start: u64,
    length: u64,
    /// The request, until somebody waits for it.
    on_its_way: Mutex<Option<Pending>>,
    bytes: OnceLock<Result<Bytes, Arc<Fault>>>,
}

/// A request that is on its way. It is given up when nobody can wait for it any more.
struct Pending(JoinHandle<Result<Bytes, Fault>>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Chunk {
    fn request(object: &Ranged, range: Range<u64>) -> Result<Arc<Chunk>, Error> {
        let (start, length) = (range.start, range.end - range.start);
        let pending = Pending(runtime()?.spawn(object.clone().get(range)));
        let (on_its_way, bytes) = (Mutex::new(Some(pending)), OnceLock::new());
        Ok(Arc::new(Chunk { start, length, on_its_way, bytes }))
    }

    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }

    /// Waits for the bytes.
    pub fn wait(&self) -> Result<Bytes, Arc<Fault>> {
        let receive = || {
            let pending = self.on_its_way.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut pending = pending.expect("one thread waits for it");
            let runtime = runtime().expect("it runs the request");
            let ended = runtime.block_on(&mut pending.0);
            ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())).map_err(Arc::new)
        };
        self.bytes.get_or_init(receive).clone()
    }
}

/// A place at which an object is read: consecutive chunks.
struct Row {
    object: Ranged,
    chunks: VecDeque<Arc<Chunk>>,
    /// The byte after the last chunk.
    end: u64,
    /// Bytes of the next request.
    length: u64,
    /// Whether a reader went on beyond the first request: then chunks are requested ahead.
    goes_on: bool,
}

impl Row {
    /// A row without chunks.
    fn at(object: &Ranged, offset: u64) -> Row {
        let (object, chunks) = (object.clone(), VecDeque::new());
        Row { object, chunks, end: offset, length: FIRST_CHUNK, goes_on: false }
    }

    fn start(&self) -> u64 {
        self.chunks.front().map_or(self.end, |chunk| chunk.start)
    }

    /// Whether the byte at `offset` is in a chunk.
    fn holds(&self, offset: u64) -> bool {
        (self.start()..self.end).contains(&offset)
    }

    /// Whether the next request reaches `offset`.
    fn reaches(&self, offset: u64) -> bool {
        (self.end..self.end + self.length).contains(&offset)
    }

    /// The chunks that hold the bytes of `range`.
    fn take(&mut self, range: Range<u64>) -> Result<Vec<Arc<Chunk>>, Error> {
        self.goes_on |= !self.chunks.is_empty() && self.end < range.end;
        while self.end < range.end {
            self.grow(range.end - self.end)?;
        }
        while self.goes_on && self.end < self.object.size.min(range.end + self.length) {
            self.grow(0)?;
        }
        let of_range = |chunk: &&Arc<Chunk>| chunk.start < range.end && range.start < chunk.end();
        let taken = self.chunks.iter().filter(of_range).cloned().collect();
        while self.chunks.front().is_some_and(|chunk| chunk.end() + KEPT <= range.start) {
            self.chunks.pop_front();
        }
        Ok(taken)
    }

    /// Requests the next chunk, of which `wanted` bytes are waited for.
    fn grow(&mut self, wanted: u64) -> Result<(), Error> {
        let length = self.length.max(wanted.min(MAX_CHUNK));
        let end = self.object.size.min(self.end + length);
        self.chunks.push_back(Chunk::request(&self.object, self.end..end)?);
        self.end = end;
        self.length = (2 * length).min(MAX_CHUNK);
        Ok(())
    }
}
