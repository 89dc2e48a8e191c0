//! A model's files by name, in a directory or packed into one file.

use std::path::{Path, PathBuf};

use physarium_checkpoint::{Checkpoint, Malformed, Source};
use physarium_pack::Packed;

use crate::error::Result;

/// A model on disk.
#[derive(Debug)]
pub enum ModelFiles {
    /// A checkpoint directory.
    Directory(Checkpoint),
    /// A `.physpack` file.
    Packed(Box<Packed>),
}

impl ModelFiles {
    /// Opens a checkpoint directory or a packed file, and checks everything that does not need weights.
    ///
    /// # Errors
    /// `Checkpoint` for faults in headers, index or container, or a file that cannot be read.
    pub fn open(path: &Path) -> Result<ModelFiles> {
        if path.is_file() {
            return Ok(ModelFiles::Packed(Box::new(Packed::open(path)?)));
        }
        Ok(ModelFiles::Directory(Checkpoint::open(path)?))
    }

    /// Where the model is.
    pub fn path(&self) -> &Path {
        match self {
            ModelFiles::Directory(checkpoint) => checkpoint.dir(),
            ModelFiles::Packed(packed) => packed.path(),
        }
    }

    /// A file's path, for error messages.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The bytes of a file, if the model has one of this name.
    ///
    /// # Errors
    /// `Malformed` for more than `limit` bytes; `Io` when it cannot be read.
    pub fn find(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self {
            ModelFiles::Packed(packed) => Ok(packed.file(name, limit)?),
            ModelFiles::Directory(_) => {
                let path = self.path_of(name);
                if path.symlink_metadata().is_err() {
                    return Ok(None);
                }
                Ok(Some(Source::open(&path)?.read_all(limit)?))
            }
        }
    }

    /// The bytes of a file that the model must have.
    ///
    /// # Errors
    /// As [`ModelFiles::find`], and `Malformed` when there is none.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        if let ModelFiles::Directory(_) = self {
            return Ok(Source::open(&self.path_of(name))?.read_all(limit)?);
        }
        self.find(name, limit)?.ok_or_else(|| {
            Malformed::new(
                &self.path_of(name),
                "file is missing",
                "a file of this name in the packed file",
                "none",
            )
            .into()
        })
    }

    /// Bytes that all tensors take as stored.
    pub fn stored_bytes(&self) -> u64 {
        match self {
            ModelFiles::Directory(checkpoint) => {
                checkpoint.tensors().map(|(_, tensor)| tensor.size_bytes()).sum()
            }
            ModelFiles::Packed(packed) => packed.tensors().map(|t| t.stored_bytes()).sum(),
        }
    }
}
