/*!
The commit protocol: an output is absent, visibly unfinished, or complete.

1. Paths are checked, the output is locked, free space is checked. Nothing is written before.
2. A staging directory is made beside the output, with a marker that names the input as it is, and
   a journal that begins with the recipe.
3. Each shard is written to `NAME.part`, synced, renamed, its directory synced; only then the
   journal says so, and the journal is synced.
4. The other files follow, then the manifest, all synced. The marker goes.
5. The staging directory is renamed to the output's name and the parent is synced.

A run that stops anywhere is continued by [`Staging::begin`] with the same request: shards that the
journal names are hashed again, input and output, and kept when both digests are right. Whatever is
not proven is made again. A failed `fsync` is never tried again; the shard is.
*/

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, CWD, RenameFlags};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Shard};
use crate::digest::Sha256;
use crate::disk::{Disk, is_unfinished, sync_dir};
use crate::error::{Error, Result};
use crate::journal::{self, JournalWriter, Record, RunRecord, ShardRecord, TensorRecord};
use crate::manifest::{self, FileEntry, Manifest};
use crate::output_path::{Lock, Occupant, OutputPath};
use crate::resume;
use crate::source::Source;

/// The marker of a staging directory; a directory that holds it is not a checkpoint.
pub(crate) const UNFINISHED_NAME: &str = "physarium.unfinished.json";
/// Free space that must be left over, as a share of the output: 1/20 is 5 %.
const SPACE_MARGIN: u64 = 20;
/// Bytes between two requests to the system to start writing what it holds in memory.
const WRITEBACK_BYTES: u64 = 128 << 20;
/// Shards from this size on are not kept in the page cache once they are on disk: they would push
/// the input out of it, and taking fresh pages costs more than using the same ones again.
const UNCACHED_BYTES: u64 = 512 << 20;

/// What to do with a finished output that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Refuse.
    Refuse,
    /// Move it aside once the new one is complete, then remove it.
    Replace,
}

/// What to do with an unfinished run that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Continue it if it is the same run; refuse if it is another.
    Continue,
    /// Throw it away.
    Restart,
}

/// What is to be written where.
#[derive(Debug)]
pub struct StagingRequest<'a> {
    /// The output directory.
    pub out: &'a Path,
    /// What is pruned.
    pub checkpoint: &'a Checkpoint,
    /// The journal's first record.
    pub run: RunRecord,
    /// Bytes of the output, shards and other files.
    pub output_bytes: u64,
    /// What to do with a finished output.
    pub overwrite: Overwrite,
    /// What to do with an unfinished run.
    pub resume: Resume,
}

/// An output while it is written. Dropping it leaves it unfinished and resumable.
#[derive(Debug)]
pub struct Staging {
    place: OutputPath,
    dir: PathBuf,
    journal: JournalWriter,
    finished: Vec<FinishedShard>,
    overwrite: Overwrite,
    // Last, so that it is released after everything else.
    _lock: Lock,
}

/// A shard that an earlier run wrote and this run has hashed again.
#[derive(Debug, Clone)]
pub struct FinishedShard {
    /// Its journal record.
    pub shard: ShardRecord,
    /// The records of its tensors.
    pub tensors: Vec<TensorRecord>,
}

/// The input as it is on this machine: told apart from a file that replaced it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    note: String,
    pub shards: Vec<FingerprintShard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FingerprintShard {
    pub name: String,
    pub inode: u64,
    pub size_bytes: u64,
    pub modified_ns: i128,
}

impl Fingerprint {
    pub fn of(shards: &[Shard]) -> Fingerprint {
        let note = "unfinished physarium output: run the same prune command again to finish it";
        let one = |shard: &Shard| FingerprintShard {
            name: shard.name.clone(),
            inode: shard.identity.inode,
            size_bytes: shard.identity.size,
            modified_ns: shard.identity.modified_ns,
        };
        Fingerprint { note: note.to_owned(), shards: shards.iter().map(one).collect() }
    }
}

