/*!
Reading a packed file.

Opening checks the container, the seal and the record against each other, so that every byte of the file
is under a digest; a blob's own is checked whenever it is read.
*/

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Component, Path};

use physarium_checkpoint::{
    Blake3, Digest, Dtype, Error, Malformed, Shard, Source, TensorInfo, printable,
};

use crate::Result;
use crate::contents::{
    ALIGNMENT, ANY_VERSION, BlobKind, BlobRecord, CONTENTS, Contents, FileRecord, Form, SCHEMA,
    SEAL, TensorRecord,
};
use crate::groups::{Coder, Groups};
use crate::mask_layout::MaskLayout;

/// Largest record that is read, in bytes.
const MAX_CONTENTS: u64 = 1 << 30;
/// Bytes that are read at once.
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
    /// Opens a packed file and checks its container, seal and record.
    ///
    /// # Errors
    /// `Malformed` naming what is not as the format says, or a version that this program does not know;
    /// `Io`.
    pub fn open(path: &Path) -> Result<Packed> {
        let container = Shard::open(path)?;
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
            let expected = "bytes that begin at a multiple of 64";
            return Err(Malformed::new(path, "blob", expected, found).with_tensor(name).into());
        }
        let blob = |name: &str| {
            bounds
                .get(name)
                .cloned()
                .ok_or_else(|| Error::from(Malformed::new(path, "blob is missing", name, "none")))
        };
        let (text, seal) = (blob(CONTENTS)?, blob(SEAL)?);
        if text.end - text.start > MAX_CONTENTS || seal.end - seal.start != 64 {
            let found = format!("{} and {} bytes", text.end - text.start, seal.end - seal.start);
            return Err(fault("sizes of contents and seal", "up to 1 GiB and 64 bytes", found));
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
            let offset = 0;
            let fault = Malformed::new(path, "header", "the one that is sealed", "another");
            return Err(fault.with_offset(offset).with_hint(DAMAGED).into());
        }
        if sealed[32..] != blake3 {
            let fault = Malformed::new(path, "contents", "those that are sealed", "others");
            return Err(fault.with_offset(text.start).with_hint(DAMAGED).into());
        }
        let contents: Contents = serde_json::from_slice(&json).map_err(|e| {
            fault("contents", "a record of this version", printable(&e.to_string()))
        })?;
        let packed = Packed { container, contents, bounds };
        packed.check()?;
        Ok(packed)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.container.path
    }

    /// Size of the file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.container.size_bytes()
    }

    /// Bytes of the directory's files.
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

    /// Opens the file again, proven unchanged.
    pub(crate) fn source(&self) -> Result<Source> {
        self.container.reopen()
    }

    /// Record against blobs: all there, of the sizes that the forms ask for, and no others.
    fn check(&self) -> Result<()> {
        if self.contents.schema != SCHEMA {
            let found = printable(&self.contents.schema);
            return Err(self.fault("schema of the contents", SCHEMA, found));
        }
        for (name, blob) in &self.contents.blobs {
            let bytes = self.bounds.get(name).map(|bounds| bounds.end - bounds.start);
            if bytes != blob.size_bytes.checked_next_multiple_of(ALIGNMENT) {
                let expected = format!("{} bytes and padding in blob {name}", blob.size_bytes);
                return Err(self.fault("blob", &expected, format!("{bytes:?}")));
            }
        }
        let mut wanted = 0;
        let mut want = |kind: BlobKind, name: &str, size: u64| {
            wanted += 1;
            let blob = kind.of(name);
            match self.contents.blobs.get(&blob) {
                Some(found) if found.size_bytes == size => Ok(()),
                found => {
                    let found = found.map_or("none".to_owned(), |b| b.size_bytes.to_string());
                    let expected = format!("{size} bytes in blob {}", printable(&blob));
                    Err(self.fault("blob", &expected, found))
                }
            }
        };
        let mut paths: Vec<&str> = Vec::new();
        for file in &self.contents.files {
            if !is_plain(&file.path) {
                let found = printable(&file.path);
                return Err(self.fault("path of a file", "plain names below the output", found));
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
                    self.fault("form of a tensor", "one that the shape has room for", found)
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
            // The same path, or one below the other.
            pair[1]
                .strip_prefix(pair[0])
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if let Some(pair) = twice {
            return Err(self.fault("paths of files", "each once", printable(pair[1])));
        }
        // Contents and seal have no record.
        if wanted != self.contents.blobs.len() || self.bounds.len() != wanted + 2 {
            let found = format!("{} and {}", self.contents.blobs.len(), self.bounds.len());
            return Err(self.fault("number of blobs", &format!("{wanted} and two"), found));
        }
        Ok(())
    }

    /// Reads a blob from front to back, in pieces of at most 1 MiB; its digest is checked at the end.
    pub(crate) fn read_pieces(
        &self,
        source: &Source,
        kind: BlobKind,
        name: &str,
        visit: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut reader = self.reader(source, kind, name)?;
        let mut visit = visit;
        let mut piece = vec![0; PIECE_BYTES.min(reader.left as usize)];
        while reader.left > 0 {
            let piece = &mut piece[..PIECE_BYTES.min(reader.left as usize)];
            reader.next(piece)?;
            visit(piece)?;
        }
        reader.finish()
    }

    /// A blob to be read in parts.
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
        let (at, end, left, record) = (bounds.start, bounds.end, record.size_bytes, *record);
        Ok(BlobReader {
            packed: self,
            source,
            name,
            at,
            end,
            left,
            record,
            blake3: Blake3::default(),
        })
    }

    fn read_whole(&self, source: &Source, kind: BlobKind, name: &str, to: &mut [u8]) -> Result<()> {
        let mut reader = self.reader(source, kind, name)?;
        if reader.left != to.len() as u64 {
            let expected = format!("{} bytes in blob {}", to.len(), printable(&reader.name));
            return Err(self.fault("blob", &expected, reader.left.to_string()));
        }
        to.chunks_mut(PIECE_BYTES).try_for_each(|piece| reader.next(piece))?;
        reader.finish()
    }

    /// A file of the directory that is no shard, if there is one at this path.
    ///
    /// # Errors
    /// `Malformed` for one larger than `limit` bytes or not as its digest says; `Io`, `InputChanged`.
    pub fn file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let mut files = self.contents.files.iter().filter(|file| file.tensors.is_none());
        let Some(file) = files.find(|file| file.path == path) else { return Ok(None) };
        if file.size_bytes > limit {
            let found = format!("{} bytes", file.size_bytes);
            return Err(self.fault("packed file", &format!("at most {limit} bytes"), found));
        }
        let mut bytes = vec![0; file.size_bytes as usize];
        self.read_whole(&self.source()?, BlobKind::File, path, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Fills `to` with the bytes of a tensor stored as it is.
    ///
    /// # Errors
    /// `Malformed` for a tensor of another form or size, or not as its digest says; `Io`,
    /// `InputChanged`.
    pub fn dense(&self, tensor: &TensorRecord, to: &mut [u8]) -> Result<()> {
        self.read_whole(&self.source()?, BlobKind::Dense, &tensor.name, to)
    }

    /// Fills `to` with the values of a tensor that is not stored as it is.
    ///
    /// # Errors
    /// As [`Packed::dense`].
    pub fn values(&self, tensor: &TensorRecord, to: &mut [u8]) -> Result<()> {
        self.read_whole(&self.source()?, BlobKind::Values, &tensor.name, to)
    }

    /// Number of values of a tensor that is not stored as it is.
    pub fn value_count(&self, tensor: &TensorRecord) -> Option<u64> {
        let layout = MaskLayout::of(tensor.dtype, &tensor.shape)?;
        let blobs = tensor.blobs()?;
        let values = blobs.iter().find(|(kind, _)| *kind == BlobKind::Values)?;
        Some(values.1 / layout.width)
    }

    /// Words of all masks of a tensor that is not stored as it is: ⌈columns / 32⌉ for each row.
    pub fn mask_words(&self, tensor: &TensorRecord) -> Option<u64> {
        Some(MaskLayout::of(tensor.dtype, &tensor.shape)?.mask_bytes() / 4)
    }

    /// Fills `to` with the masks of a tensor that is not stored as it is.
    ///
    /// # Errors
    /// As [`Packed::dense`].
    pub fn masks(&self, tensor: &TensorRecord, to: &mut [u32]) -> Result<()> {
        let layout = MaskLayout::of(tensor.dtype, &tensor.shape);
        let Some(layout) = layout.filter(|m| m.mask_bytes() / 4 == to.len() as u64) else {
            let found = format!("{} {:?}", tensor.dtype, tensor.shape);
            return Err(self.fault("tensor", "one that has masks", found));
        };
        let source = self.source()?;
        let mut masks = MaskReader::new(self, &source, tensor, layout)?;
        let band = (layout.band_rows() * layout.words()) as usize;
        to.chunks_mut(band).try_for_each(|words| masks.next(words))?;
        masks.finish()
    }
}

const DAMAGED: &str = "the file is damaged: pack or fetch it again";

/// Refuses files of other versions by that name, and files that are something else.
fn check_version(container: &Shard) -> Result<()> {
    let own = |blob: &&TensorInfo| blob.name.starts_with(ANY_VERSION);
    match container.tensors.iter().find(own) {
        Some(blob) if blob.name == CONTENTS || blob.name == SEAL => Ok(()),
        Some(blob) => {
            let version = blob.name.split(':').next().unwrap_or_default();
            let found = printable(version);
            Err(Malformed::new(&container.path, "version of the format", SCHEMA, found)
                .with_hint("a newer physarium packed this file: use that one to unpack it")
                .into())
        }
        None => {
            let found = "a safetensors file of tensors";
            let what = "not a packed file";
            Err(Malformed::new(&container.path, what, "a .physpack file", found)
                .with_hint("`physarium pack` makes one out of a checkpoint directory")
                .into())
        }
    }
}

/// Whether a path stays below the directory that it is joined to, whatever the system.
fn is_plain(path: &str) -> bool {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let names = path.split('/').all(|name| !name.is_empty() && name != "." && name != "..");
    plain && names && !path.contains(['\0', '\\'])
}

/// A blob from front to back.
pub(crate) struct BlobReader<'a> {
    packed: &'a Packed,
    source: &'a Source,
    name: String,
    at: u64,
    end: u64,
    /// Bytes before the padding that are still to come.
    left: u64,
    record: BlobRecord,
    blake3: Blake3,
}

