/*!
Reading a packed file.

Opening checks that container, seal and record of the contents are consistent. Every byte of the file is covered by
a digest; that of a blob is checked whenever the blob is read.
*/

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Component, Path};

use physarium_checkpoint::{
    Blake3, Digest, Dtype, Error, Malformed, Shard, Source, TensorInfo, printable,
};

use crate::Result;
use crate::blob_reader::{BlobReader, DAMAGED, MaskReader, StoredBlob};
use crate::contents::{
    ALIGNMENT, ANY_VERSION, BlobKind, CONTENTS, Contents, FileRecord, Form, SCHEMA, SEAL,
    TensorRecord,
};
use crate::groups::Groups;
use crate::mask_layout::MaskLayout;

/// Largest record of the contents that is accepted, in bytes: as many as a header may have.
pub(crate) const MAX_CONTENTS_BYTES: u64 = 100_000_000;
/// Most bytes of a blob that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// A packed checkpoint.
#[derive(Debug)]
pub struct Packed {
    container: Shard,
    contents: Contents,
    /// Bounds of the blobs in the file, padding included.
    bounds: HashMap<String, Range<u64>>,
}

impl Packed {
    /// Reads a packed file and checks its container, seal and record, but not yet what they say of each other's
    /// tensors.
    pub(crate) fn read_sealed(path: &Path) -> Result<Packed> {
        let container = Shard::open(path).map_err(|e| match e {
            Error::Malformed(fault) => {
                let hint =
                    "a packed file is what `physarium pack` writes; a checkpoint is a directory";
                Error::from(fault.with_hint(hint))
            }
            other => other,
        })?;
        let bounds: HashMap<String, Range<u64>> = container
            .tensors
            .iter()
            .map(|blob| (blob.name.clone(), blob.begin..blob.end))
            .collect();
        check_version(&container)?;
        let fault = |what, expected: &str, found: String| {
            Error::from(Malformed::new(path, what, expected, found))
        };
        let odd = container.tensors.iter().find(|blob| {
            blob.dtype != Dtype::U8 || blob.shape.len() != 1 || blob.begin % ALIGNMENT != 0
        });
        if let Some(TensorInfo { name, dtype, shape, begin, .. }) = odd {
            let found = format!("{dtype} {shape:?} at byte {begin}");
            let expected = "a list of U8 that begins at a multiple of 64";
            return Err(Malformed::new(path, "invalid blob", expected, found)
                .with_tensor(name)
                .into());
        }
        let blob = |name: &str| {
            bounds
                .get(name)
                .cloned()
                .ok_or_else(|| Error::from(Malformed::new(path, "blob is missing", name, "none")))
        };
        let (text, seal) = (blob(CONTENTS)?, blob(SEAL)?);
        if text.end - text.start > MAX_CONTENTS_BYTES || seal.end - seal.start != 64 {
            let found = format!("{} and {} bytes", text.end - text.start, seal.end - seal.start);
            return Err(fault(
                "invalid sizes of contents and seal",
                "up to 100000000 and 64 bytes",
                found,
            ));
        }
        let source = container.reopen()?;
        let mut sealed = [0; 64];
        source.read_exact_at(&mut sealed, seal.start)?;
        let mut json = vec![0; (text.end - text.start) as usize];
        source.read_exact_at(&mut json, text.start)?;
        let mut blake3 = Blake3::default();
        blake3.update(&json);
        let Digest(blake3) = blake3.finish();
        let Digest(sha256) = container.header_sha256;
        if sealed[..32] != sha256 {
            let what = "header does not match the seal";
            let fault = Malformed::new(path, what, "the sealed SHA-256", "another");
            return Err(fault.with_offset(0).with_hint(DAMAGED).into());
        }
        if sealed[32..] != blake3 {
            let what = "contents do not match the seal";
            let fault = Malformed::new(path, what, "the sealed BLAKE3", "another");
            return Err(fault.with_offset(text.start).with_hint(DAMAGED).into());
        }
        let contents: Contents = serde_json::from_slice(&json).map_err(|e| {
            fault("invalid contents", "a record of this version", printable(&e.to_string()))
        })?;
        let packed = Packed { container, contents, bounds };
        packed.check()?;
        Ok(packed)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.container.path
    }

