//! A shard while it is written: under a temporary name, synced beside the work.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

use super::durable::{create_new, part_name, rename_to_new, sync_dir};
use super::space::{Disk, no_space};
use crate::error::{Error, Result};

/// Bytes between two requests to the system to start writing what it holds in memory.
const WRITEBACK_BYTES: u64 = 128 << 20;
/// Shards from this size on are not kept in the page cache once they are on disk: they would push
/// the input out of it, and taking fresh pages costs more than using the same ones again.
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
    started: u64,
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
            started: 0,
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
        if self.written - self.started >= WRITEBACK_BYTES {
            self.started = self.written;
            self.start_writeback()?;
        }
        Ok(())
    }

    fn write_error(&self, e: std::io::Error) -> Error {
        if e.kind() == std::io::ErrorKind::StorageFull {
            let free = Disk::of(&self.dir).map_or(0, |disk| disk.free);
            return no_space(&self.dir, self.size_bytes - self.written, free);
        }
        Error::io(&self.part, "write", e)
    }

    /// Has the system write out what it holds, beside the work, so that `finish` finds little.
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

    /// Makes the bytes durable, then the name.
    pub(super) fn finish(mut self) -> Result<()> {
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

/// A thread that syncs a file whenever it is asked to. One failure ends it, for good: a sync that
/// failed once may succeed the second time without the bytes being there.
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
                // Advice: where it is not taken, memory is only used less well.
                let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
            }
            Ok(())
        };
        let work = move || inbox.iter().try_for_each(sync);
        let thread = std::thread::Builder::new().spawn(work)?;
        Ok(Writeback { requests, thread })
    }

    /// Asks for a sync unless one is waiting already.
    fn request(&self) -> std::io::Result<()> {
        match self.requests.try_send(()) {
            Ok(()) | Err(std::sync::mpsc::TrySendError::Full(())) => Ok(()),
            Err(std::sync::mpsc::TrySendError::Disconnected(())) => {
                Err(std::io::Error::other("an earlier sync of this file has failed"))
            }
        }
    }

    /// Waits for the syncs asked for; their error is the file's.
    fn finish(self) -> std::io::Result<()> {
        drop(self.requests);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