impl BlobReader<'_> {
    /// The next bytes.
    pub(crate) fn next(&mut self, to: &mut [u8]) -> Result<()> {
        if to.len() as u64 > self.left {
            let expected = format!("{} bytes more in blob {}", to.len(), printable(&self.name));
            return Err(self.packed.fault("blob", &expected, self.left.to_string()));
        }
        self.source.read_exact_at(to, self.at)?;
        self.blake3.update(to);
        self.at += to.len() as u64;
        self.left -= to.len() as u64;
        Ok(())
    }

    /// Proves that all was read, and that it is what was packed.
    pub(crate) fn finish(mut self) -> Result<()> {
        let mut padding = vec![0; (self.end - self.at - self.left) as usize];
        let read_all = self.left == 0;
        let begin = self.end - padding.len() as u64;
        self.source.read_exact_at(&mut padding, begin)?;
        self.blake3.update(&padding);
        if read_all && self.blake3.finish() == self.record.blake3 {
            return Ok(());
        }
        let path = self.packed.path();
        let expected = format!("BLAKE3 {}", self.record.blake3);
        let begin = self.end - self.record.size_bytes.next_multiple_of(ALIGNMENT);
        let what =
            if read_all { "digest of a blob" } else { "values of a blob: masks ask for fewer" };
        Err(Malformed::new(path, what, expected, "other bytes")
            .with_tensor(&self.name)
            .with_offset(begin)
            .with_hint(DAMAGED)
            .into())
    }
}

