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
    /// Opens a checkpoint directory or a packed file and checks everything but the weights.
    ///
    /// # Errors
    /// `Checkpoint` for faults in headers, index or container, or a file that cannot be read.
    pub fn open(path: &Path) -> Result<ModelFiles> {
        if path.is_file() {
            return Ok(ModelFiles::Packed(Box::new(Packed::open(path)?)));
        }
        Ok(ModelFiles::Directory(Checkpoint::open(path)?))
    }

    /// The path of the model.
    pub fn path(&self) -> &Path {
        match self {
            ModelFiles::Directory(checkpoint) => checkpoint.dir(),
            ModelFiles::Packed(packed) => packed.path(),
        }
    }

    /// The path of a file, for error messages.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Whether the model has a file of this name beside its weights.
    pub fn has(&self, name: &str) -> bool {
        match self {
            ModelFiles::Packed(packed) => packed.has_file(name),
            ModelFiles::Directory(_) => self.path_of(name).is_file(),
        }
    }

    /// The bytes of a file, if the model has one of this name.
    ///
    /// # Errors
    /// `Malformed` for more than `limit` bytes; `Io` if it cannot be read.
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

    /// The bytes of a required file.
    ///
    /// # Errors
    /// As [`ModelFiles::find`], and `Malformed` if there is none.
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

    /// Size of all tensors as stored, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        match self {
            ModelFiles::Directory(checkpoint) => {
                checkpoint.tensors().map(|(_, tensor)| tensor.size_bytes()).sum()
            }
            ModelFiles::Packed(packed) => packed.tensors().map(|t| t.stored_bytes()).sum(),
        }
    }
}
