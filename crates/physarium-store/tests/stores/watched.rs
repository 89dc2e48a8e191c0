//! A store in memory whose requests are counted, and fail when they are told to.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use physarium_store::Client;

use crate::Store;

#[derive(Debug)]
pub struct Watched {
    memory: Arc<InMemory>,
    ranges: Mutex<Vec<Range<u64>>>,
    /// Requests that succeed before one fails.
    gets_left: AtomicUsize,
    puts_left: AtomicUsize,
}

impl Watched {
    /// Stands between the clients of a bucket and its store from now on.
    pub fn before(store: &Store) -> Arc<Watched> {
        let (memory, ranges) = (store.memory.clone(), Mutex::default());
        let [gets_left, puts_left] = [(); 2].map(|()| AtomicUsize::new(usize::MAX));
        let watched = Arc::new(Watched { memory, ranges, gets_left, puts_left });
        Client::register(&store.address, watched.clone());
        watched
    }

    /// The ranges that were requested since the last call.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.ranges.lock().unwrap())
    }

    /// Lets `count` more reads of ranges succeed; then one fails.
    pub fn fail_after_gets(&self, count: usize) {
        self.gets_left.store(count, Ordering::SeqCst);
    }

    /// Lets `count` more writes succeed; then one fails.
    pub fn fail_after_puts(&self, count: usize) {
        self.puts_left.store(count, Ordering::SeqCst);
    }
}

/// Fails once when no request is left.
fn count_down(left: &AtomicUsize) -> Result<()> {
    match left.fetch_sub(1, Ordering::SeqCst) {
        0 => Err(Error::Generic { store: "Watched", source: "the store has failed".into() }),
        _ => Ok(()),
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, key: &Key, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        count_down(&self.puts_left)?;
        self.memory.put_opts(key, payload, o).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        count_down(&self.puts_left)?;
        self.memory.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.ranges.lock().unwrap().push(range.clone());
            count_down(&self.gets_left)?;
        }
        self.memory.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        self.memory.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}
