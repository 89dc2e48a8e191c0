/*!
Which ranges of objects are requested, and which bytes are kept.

Readers go forward through a tensor, some at several places at once, some twice over the same bytes; threads that share the work open an
object again and again. So the client of a bucket keeps the chunks that were used last, [`KEPT`] bytes of them. Chunks of an object do not
overlap: a byte is requested again only after its chunk was dropped. Whoever needs a chunk that is on its way waits for it.

A reader that begins somewhere gets what it asks for, and 256 KiB at least. For a reader that goes on after that, each chunk has twice the
length of the one before, up to 4 MiB, and the next 4 MiB are requested meanwhile: a header costs little, and weights need few requests.

Every request names the object's ETag, so that bytes of another object are never mixed in.
*/

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore};
use physarium_checkpoint::Error;
use tokio::task::JoinHandle;

use crate::runtime::runtime;

/// Bytes of the first request at a place, if fewer are read.
const FIRST_CHUNK: u64 = 256 << 10;
/// Most bytes of a request.
const MAX_CHUNK: u64 = 4 << 20;
/// Bytes that are requested ahead.
const AHEAD: u64 = 4 << 20;
/// Bytes that are kept, those on their way included.
const KEPT: u64 = 64 << 20;

/// An object of a bucket.
#[derive(Debug, Clone)]
pub(crate) struct Ranged {
    pub store: Arc<dyn ObjectStore>,
    pub key: Key,
    pub etag: String,
    pub size: u64,
}

impl Ranged {
    /// Whether `other`, of the same bucket, stands for the same bytes.
    fn is(&self, other: &Ranged) -> bool {
        self.key == other.key && self.etag == other.etag && self.size == other.size
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

/// Why a range was not read.
pub(crate) enum Fault {
    Store(object_store::Error),
    /// The store sent another number of bytes.
    Short {
        offset: u64,
        expected: usize,
    },
}

/// What is kept of a bucket's objects.
#[derive(Default)]
pub(crate) struct Ranges(Mutex<Kept>);

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranges({} chunks)", self.kept().chunks.len())
    }
}

/// Where a chunk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was requested before: its request may have failed long ago.
    Kept,
    /// It is requested now.
    New,
}

/// What a read is to the reads before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The first one here.
    Begins,
    /// It begins after the first chunk that was requested here.
    GoesOn,
}

impl Ranges {
    /// The chunk with the first byte of `range`; the chunks with the others are on their way. The range is not empty, and is the rest of
    /// a read from `begin` on. A read from where another ended has what follows requested too.
    ///
    /// # Errors
    /// `Thread` if the threads of requests cannot be started.
    pub fn request(
        &self,
        object: &Ranged,
        range: Range<u64>,
        begin: u64,
    ) -> Result<(Arc<Chunk>, Origin), Error> {
        let mut kept = self.kept();
        let reader = kept.reader(object, begin);
        let (first, origin) = kept.chunk(object, range.clone(), reader)?;
        let ahead = match reader {
            Reader::Begins => range.end,
            Reader::GoesOn => range.end.saturating_add(AHEAD).min(object.size),
        };
        let mut at = first.end();
        while at < ahead {
            at = kept.chunk(object, at..range.end.max(at), reader)?.0.end();
        }
        kept.drop_oldest();
        Ok((first, origin))
    }

    /// Drops what is kept of an object, so that the next reader requests it again.
    pub fn forget(&self, object: &Ranged) {
        self.kept().chunks.retain(|entry| !entry.object.is(object));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chunks of all objects.
#[derive(Default)]
struct Kept {
    /// The one used last is at the end.
    chunks: Vec<Entry>,
}

struct Entry {
    object: Ranged,
    chunk: Arc<Chunk>,
}

impl Kept {
    /// Index of the object's chunk of which `is` is true.
    fn position(&self, object: &Ranged, is: impl Fn(&Chunk) -> bool) -> Option<usize> {
        self.chunks.iter().position(|entry| entry.object.is(object) && is(&entry.chunk))
    }

    /// What a read from `begin` on is.
    fn reader(&self, object: &Ranged, begin: u64) -> Reader {
        let index = self.position(object, |chunk| chunk.holds(begin));
        let start = index.map_or(begin, |index| self.chunks[index].chunk.start);
        match self.position(object, |chunk| chunk.end() == start) {
            Some(_) => Reader::GoesOn,
            None => Reader::Begins,
        }
    }

    /// The chunk with the first byte of `wanted`; requested, with as many of the others as possible, if it is not there.
    fn chunk(
        &mut self,
        object: &Ranged,
        wanted: Range<u64>,
        reader: Reader,
    ) -> Result<(Arc<Chunk>, Origin), Error> {
        let (entry, origin) = match self.position(object, |chunk| chunk.holds(wanted.start)) {
            Some(index) => (self.chunks.remove(index), Origin::Kept),
            None => {
                let range = wanted.start..self.end_of_new(object, wanted, reader);
                let chunk = Chunk::request(object, range)?;
                (Entry { object: object.clone(), chunk }, Origin::New)
            }
        };
        let chunk = Arc::clone(&entry.chunk);
        self.chunks.push(entry);
        Ok((chunk, origin))
    }

    /// Where the chunk ends that begins where `wanted` does: at the latest where another begins.
    fn end_of_new(&self, object: &Ranged, wanted: Range<u64>, reader: Reader) -> u64 {
        let at = wanted.start;
        let before = self.position(object, |chunk| chunk.end() == at);
        let twice = match (reader, before) {
            (Reader::GoesOn, Some(index)) => 2 * self.chunks[index].chunk.length,
            _ => 0,
        };
        let length = (wanted.end - at).max(FIRST_CHUNK).max(twice).min(MAX_CHUNK);
        let of_object = self.chunks.iter().filter(|entry| entry.object.is(object));
        let next = of_object.map(|entry| entry.chunk.start).filter(|start| *start > at).min();
        at.saturating_add(length).min(next.unwrap_or(object.size)).min(object.size)
    }

    /// Drops the chunks that were used least recently, until those that stay are not too large. Who waits for one still gets it.
    fn drop_oldest(&mut self) {
        let mut size: u64 = self.chunks.iter().map(|entry| entry.chunk.length).sum();
        self.chunks.retain(|entry| {
            let stays = size <= KEPT;
            if !stays {
                size -= entry.chunk.length;
            }
            stays
        });
    }
}

/// A range of an object that was requested.
pub(crate) struct Chunk {
    pub start: u64,
    length: u64,
    /// The request, until its end is known.
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
        assert!(length > 0, "a chunk without bytes");
        let pending = Pending(runtime()?.spawn(object.clone().get(range)));
        let (on_its_way, bytes) = (Mutex::new(Some(pending)), OnceLock::new());
        Ok(Arc::new(Chunk { start, length, on_its_way, bytes }))
    }

    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }

    fn holds(&self, at: u64) -> bool {
        (self.start..self.end()).contains(&at)
    }

    /// Waits for the bytes.
    pub fn wait(&self) -> Result<Bytes, Arc<Fault>> {
        let receive = || {
            let mut pending = self.on_its_way.lock().unwrap_or_else(PoisonError::into_inner);
            let request = &mut pending.as_mut().expect("its end is not known").0;
            let ended = runtime().expect("it runs the request").block_on(request);
            *pending = None;
            ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())).map_err(Arc::new)
        };
        self.bytes.get_or_init(receive).clone()
    }
}
