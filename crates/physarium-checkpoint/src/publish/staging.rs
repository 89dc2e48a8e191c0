/*!
The commit protocol: an output is absent, visibly unfinished, or complete.

1. The paths are checked, the output is locked, and free space is checked. Nothing is written before that, except
   for the lock.
2. A staging directory is created next to the output, with a marker that holds the digests of the input, and a
   journal that begins with the recipe.
3. Each shard is written to `NAME.part`, synced and renamed, and the directory is synced. Only then is it recorded
   in the journal, which is synced too.
4. The other files are written, then the manifest, all synced. The marker is removed.
5. The staging directory is renamed to the output's name, and the parent directory is synced.

[`Staging::begin`] with the same request resumes a run that stopped at any point, if the recipe and the digests of the
input are the same: shards in the journal are hashed again, input and output, and kept if both digests match. Everything else is written again. A failed `fsync` is not
retried; the shard is rewritten.
*/

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::durable::{
    create_new, part_name, publish_part, remove_file_if_exists, rename_to_new, sync_dir,
};
use super::inputs::{InputDigests, mark_unfinished, refuse_change};
use super::part_file::PartFile;
use super::place::lock::Lock;
use super::place::occupant::{Occupant, Replaceable};
use super::place::output_path::{Found, OutputPath};
use super::place::working;
use super::request::{FinishedShard, Resume, StagingRequest};
use super::resume::{self, hash_both};
use super::solved_dir::SOLVED_DIR;
use super::space::{Disk, bytes_below};
use crate::error::{Error, Result};
use crate::open::checkpoint::Shard;
use crate::open::digest::{Digest, Sha256};
use crate::open::source::Source;
use crate::open::unfinished::{UNFINISHED_NAME, is_unfinished};
use crate::records::journal::{self, JournalWriter, Record, RunRecord, ShardRecord, TensorRecord};
use crate::records::manifest::{self, FileEntry, Manifest};

/// An output while it is written. Dropping it leaves it unfinished and resumable.
#[derive(Debug)]
pub struct Staging {
    place: OutputPath,
    dir: PathBuf,
    journal: JournalWriter,
    finished: Vec<FinishedShard>,
    digests: InputDigests,
    key: Digest,
    /// The finished output that this one is to replace.
    replaces: Option<Replaceable>,
    // The last field, so that it is released after everything else.
    _lock: Lock,
}

