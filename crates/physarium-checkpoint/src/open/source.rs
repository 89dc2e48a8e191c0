//! Reading an open file by bounded `pread`s, or an object of a store by ranges, and checking that it has not changed.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, Sha256};
use super::hub::snapshot::incomplete_hint;
use super::store::remote::{self, RemoteFile, RemoteLink};
use crate::error::{Error, Malformed, Result};
use crate::escape::printable;

/// Bytes that [`Source::read_pieces`] reads at once; a multiple of every element size.
const PIECE_BYTES: u64 = 1 << 20;

/// Properties by which a replaced or modified file is detected. An object of a store has a size and an ETag; the others are zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of last modification, nanoseconds since the epoch.
    pub modified_ns: i128,
    /// Time of last status change, nanoseconds since the epoch.
    pub changed_ns: i128,
    /// The ETag of an object of a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl FileIdentity {
    /// The identity of the file with this metadata.
    pub(crate) fn of(meta: &std::fs::Metadata) -> FileIdentity {
        let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        FileIdentity {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            changed_ns: nanoseconds(meta.ctime(), meta.ctime_nsec()),
            etag: None,
        }
    }

    fn of_object(link: &RemoteLink) -> FileIdentity {
        FileIdentity {
            device: 0,
            inode: 0,
            size: link.size,
            modified_ns: 0,
            changed_ns: 0,
            etag: Some(link.etag.clone()),
        }
    }
}

/// An open regular file, or an object of a store.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    bytes: Bytes,
    identity: FileIdentity,
}

/// Where the bytes are.
#[derive(Debug)]
enum Bytes {
    Here(File),
    InStore(Arc<dyn RemoteFile>),
}