impl Staging {
    /// Checks everything, takes the lock, and starts or continues a run.
    ///
    /// `on_bytes` is told of bytes hashed while an earlier run's shards are proven; it stops the
    /// run by returning an error.
    ///
    /// # Errors
    /// `Output`, `Locked`, `NoSpace`, `StagingMismatch`, `InputChanged`, `Io`.
    pub fn begin(
        request: StagingRequest<'_>,
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Staging> {
        let place = OutputPath::check(request.out, request.checkpoint.dir())?;
        let lock = place.lock()?;
        if place.occupant()? == Occupant::Finished && request.overwrite == Overwrite::Refuse {
            return Err(Error::Output {
                path: place.dir(),
                what: "output exists",
                expected: "a new or empty directory (or --force to replace this one)".to_owned(),
                found: "a finished physarium output".to_owned(),
            });
        }
        let dir = place.staging();
        if request.resume == Resume::Restart && dir.symlink_metadata().is_ok() {
            fs::remove_dir_all(&dir)
                .map_err(|e| Error::io(&dir, "remove the unfinished run", e))?;
        }
        let mut earlier = resume::look(&dir, &request)?;
        let kept = earlier.as_ref().map_or(0, resume::Earlier::staged_bytes);
        check_space(&place.parent, request.output_bytes.saturating_sub(kept))?;
        let (journal, finished) = match &mut earlier {
            Some(earlier) => {
                let finished = earlier.prove(&dir, request.checkpoint, on_bytes)?;
                let mark = earlier.mark_after(finished.len());
                // A run killed on the last steps has a manifest and no marker: the marker comes
                // back before the manifest goes, so that there is always one of them.
                if !is_unfinished(&dir) {
                    mark_unfinished(&dir, request.checkpoint)?;
                }
                resume::clear_unproven(&dir, &finished)?;
                (JournalWriter::resume(&dir.join(journal::FILE_NAME), mark)?, finished)
            }
            None => (start(&dir, &request)?, Vec::new()),
        };
        let overwrite = request.overwrite;
        Ok(Staging { place, dir, journal, finished, overwrite, _lock: lock })
    }

    /// Shards of an earlier run, proven by their digests; always the first ones by name.
    pub fn finished(&self) -> &[FinishedShard] {
        &self.finished
    }

    /// Where the unfinished output is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes what was written: for a run that cannot be continued.
    ///
    /// # Errors
    /// `Io`.
    pub fn discard(self) -> Result<()> {
        remove_if_there(&self.dir)
    }

    /// Starts a shard of exactly `size_bytes`.
    ///
    /// # Errors
    /// `Io`.
    pub fn create_shard(&self, name: &str, size_bytes: u64) -> Result<PartFile> {
        PartFile::create(&self.dir, name, size_bytes)
    }

    /// Journals one tensor whose bytes have been handed to the system.
    ///
    /// # Errors
    /// `Io`.
    pub fn record_tensor(&mut self, tensor: TensorRecord) -> Result<()> {
        self.journal.append(&Record::Tensor(tensor))
    }

    /// Makes a shard durable under its name, then says so in the journal.
    ///
    /// # Errors
    /// `Io`; the shard is then made again by the next run.
    pub fn finish_shard(&mut self, part: PartFile, record: ShardRecord) -> Result<()> {
        part.finish()?;
        self.journal.append(&Record::Shard(record))?;
        self.journal.sync()
    }

    /// Copies a file of the input to the same relative path, durably.
    ///
    /// # Errors
    /// `Io`, `FileShrank`, `InputChanged`.
    pub fn copy_sidecar(&self, input: &Path, relative: &Path) -> Result<FileEntry> {
        let source = Source::open(&input.join(relative))?;
        let target = self.dir.join(relative);
        let parent = target.parent().unwrap_or(&self.dir).to_owned();
        fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, "create", e))?;
        let mut file = create_new(&target)?;
        let mut hasher = Sha256::default();
        source.read_pieces(0..source.len(), |piece| {
            hasher.update(piece);
            file.write_all(piece).map_err(|e| Error::io(&target, "write", e))
        })?;
        source.check_unchanged(source.identity())?;
        file.sync_all().map_err(|e| Error::io(&target, "sync", e))?;
        // Up to the staging directory itself, which is synced when it is published.
        for made in parent.ancestors().take_while(|above| *above != self.dir) {
            sync_dir(made)?;
        }
        let path = relative.to_string_lossy().into_owned();
        Ok(FileEntry { path, size_bytes: source.len(), sha256: hasher.finish() })
    }

    /// Removes weights that were solved beforehand: the shards hold them now.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_solved(&self) -> Result<()> {
        remove_if_there(&self.dir.join(crate::SOLVED_DIR))
    }

    /// Ends the journal and publishes the output. `seal` makes the manifest out of the journal's
    /// own entry.
    ///
    /// # Errors
    /// `Io`; nothing has appeared under the output's name then, and the run can be continued.
    pub fn publish(
        mut self,
        totals: journal::Totals,
        seal: impl FnOnce(FileEntry) -> Manifest,
    ) -> Result<()> {
        self.journal.append(&Record::Totals(totals))?;
        self.journal.sync()?;
        let journal = file_entry(&self.dir, journal::FILE_NAME)?;
        let path = self.dir.join(manifest::FILE_NAME);
        let mut file = create_new(&path)?;
        file.write_all(seal(journal).encode().as_bytes())
            .map_err(|e| Error::io(&path, "write", e))?;
        file.sync_all().map_err(|e| Error::io(&path, "sync", e))?;
        sync_dir(&self.dir)?;
        let marker = self.dir.join(UNFINISHED_NAME);
        match fs::remove_file(&marker) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&marker, "remove", e));
            }
            _ => sync_dir(&self.dir)?,
        }
        self.take_place()
    }

    /// The step that makes the output appear.
    fn take_place(&self) -> Result<()> {
        let (out, replaced) = (self.place.dir(), self.place.replaced());
        let io = |e| Error::io(&out, "publish the output", e);
        match (self.place.occupant()?, self.overwrite) {
            (Occupant::Absent, _) => rename_to_new(&self.dir, &out)?,
            // rename(2) takes the place of an empty directory in one step.
            (Occupant::Empty, _) => fs::rename(&self.dir, &out).map_err(io)?,
            (Occupant::Finished, Overwrite::Replace) => {
                remove_if_there(&replaced)?;
                fs::rename(&out, &replaced).map_err(io)?;
                rename_to_new(&self.dir, &out)?;
            }
            (Occupant::Finished, Overwrite::Refuse) => {
                return Err(Error::Output {
                    path: out,
                    what: "output appeared during the run",
                    expected: "a new or empty directory".to_owned(),
                    found: "a finished physarium output".to_owned(),
                });
            }
        }
        sync_dir(&self.place.parent)?;
        // Also what an earlier --force run left when it was killed right here.
        remove_if_there(&replaced)
    }
}