impl Staging {
    /// What [`begin`](Self::begin) would find at the output's place and beside it. Writes nothing. An output that would be replaced
    /// is hashed as `begin` does, and if there is an unfinished run that would be resumed, the input; `on_bytes` is called with
    /// the number of bytes.
    ///
    /// # Errors
    /// Those of `begin` for a place that no run would write to or another run writes to, for a finished output that is not to be
    /// overwritten or was changed, and for an unfinished run of another recipe, version or input; what `on_bytes` returns.
    pub fn look(
        request: &StagingRequest<'_>,
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Found> {
        let place = OutputPath::check(request.out, request.checkpoint.dir())?;
        place.refuse_locked()?;
        refuse_unusable(&place, request.resume)?;
        if place.refuse_finished(request.overwrite)? == Occupant::Finished {
            Replaceable::check(&place.dir(), on_bytes)?;
        }
        let found = Found::of(&place)?;
        if let (Some(dir), Resume::Continue) = (&found.unfinished, request.resume) {
            let digests = InputDigests::of(request.checkpoint, &request.inputs, on_bytes)?;
            if resume::look(dir, request, &digests)?.is_none() {
                // It would be begun again.
                working::refuse_foreign(dir)?;
            }
        }
        Ok(found)
    }

    /// Checks paths and space, takes the lock, and starts or resumes a run.
    ///
    /// `on_bytes` is called with the number of bytes hashed while the input is identified, and while shards of an
    /// interrupted run, or the files of an output that is to be replaced, are verified. An error that it returns stops
    /// the run.
    ///
    /// # Errors
    /// `Output`, `Locked`, `NoSpace`, `StagingMismatch`, `InputChanged`, `Record`, `Thread`, `Io`, and what
    /// `on_bytes` returns.
    pub fn begin(
        request: StagingRequest<'_>,
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Staging> {
        let place = OutputPath::check(request.out, request.checkpoint.dir())?;
        let lock = place.lock()?;
        let dir = place.staging();
        refuse_unusable(&place, request.resume)?;
        let replaces = match place.refuse_finished(request.overwrite)? {
            Occupant::Absent | Occupant::Empty => None,
            Occupant::Finished => Some(Replaceable::check(&place.dir(), on_bytes)?),
        };
        if request.resume == Resume::Restart {
            working::remove(&dir)?;
        }
        let checkpoint = request.checkpoint;
        let shards = checkpoint.shards().len();
        let digests = InputDigests::of(checkpoint, &request.inputs, on_bytes)?;
        let mut earlier = resume::look(&dir, &request, &digests)?;
        let solved_bytes = match &earlier {
            Some(earlier) if earlier.shards() == shards => 0,
            _ => request.solved_bytes,
        };
        let written = request.output_bytes.saturating_add(solved_bytes);
        // What is there is kept, or removed before anything is written.
        Disk::check(&place.parent, written.saturating_sub(bytes_below(&dir)?))?;
        let (journal, finished) = match &mut earlier {
            Some(earlier) => {
                let finished = earlier.verify(&dir, (checkpoint, &digests), on_bytes)?;
                let mark = earlier.mark_after(finished.len());
                // A run killed in its last steps has a manifest and no marker. The marker is written before the
                // manifest is removed, so that one of them always exists.
                if !is_unfinished(&dir) {
                    mark_unfinished(&dir, &digests)?;
                }
                resume::remove_unverified(&dir, &finished, shards)?;
                (JournalWriter::resume(&dir.join(journal::FILE_NAME), mark)?, finished)
            }
            None => (start(&dir, &request.run, &digests)?, Vec::new()),
        };
        let key = digests.key(&request.run);
        Ok(Staging { place, dir, journal, finished, digests, key, replaces, _lock: lock })
    }

    /// Shards of an interrupted run, verified by their digests; always the first ones by name.
    pub fn finished(&self) -> &[FinishedShard] {
        &self.finished
    }

    /// A digest of everything that the output depends on: recipe, program version, input and calibration tokens. What
    /// is kept for a resumed run is marked with it.
    pub fn key(&self) -> Digest {
        self.key
    }

    /// The directory of the unfinished output.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes what was written, for a run that cannot be resumed.
    ///
    /// # Errors
    /// `Io`.
    pub fn discard(self) -> Result<()> {
        working::remove(&self.dir)
    }

    /// Creates the file of a shard of exactly `size_bytes`.
    ///
    /// # Errors
    /// `Io`.
    pub fn create_shard(&self, name: &str, size_bytes: u64) -> Result<PartFile> {
        PartFile::create(&self.dir, name, size_bytes)
    }

    /// Records in the journal a tensor whose bytes are written, but need not be durable yet.
    ///
    /// # Errors
    /// `Io`.
    pub fn record_tensor(&mut self, tensor: TensorRecord) -> Result<()> {
        self.journal.append(&Record::Tensor(tensor))
    }

    /// Makes a shard durable under its name, then records it in the journal. `input` is the path of the input shard.
    ///
    /// # Errors
    /// `InputChanged` if the input was hashed before, and is another now; `Io`; the next run then writes the shard
    /// again.
    ///
    /// # Panics
    /// If fewer or more bytes were written than its size.
    pub fn finish_shard(
        &mut self,
        input: &Path,
        part: PartFile,
        record: ShardRecord,
    ) -> Result<()> {
        self.digests.refuse_changed_shard(input, &record.name, record.input_sha256)?;
        part.finish()?;
        self.journal.append(&Record::Shard(record))?;
        self.journal.sync()
    }

    /// Takes a durable shard from `path` on the same file system, where it stays, proves by digests that it is the one of
    /// `record` and was made from the present `input`, and records it in the journal with its tensors. `on_bytes` is called
    /// with the bytes hashed.
    ///
    /// # Errors
    /// As [`Staging::finish_shard`]; `Record` if it is another file than `record` says; what `on_bytes` returns.
    pub fn adopt_shard(
        &mut self,
        (path, input): (&Path, &Shard),
        tensors: &[TensorRecord],
        record: ShardRecord,
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let file = Source::open(path)?;
        let (now, found) = hash_both((input, &self.digests), &file, on_bytes)?;
        if (found, file.len()) != (record.output_sha256, record.size_bytes) {
            return Err(Error::Record {
                path: path.to_owned(),
                what: "shard of a unit of work".to_owned(),
                expected: format!("{} bytes, SHA-256 {}", record.size_bytes, record.output_sha256),
                found: format!("{} bytes, SHA-256 {found}", file.len()),
            });
        }
        refuse_change(&input.path, Some(record.input_sha256), now)?;
        let part = part_name(&self.dir.join(&record.name));
        remove_file_if_exists(&part)?;
        // Not every file system has links.
        if fs::hard_link(path, &part).is_err() {
            fs::copy(path, &part).map_err(|e| Error::io(&part, "copy a shard to", e))?;
        }
        publish_part::<Error>(&part, &self.dir.join(&record.name), Ok(()))?;
        for tensor in tensors {
            self.journal.append(&Record::Tensor(tensor.clone()))?;
        }
        self.journal.append(&Record::Shard(record))?;
        self.journal.sync()
    }

    /// Copies a file of the input to the same relative path and makes it durable. `on_bytes` is called with the number
    /// of bytes of each piece.
    ///
    /// # Errors
    /// `Io`, `FileShrank`, `InputChanged`, and what `on_bytes` returns.
    pub fn copy_sidecar(
        &self,
        input: &Path,
        relative: &Path,
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<FileEntry> {
        let source = Source::open(&input.join(relative))?;
        let target = self.dir.join(relative);
        let parent = target.parent().unwrap_or(&self.dir).to_owned();
        fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, "create", e))?;
        let mut file = create_new(&target)?;
        let mut hasher = Sha256::default();
        source.read_pieces(0..source.len(), |piece| {
            hasher.update(piece);
            file.write_all(piece).map_err(|e| Error::io(&target, "write", e))?;
            on_bytes(piece.len() as u64)
        })?;
        source.check_unchanged(source.identity())?;
        file.sync_all().map_err(|e| Error::io(&target, "sync", e))?;
        // Not the staging directory itself, which is synced when it is published.
        for made in parent.ancestors().take_while(|above| *above != self.dir) {
            sync_dir(made)?;
        }
        let (path, sha256) = (relative.to_string_lossy().into_owned(), hasher.finish());
        self.digests.check_file(source.path(), &path, sha256)?;
        Ok(FileEntry { path, size_bytes: source.len(), sha256 })
    }

    /// Writes a new file of this name and makes it durable.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<FileEntry> {
        let path = self.dir.join(name);
        let mut file = create_new(&path)?;
        file.write_all(bytes).map_err(|e| Error::io(&path, "write", e))?;
        file.sync_all().map_err(|e| Error::io(&path, "sync", e))?;
        let (path, size_bytes) = (name.to_owned(), bytes.len() as u64);
        Ok(FileEntry { path, size_bytes, sha256: Sha256::of(bytes) })
    }

