//! A shard while it is written: under a temporary name, with syncs in the background.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

use super::durable::{create_new, part_name, rename_to_new, sync_dir};
use super::space::{Disk, no_space};
use crate::error::{Error, Result};

/// Bytes written between two background syncs.
const WRITEBACK_BYTES: u64 = 128 << 20;
/// Shards of this size or more are dropped from the page cache once they are on disk: they would evict the input,
/// and new pages cost more than reused ones.
const UNCACHED_BYTES: u64 = 512 << 20;

/// A shard under its temporary name.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    part: PathBuf,
    name: PathBuf,
    dir: PathBuf,
    size_bytes: u64,
    written: u64,
    /// Bytes written when the last background sync was requested.
    sync_requested: u64,
    writeback: Option<Writeback>,
}

impl PartFile {
    pub(super) fn create(dir: &Path, name: &str, size_bytes: u64) -> Result<PartFile> {
        let part = part_name(&dir.join(name));
        let file = create_new(&part)?;
        Ok(PartFile {
            file,
            part,
            name: dir.join(name),
            dir: dir.to_owned(),
            size_bytes,
            written: 0,
            sync_requested: 0,
            writeback: None,
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `NoSpace` when the disk is full, `Io` otherwise.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| self.write_error(e))?;
        self.written += bytes.len() as u64;
        if self.written - self.sync_requested >= WRITEBACK_BYTES {
            self.sync_requested = self.written;
            self.start_writeback()?;
        }
        Ok(())
    }

    fn write_error(&self, e: std::io::Error) -> Error {
        if e.kind() == std::io::ErrorKind::StorageFull {
            let free = Disk::of(&self.dir).map_or(0, |disk| disk.free);
            return no_space(&self.dir, self.size_bytes.saturating_sub(self.written), free);
        }
        Error::io(&self.part, "write", e)
    }

    /// Requests a background sync, so that little is left for `finish` to sync.
    fn start_writeback(&mut self) -> Result<()> {
        let failed = |e| Error::io(&self.part, "sync", e);
        match &self.writeback {
            Some(writeback) => writeback.request().map_err(failed),
            None => {
                let file = self.file.try_clone().map_err(failed)?;
                let writeback = Writeback::start(file, self.size_bytes).map_err(failed)?;
                writeback.request().map_err(failed)?;
                self.writeback = Some(writeback);
                Ok(())
            }
        }
    }

    /// Makes the bytes durable, then renames the file to its own name and makes that durable.
    ///
    /// # Errors
    /// `Io`.
    ///
    /// # Panics
    /// If fewer or more bytes were written than its size.
    pub fn finish(mut self) -> Result<()> {
        assert_eq!(self.written, self.size_bytes, "{}: shard size", self.part.display());
        let failed = |e| Error::io(&self.part, "sync", e);
        if let Some(writeback) = self.writeback.take() {
            writeback.finish().map_err(failed)?;
        }
        self.file.sync_all().map_err(failed)?;
        rename_to_new(&self.part, &self.name)?;
        sync_dir(&self.dir)
    }
}

/// A thread that syncs a file on request. The first failure ends it: after a failed sync a second one may succeed
/// without the data being on disk.
#[derive(Debug)]
struct Writeback {
    requests: std::sync::mpsc::SyncSender<()>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Writeback {
    fn start(file: File, size_bytes: u64) -> std::io::Result<Writeback> {
        let (requests, inbox) = std::sync::mpsc::sync_channel(1);
        let sync = move |()| {
            file.sync_data()?;
            if size_bytes >= UNCACHED_BYTES {
                // Only advice: if it is ignored, the page cache is used less well.
                let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
            }
            Ok(())
        };
        let work = move || inbox.iter().try_for_each(sync);
        let thread = std::thread::Builder::new().spawn(work)?;
        Ok(Writeback { requests, thread })
    }

    /// Requests a sync, unless a request is already pending.
    fn request(&self) -> std::io::Result<()> {
        match self.requests.try_send(()) {
            Ok(()) | Err(std::sync::mpsc::TrySendError::Full(())) => Ok(()),
            Err(std::sync::mpsc::TrySendError::Disconnected(())) => {
                Err(std::io::Error::other("an earlier sync of this file has failed"))
            }
        }
    }

    /// Waits for the requested syncs and returns their error.
    fn finish(self) -> std::io::Result<()> {
        drop(self.requests);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
