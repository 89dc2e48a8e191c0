/*!
A file for what a run does not keep in memory. Nothing in it outlives the process that wrote it.

It is written and read through the page cache, which writes behind and reads ahead, and is not resident memory of the
process. Nothing is synced; instead every piece is proven by its digest when it is read, so that a write
that the system lost is an error.
*/

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use super::durable::remove_file_if_exists;
use super::space::{Disk, no_space};
use crate::error::{Error, Result};
use crate::open::digest::{Blake3, Digest};

/// A new file of a run's own, removed when it is dropped.
#[derive(Debug)]
pub struct ScratchFile {
    path: PathBuf,
    file: File,
}

/// Bytes in a [`ScratchFile`].
#[derive(Debug, Clone, Copy)]
pub struct ScratchPiece {
    begin: u64,
    len: u64,
    blake3: Digest,
}

impl ScratchFile {
    /// Creates the file in a directory of a run's own, with room for `size_bytes` bytes. What an interrupted run left
    /// under its name is removed; a link is not followed.
    ///
    /// # Errors
    /// `NoSpace` when the disk is full, `Io` otherwise.
    pub fn create(path: &Path, size_bytes: u64) -> Result<ScratchFile> {
        ScratchFile::remove_left(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io(path, "create", e))?;
        let scratch = ScratchFile { path: path.to_owned(), file };
        let reserve =
            || rustix::fs::fallocate(&scratch.file, FallocateFlags::empty(), 0, size_bytes);
        match rustix::io::retry_on_intr(reserve) {
            // Not every file system can: the disk is then full when it is.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(scratch),
            Err(e) => Err(scratch.failed("reserve space for", e.into(), size_bytes)),
        }
    }

    /// Removes what an interrupted run left under the name of its file; a link is not followed.
    ///
    /// # Errors
    /// `Io` if it cannot be removed.
    pub fn remove_left(path: &Path) -> Result<()> {
        remove_file_if_exists(path)
    }

    /// Writes bytes at an offset.
    ///
    /// # Errors
    /// `NoSpace` when the disk is full, `Io` otherwise.
    pub fn write(&self, begin: u64, bytes: &[u8]) -> Result<ScratchPiece> {
        let len = bytes.len() as u64;
        self.file.write_all_at(bytes, begin).map_err(|e| self.failed("write", e, len))?;
        Ok(ScratchPiece { begin, len, blake3: Blake3::of(bytes) })
    }

    /// Reads a piece. Meanwhile the system begins to read as many bytes behind it.
    ///
    /// # Errors
    /// `Record` if its bytes are not those that were written; `Io`.
    ///
    /// # Panics
    /// If `bytes` is not as long as the piece.
    pub fn read(&self, piece: &ScratchPiece, bytes: &mut [u8]) -> Result<()> {
        assert_eq!(bytes.len() as u64, piece.len, "bytes of a piece");
        let next = piece.begin.saturating_add(piece.len);
        // Only advice: without it, reading takes longer.
        let _ = rustix::fs::fadvise(&self.file, next, NonZeroU64::new(piece.len), Advice::WillNeed);
        let read = self.file.read_exact_at(bytes, piece.begin);
        let found = match read {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => "the end of the file",
            Err(e) => return Err(Error::io(&self.path, "read", e)),
            Ok(()) if Blake3::of(bytes) == piece.blake3 => return Ok(()),
            Ok(()) => "other bytes",
        };
        Err(Error::Record {
            path: self.path.clone(),
            what: format!("scratch file of this run, {} bytes at {}", piece.len, piece.begin),
            expected: "what was written there".to_owned(),
            found: format!("{found}\nhint: the same command resumes the run"),
        })
    }

    fn failed(&self, operation: &'static str, e: std::io::Error, len: u64) -> Error {
        match self.path.parent() {
            Some(dir) if e.kind() == ErrorKind::StorageFull => {
                no_space(dir, len, Disk::of(dir).map_or(0, |disk| disk.free))
            }
            _ => Error::io(&self.path, operation, e),
        }
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // Best effort: a resumed run removes it, and so does the end of the run.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn pieces_read_back_or_are_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("scratch");
        let scratch = ScratchFile::create(&path, 8).expect("created");
        let first = scratch.write(0, b"abc").expect("written");
        let second = scratch.write(3, b"defgh").expect("written");
        let read = |piece: &ScratchPiece| {
            let mut bytes = vec![0; piece.len as usize];
            scratch.read(piece, &mut bytes).map(|()| bytes).map_err(|e| e.to_string())
        };
        assert_eq!((read(&first), read(&second)), (Ok(b"abc".into()), Ok(b"defgh".into())));
        let first = scratch.write(0, b"xyz").expect("written");
        assert_eq!((read(&first), read(&second)), (Ok(b"xyz".into()), Ok(b"defgh".into())));
        // Another process writes to it, or cuts it off.
        let other = fs::File::options().write(true).open(&path).expect("the file");
        other.write_all_at(b"!", 5).expect("written");
        let error = read(&second).expect_err("other bytes");
        assert!(error.contains("scratch: scratch file of this run, 5 bytes at 3"), "{error}");
        assert!(error.contains("found other bytes"), "{error}");
        assert_eq!(read(&first), Ok(b"xyz".into()));
        other.set_len(2).expect("cut off");
        assert!(read(&first).expect_err("cut off").contains("the end of the file"));
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn what_has_the_name_is_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("scratch"), dir.path().join("other"));
        fs::write(&other, "kept").expect("a file");
        for leave in [
            &|| fs::write(&path, "longer than what is written now") as std::io::Result<()>,
            &|| symlink(&other, &path),
            &|| fs::hard_link(&other, &path),
        ] as [&dyn Fn() -> std::io::Result<()>; 3]
        {
            leave().expect("left");
            let scratch = ScratchFile::create(&path, 3).expect("created");
            scratch.write(0, b"new").expect("written");
            assert_eq!(fs::read(&path).expect("the file"), b"new");
            drop(scratch);
            assert!(path.symlink_metadata().is_err());
            assert_eq!(fs::read(&other).expect("the file"), b"kept");
        }
        fs::create_dir(&path).expect("a directory");
        let error = ScratchFile::create(&path, 3).expect_err("a directory").to_string();
        assert!(error.contains("scratch: cannot remove"), "{error}");
    }
}