pub(crate) fn remove_if_there(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(dir, "remove", e)),
        _ => Ok(()),
    }
}

/// Renames to a name that must not exist, in one step where the file system can.
pub(crate) fn rename_to_new(from: &Path, to: &Path) -> Result<()> {
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems know no flags; the lock and the check before stand in.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(from, to),
        done => done.map_err(Into::into),
    }
    .map_err(|e| Error::io(to, "publish the output", e))
}

pub(crate) fn check_space(parent: &Path, output: u64) -> Result<()> {
    let free = Disk::of(parent)?.free;
    let needed = output.saturating_add(output / SPACE_MARGIN);
    if needed > free {
        return Err(Error::NoSpace { path: parent.to_owned(), needed, output, free });
    }
    Ok(())
}

/// A new staging directory with its marker and the journal's first line.
fn start(dir: &Path, request: &StagingRequest<'_>) -> Result<JournalWriter> {
    remove_if_there(dir)?;
    fs::create_dir(dir).map_err(|e| Error::io(dir, "create the staging directory", e))?;
    mark_unfinished(dir, request.checkpoint)?;
    let mut journal = JournalWriter::create(&dir.join(journal::FILE_NAME))?;
    journal.append(&Record::Run(request.run.clone()))?;
    journal.sync()?;
    sync_dir(dir)?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
    }
    Ok(journal)
}

/// Puts the marker into a staging directory, whole or not at all.
fn mark_unfinished(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let (part, marker) = (dir.join("physarium.unfinished.part"), dir.join(UNFINISHED_NAME));
    let fingerprint = Fingerprint::of(checkpoint.shards());
    let text = serde_json::to_string_pretty(&fingerprint).expect("a fingerprint is plain JSON");
    let mut file = File::create(&part).map_err(|e| Error::io(&part, "create", e))?;
    file.write_all((text + "\n").as_bytes()).map_err(|e| Error::io(&part, "write", e))?;
    file.sync_all().map_err(|e| Error::io(&part, "sync", e))?;
    fs::rename(&part, &marker).map_err(|e| Error::io(&marker, "create", e))?;
    sync_dir(dir)
}

pub(crate) fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|e| Error::io(path, "create", e))
}

/// Size and digest of a file of the output, read back.
fn file_entry(dir: &Path, name: &str) -> Result<FileEntry> {
    let bytes = Source::open(&dir.join(name))?.read_all(u64::MAX)?;
    let size_bytes = bytes.len() as u64;
    Ok(FileEntry { path: name.to_owned(), size_bytes, sha256: Sha256::of(&bytes) })
}

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
    fn create(dir: &Path, name: &str, size_bytes: u64) -> Result<PartFile> {
        let part = dir.join(format!("{name}.part"));
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
            let output = self.size_bytes - self.written;
            let free = Disk::of(&self.dir).map_or(0, |disk| disk.free);
            let needed = output.saturating_add(output / SPACE_MARGIN);
            return Error::NoSpace { path: self.dir.clone(), needed, output, free };
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
    fn finish(mut self) -> Result<()> {
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