    /// Removes the directory of solved weights, which the shards then hold. To be called before other files are
    /// copied: the input may have a directory of that name.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_solved(&self) -> Result<()> {
        let solved = self.dir.join(SOLVED_DIR);
        match fs::remove_dir_all(&solved) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(&solved, "remove", e)),
            _ => Ok(()),
        }
    }

    /// Ends the journal and publishes the output. `seal` makes the manifest from the entry of the journal's file.
    ///
    /// # Errors
    /// `Output` when something appeared at the output's path during the run; `Io`. The run can then be resumed.
    pub fn publish(
        mut self,
        totals: journal::Totals,
        seal: impl FnOnce(FileEntry) -> Manifest,
    ) -> Result<()> {
        self.journal.append(&Record::Totals(totals))?;
        self.journal.sync()?;
        let journal = file_entry(&self.dir, journal::FILE_NAME)?;
        self.write_file(manifest::FILE_NAME, seal(journal).encode().as_bytes())?;
        sync_dir(&self.dir)?;
        remove_file_if_exists(&self.dir.join(UNFINISHED_NAME))?;
        sync_dir(&self.dir)?;
        self.rename_to_output()
    }

    /// The step after which the output exists.
    fn rename_to_output(&self) -> Result<()> {
        let (out, replaced) = (self.place.dir(), self.place.replaced());
        let io = |e| Error::io(&out, "publish the output", e);
        match (self.place.occupant()?, &self.replaces) {
            (Occupant::Absent, _) => rename_to_new(&self.dir, &out)?,
            // rename(2) replaces an empty directory atomically.
            (Occupant::Empty, _) => fs::rename(&self.dir, &out).map_err(io)?,
            (Occupant::Finished, Some(before)) if Replaceable::list(&out)? == *before => {
                working::remove(&replaced)?;
                fs::rename(&out, &replaced).map_err(io)?;
                rename_to_new(&self.dir, &out)?;
            }
            (Occupant::Finished, before) => {
                let what = match before {
                    Some(_) => "output changed during the run",
                    None => "output appeared during the run",
                };
                return Err(Error::Output {
                    path: out,
                    what,
                    expected: "a new or empty directory, or what was there before".to_owned(),
                    found: "a finished physarium output".to_owned(),
                });
            }
        }
        sync_dir(&self.place.parent)?;
        // This also removes what a run with --force left when it was killed at this point.
        working::remove(&replaced)
    }
}

/// Fails if the working directories of an output are not of a run that can be resumed, discarded or replaced.
fn refuse_unusable(place: &OutputPath, resume: Resume) -> Result<()> {
    working::refuse_foreign(&place.replaced())?;
    match resume {
        Resume::Restart => working::refuse_foreign(&place.staging()),
        Resume::Continue => working::refuse_links(&place.staging(), SOLVED_DIR),
    }
}

/// Creates the staging directory with its marker and the journal's first line.
fn start(dir: &Path, run: &RunRecord, digests: &InputDigests) -> Result<JournalWriter> {
    working::remove(dir)?;
    fs::create_dir(dir).map_err(|e| Error::io(dir, "create the staging directory", e))?;
    mark_unfinished(dir, digests)?;
    let mut journal = JournalWriter::create(&dir.join(journal::FILE_NAME))?;
    journal.append(&Record::Run(run.clone()))?;
    journal.sync()?;
    sync_dir(dir)?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
    }
    Ok(journal)
}

/// Size and digest of a file in the output.
pub(super) fn file_entry(dir: &Path, name: &str) -> Result<FileEntry> {
    let file = Source::open(&dir.join(name))?;
    let sha256 = file.sha256::<Error>(&mut |_| Ok(()))?;
    Ok(FileEntry { path: name.to_owned(), size_bytes: file.len(), sha256 })
}