    /// Size of the file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.container.size_bytes()
    }

    /// Bytes of all files of the unpacked directory.
    pub fn unpacked_bytes(&self) -> u64 {
        self.contents.files.iter().map(|file| file.size_bytes).sum()
    }

    /// All tensors, in the order of their bytes in their files.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorRecord> {
        self.contents.files.iter().flat_map(|file| file.tensors.iter().flatten())
    }

    pub(crate) fn files(&self) -> &[FileRecord] {
        &self.contents.files
    }

    pub(crate) fn fault(&self, what: &'static str, expected: &str, found: String) -> Error {
        Malformed::new(self.path(), what, expected, found).into()
    }

    /// Opens the file again and checks that it has not changed.
    pub(crate) fn source(&self) -> Result<Source> {
        self.container.reopen()
    }

    /// Compares the record with the blobs: all must exist, in the sizes that the forms require, each must serve one
    /// tensor or file, and there are no others.
    fn check(&self) -> Result<()> {
        if self.contents.schema != SCHEMA {
            let found = printable(&self.contents.schema);
            return Err(self.fault("unsupported schema of the contents", SCHEMA, found));
        }
        for (name, blob) in &self.contents.blobs {
            let bytes = self.bounds.get(name).map(|bounds| bounds.end - bounds.start);
            if bytes != blob.size_bytes.checked_next_multiple_of(ALIGNMENT) {
                let (name, size) = (printable(name), blob.size_bytes);
                let expected = format!("{size} bytes and padding in blob {name}");
                let found = bytes.map_or("none".to_owned(), |bytes| bytes.to_string());
                return Err(self.fault(WRONG_SIZE, &expected, found));
            }
        }
        let mut wanted = HashSet::new();
        let mut want = |kind: BlobKind, name: &str, size: u64| {
            let blob = kind.of(name);
            if !wanted.insert(blob.clone()) {
                let what = "blob serves two tensors or files";
                return Err(self.fault(what, "each blob once", printable(&blob)));
            }
            match self.contents.blobs.get(&blob) {
                Some(found) if found.size_bytes == size => Ok(()),
                found => {
                    let found = found.map_or("none".to_owned(), |b| b.size_bytes.to_string());
                    let expected = format!("{size} bytes in blob {}", printable(&blob));
                    Err(self.fault(WRONG_SIZE, &expected, found))
                }
            }
        };
        let mut paths: Vec<&str> = Vec::new();
        for file in &self.contents.files {
            if !is_plain(&file.path) {
                let found = printable(&file.path);
                return Err(self.fault(
                    "invalid path of a file",
                    "plain names separated by /",
                    found,
                ));
            }
            paths.push(&file.path);
            let Some(tensors) = &file.tensors else {
                want(BlobKind::File, &file.path, file.size_bytes)?;
                continue;
            };
            let mut header = file.size_bytes;
            for tensor in tensors {
                let fault = || {
                    let found = format!("{:?} of {} {:?}", tensor.form, tensor.dtype, tensor.shape);
                    self.fault("invalid form of a tensor", "a form of its dtype and shape", found)
                };
                for (kind, bytes) in tensor.blobs().ok_or_else(fault)? {
                    want(kind, &tensor.name, bytes)?;
                }
                let dense = TensorRecord { form: Form::Dense, ..tensor.clone() }.stored_bytes();
                header = header.checked_sub(dense).ok_or_else(fault)?;
            }
            want(BlobKind::Header, &file.path, header)?;
        }
        paths.sort_unstable();
        let twice = paths.windows(2).find(|pair| {
            // The same path twice, or one inside the other.
            pair[1]
                .strip_prefix(pair[0])
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if let Some(pair) = twice {
            return Err(self.fault(
                "duplicate path of a file",
                "each path once",
                printable(pair[1]),
            ));
        }
        // Contents and seal are not listed in the contents.
        let wanted = wanted.len();
        if wanted != self.contents.blobs.len() || self.bounds.len() != wanted + 2 {
            let numbers =
                |listed, stored| format!("{listed} in the contents, {stored} in the file");
            let expected = numbers(wanted, wanted + 2);
            let found = numbers(self.contents.blobs.len(), self.bounds.len());
            return Err(self.fault("wrong number of blobs", &expected, found));
        }
        Ok(())
    }

    /// Reads a blob in order, in pieces of at most 1 MiB, and checks its digest at the end.
    pub(crate) fn read_pieces(
        &self,
        source: &Source,
        kind: BlobKind,
        name: &str,
        mut visit: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut reader = self.reader(source, kind, name)?;
        let mut piece = vec![0; PIECE_BYTES.min(reader.left() as usize)];
        while reader.left() > 0 {
            let piece = &mut piece[..PIECE_BYTES.min(reader.left() as usize)];
            reader.next(piece)?;
            visit(piece)?;
        }
        reader.finish()
    }

    /// A reader of a blob in parts.
    pub(crate) fn reader<'a>(
        &'a self,
        source: &'a Source,
        kind: BlobKind,
        name: &str,
    ) -> Result<BlobReader<'a>> {
        let name = kind.of(name);
        let found = self.bounds.get(&name).zip(self.contents.blobs.get(&name));
        let Some((bounds, record)) = found else {
            return Err(self.fault("blob is missing", &printable(&name), "none".to_owned()));
        };
        let (path, bounds, record) = (self.path(), bounds.clone(), *record);
        Ok(BlobReader::new(source, StoredBlob { path, name, bounds, record }))
    }

    /// A reader of the masks of a tensor.
    pub(crate) fn mask_reader<'a>(
        &'a self,
        source: &'a Source,
        tensor: &TensorRecord,
        layout: MaskLayout,
    ) -> Result<MaskReader<'a>> {
        let (kind, groups) = match tensor.form {
            Form::Groups { keep, of } => (BlobKind::Groups, Some(Groups { keep, of })),
            Form::Mask { .. } | Form::Dense => (BlobKind::Mask, None),
        };
        Ok(MaskReader::new(self.reader(source, kind, &tensor.name)?, layout, groups))
    }

    /// Size of a blob without padding; 0 if there is none.
    pub(crate) fn blob_bytes(&self, kind: BlobKind, name: &str) -> u64 {
        self.contents.blobs.get(&kind.of(name)).map_or(0, |blob| blob.size_bytes)
    }

    /// Fills `to` with a blob, which must have exactly that size.
    pub(crate) fn read_whole(
        &self,
        source: &Source,
        kind: BlobKind,
        name: &str,
        to: &mut [u8],
    ) -> Result<()> {
        let mut reader = self.reader(source, kind, name)?;
        if reader.left() != to.len() as u64 {
            let expected = format!("{} bytes in blob {}", to.len(), printable(reader.name()));
            return Err(self.fault(WRONG_SIZE, &expected, reader.left().to_string()));
        }
        to.chunks_mut(PIECE_BYTES).try_for_each(|piece| reader.next(piece))?;
        reader.finish()
    }

    /// Whether there is a file at this path in the directory, other than a shard.
    pub fn has_file(&self, path: &str) -> bool {
        self.contents.files.iter().any(|file| file.path == path && file.tensors.is_none())
    }

    /// Whether two tensors are stored dense with the same bytes, by their digests.
    pub fn have_same_bytes(&self, one: &TensorRecord, other: &TensorRecord) -> bool {
        let blob = |tensor: &TensorRecord| {
            let blob = self.contents.blobs.get(&BlobKind::Dense.of(&tensor.name))?;
            Some((tensor.dtype, blob.size_bytes, blob.blake3))
        };
        blob(one).is_some_and(|one| blob(other) == Some(one))
    }

    /// The bytes of the file at this path in the directory; `None` if there is none, or if it is a shard.
    ///
    /// # Errors
    /// `Malformed` if it is larger than `limit` bytes or does not match its digest; `Io`, `InputChanged`.
    pub fn file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let mut files = self.contents.files.iter().filter(|file| file.tensors.is_none());
        let Some(file) = files.find(|file| file.path == path) else { return Ok(None) };
        if file.size_bytes > limit {
            let found = format!("{} bytes", file.size_bytes);
            let expected = format!("at most {limit} bytes in {}", printable(path));
            return Err(self.fault("packed file is too large", &expected, found));
        }
        let mut bytes = vec![0; file.size_bytes as usize];
        self.read_whole(&self.source()?, BlobKind::File, path, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Fills `to` with the bytes of a tensor stored dense.
    ///
    /// # Errors
    /// `Malformed` for a tensor of another form or size, or one that does not match its digest; `Io`,
    /// `InputChanged`.
    pub fn dense(&self, tensor: &TensorRecord, to: &mut [u8]) -> Result<()> {
        self.read_whole(&self.source()?, BlobKind::Dense, &tensor.name, to)
    }

    /// Fills `to` with the values of a tensor stored as masks or groups.
    ///
    /// # Errors
    /// As [`Packed::dense`].
    pub fn values(&self, tensor: &TensorRecord, to: &mut [u8]) -> Result<()> {
        self.read_whole(&self.source()?, BlobKind::Values, &tensor.name, to)
    }

    /// Number of values of a tensor stored as masks or groups; `None` for a dense one.
    pub fn value_count(&self, tensor: &TensorRecord) -> Option<u64> {
        let layout = MaskLayout::of(tensor.dtype, &tensor.shape)?;
        let blobs = tensor.blobs()?;
        let values = blobs.iter().find(|(kind, _)| *kind == BlobKind::Values)?;
        Some(values.1 / layout.width)
    }

    /// Words of all masks of a tensor: ⌈columns / 32⌉ for each row; `None` if it cannot have masks.
    pub fn mask_words(&self, tensor: &TensorRecord) -> Option<u64> {
        Some(MaskLayout::of(tensor.dtype, &tensor.shape)?.mask_bytes() / 4)
    }

    /// Fills `to` with the masks of a tensor stored as masks or groups.
    ///
    /// # Errors
    /// As [`Packed::dense`].
    pub fn masks(&self, tensor: &TensorRecord, to: &mut [u32]) -> Result<()> {
        let layout = MaskLayout::of(tensor.dtype, &tensor.shape);
        let Some(layout) = layout.filter(|m| m.mask_bytes() / 4 == to.len() as u64) else {
            let expected = format!("{} words", to.len());
            let found = format!("{} {:?}", tensor.dtype, tensor.shape);
            return Err(self.fault("wrong size of masks", &expected, found));
        };
        let source = self.source()?;
        let mut masks = self.mask_reader(&source, tensor, layout)?;
        let band = (layout.band_rows() * layout.words()) as usize;
        to.chunks_mut(band).try_for_each(|words| masks.next(words))?;
        masks.finish()
    }
}

const WRONG_SIZE: &str = "wrong size of a blob";

/// Fails for a file of another version, with that version, and for a file of another format.
fn check_version(container: &Shard) -> Result<()> {
    let own = |blob: &&TensorInfo| blob.name.starts_with(ANY_VERSION);
    match container.tensors.iter().find(own) {
        Some(blob) if blob.name == CONTENTS || blob.name == SEAL => Ok(()),
        Some(blob) => {
            let version = blob.name.split(':').next().unwrap_or_default();
            let found = printable(version);
            Err(Malformed::new(&container.path, "unsupported version of the format", SCHEMA, found)
                .with_hint("a newer physarium packed this file: unpack it with that version")
                .into())
        }
        None => {
            let found = "another safetensors file";
            let what = "not a packed file";
            Err(Malformed::new(&container.path, what, "a .physpack file", found)
                .with_hint("`physarium pack` creates one from a checkpoint directory")
                .into())
        }
    }
}

/// Whether a path stays inside the directory that it is joined to, on every operating system.
fn is_plain(path: &str) -> bool {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let names = path.split('/').all(|name| !name.is_empty() && name != "." && name != "..");
    plain && names && !path.contains(['\0', '\\'])
}