/// The masks of a tensor, row by row, whatever form they are stored in.
pub(crate) struct MaskReader<'a> {
    reader: BlobReader<'a>,
    coder: Option<(Coder, usize, usize)>,
    words: usize,
    bytes: Vec<u8>,
}

impl<'a> MaskReader<'a> {
    pub(crate) fn new(
        packed: &'a Packed,
        source: &'a Source,
        tensor: &TensorRecord,
        layout: MaskLayout,
    ) -> Result<MaskReader<'a>> {
        let words = layout.words() as usize;
        let (kind, coder) = match tensor.form {
            Form::Groups { keep, of } => {
                let groups = Groups { keep, of };
                let row = (
                    groups.row_bytes(layout.cols) as usize,
                    (layout.cols / u64::from(of)) as usize,
                );
                (BlobKind::Groups, Some((Coder::new(groups), row.0, row.1)))
            }
            Form::Mask { .. } | Form::Dense => (BlobKind::Mask, None),
        };
        let reader = packed.reader(source, kind, &tensor.name)?;
        Ok(MaskReader { reader, coder, words, bytes: Vec::new() })
    }

    /// Fills whole rows of words.
    pub(crate) fn next(&mut self, rows: &mut [u32]) -> Result<()> {
        let Some((coder, row_bytes, groups)) = &self.coder else {
            self.bytes.resize(rows.len() * 4, 0);
            self.reader.next(&mut self.bytes)?;
            for (word, bytes) in rows.iter_mut().zip(self.bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            return Ok(());
        };
        let count = rows.len() / self.words;
        self.bytes.resize(count * row_bytes, 0);
        self.reader.next(&mut self.bytes)?;
        let codes = self.bytes.chunks_exact(*row_bytes);
        for (words, codes) in rows.chunks_exact_mut(self.words).zip(codes) {
            if coder.decode(codes, *groups, words).is_none() {
                let name = &self.reader.name;
                let what = "codes of groups";
                return Err(Malformed::new(
                    self.reader.packed.path(),
                    what,
                    "codes of masks",
                    "another",
                )
                .with_tensor(name)
                .into());
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.reader.finish()
    }
}