impl Source {
    /// Opens `path` if it is a regular file, or a link to one, or to an object of a store ([`RemoteLink`]). Never blocks on a FIFO or a
    /// device.
    ///
    /// # Errors
    /// `Io` when it cannot be opened; `Malformed` when it is not a regular file, and for an object if this program reads no stores.
    pub fn open(path: &Path) -> Result<Source> {
        let io = |e| Error::io(path, "open", e);
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(nonblock).open(path) {
            Ok(file) => file,
            // A socket cannot be opened; the error says what it is instead of ENXIO.
            Err(e) => match std::fs::metadata(path) {
                Ok(meta) if !meta.is_file() => return Err(not_regular(path, &meta)),
                Err(_) if path.is_symlink() => {
                    let link = RemoteLink::at(path).ok_or_else(|| broken_link(path, &e))?;
                    return Source::open_object(path, link);
                }
                _ => return Err(io(e)),
            },
        };
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(not_regular(path, &meta));
        }
        let identity = FileIdentity::of(&meta);
        Ok(Source { path: path.to_owned(), bytes: Bytes::Here(file), identity })
    }

    fn open_object(path: &Path, link: RemoteLink) -> Result<Source> {
        let bytes = Bytes::InStore(remote::open(path, &link)?);
        let identity = FileIdentity::of_object(&link);
        Ok(Source { path: PathBuf::from(link.address), bytes, identity })
    }

    /// The path at which it was opened; the address of an object.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity when it was opened.
    pub fn identity(&self) -> &FileIdentity {
        &self.identity
    }

    /// Whether it is an object of a store, where each read at another place is a request.
    pub fn is_in_store(&self) -> bool {
        matches!(self.bytes, Bytes::InStore(_))
    }

    /// Its size in bytes when it was opened.
    pub fn len(&self) -> u64 {
        self.identity.size
    }

    /// Whether its size is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `FileShrank` when the file ends before that, `Io` when the read fails; `InputChanged` for an object that is another one now.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let file = match &self.bytes {
            Bytes::Here(file) => file,
            Bytes::InStore(object) => return object.read_exact_at(buf, offset),
        };
        file.read_exact_at(buf, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::FileShrank { path: self.path.clone(), offset, expected: buf.len() }
            }
            _ => Error::io(&self.path, "read", e),
        })
    }

    /// Reads the bytes of `range` in order, in pieces.
    ///
    /// # Errors
    /// As [`Source::read_exact_at`], and whatever `visit` returns.
    pub fn read_pieces<E: From<Error>>(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = vec![0; (range.end - range.start).min(PIECE_BYTES) as usize];
        let mut at = range.start;
        while at < range.end {
            let piece = &mut buffer[..(range.end - at).min(PIECE_BYTES) as usize];
            self.read_exact_at(piece, at)?;
            visit(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// The SHA-256 of the whole file. `on_bytes` is called with the number of bytes of each piece; an error that
    /// it returns stops the work.
    ///
    /// # Errors
    /// As [`Source::read_exact_at`], and what `on_bytes` returns.
    pub fn sha256<E: From<Error>>(
        &self,
        on_bytes: &mut dyn FnMut(u64) -> Result<(), E>,
    ) -> Result<Digest, E> {
        let mut hasher = Sha256::default();
        self.read_pieces(0..self.len(), |piece| {
            hasher.update(piece);
            on_bytes(piece.len() as u64)
        })?;
        Ok(hasher.finish())
    }

    /// Reads the whole file, which may have at most `limit` bytes.
    ///
    /// # Errors
    /// `Malformed` when it is larger; as [`Source::read_exact_at`] otherwise.
    pub fn read_all(&self, limit: u64) -> Result<Vec<u8>> {
        if self.len() > limit {
            let (want, got) = (format!("at most {limit} bytes"), format!("{} bytes", self.len()));
            return Err(Malformed::new(&self.path, "file is too large", want, got).into());
        }
        let mut bytes = vec![0; self.len() as usize];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Fails if the file is not the one that `expected` describes. A modification that keeps size and times is not
    /// detected. For an object this compares what it was opened as; that it still is so, each request demands from the store.
    ///
    /// # Errors
    /// `InputChanged` with the property that differs; `Io`.
    pub fn check_unchanged(&self, expected: &FileIdentity) -> Result<()> {
        let now = match &self.bytes {
            Bytes::Here(file) => {
                FileIdentity::of(&file.metadata().map_err(|e| Error::io(&self.path, "stat", e))?)
            }
            Bytes::InStore(_) => self.identity.clone(),
        };
        expected.same_as(&now, &self.path)
    }
}

impl FileIdentity {
    fn same_as(&self, after: &FileIdentity, path: &Path) -> Result<()> {
        let fields = [
            ("device", i128::from(self.device), i128::from(after.device)),
            ("inode", i128::from(self.inode), i128::from(after.inode)),
            ("size in bytes", i128::from(self.size), i128::from(after.size)),
            ("modification time (ns)", self.modified_ns, after.modified_ns),
            ("status change time (ns)", self.changed_ns, after.changed_ns),
        ];
        let etag = |identity: &FileIdentity| {
            identity.etag.as_deref().map_or_else(|| "none".to_owned(), printable)
        };
        let differs = fields.into_iter().find(|(_, before, after)| before != after);
        let differs =
            differs.map(|(what, before, after)| (what, before.to_string(), after.to_string()));
        let is_other = (self.etag != after.etag).then(|| ("ETag", etag(self), etag(after)));
        match differs.or(is_other) {
            None => Ok(()),
            Some((what, before, after)) => {
                Err(Error::InputChanged { path: path.to_owned(), what, before, after })
            }
        }
    }
}

fn broken_link(path: &Path, why: &std::io::Error) -> Error {
    let expected = "a regular file or a link to one";
    let incomplete = path.parent().and_then(incomplete_hint);
    let hint = incomplete.unwrap_or_else(|| {
        "an incomplete download leaves such links in a hub cache: fetch it again".to_owned()
    });
    Malformed::new(path, "broken link", expected, why.to_string()).with_hint(hint).into()
}

fn not_regular(path: &Path, meta: &std::fs::Metadata) -> Error {
    let kind = meta.file_type();
    let found = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Malformed::new(path, "not a regular file", "a regular file or a link to one", found).into()
}
