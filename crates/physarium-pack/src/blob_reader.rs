//! Reading a blob of a packed file in order, with its digest checked at the end.

use std::ops::Range;
use std::path::Path;

use physarium_checkpoint::{Blake3, Malformed, Source, printable};

use crate::Result;
use crate::contents::{ALIGNMENT, BlobRecord};
use crate::groups::{Coder, Groups};
use crate::mask_layout::MaskLayout;

/// The hint for a file that does not match its digests.
pub(crate) const DAMAGED: &str = "the file is damaged: pack or fetch it again";
const COUNTS_DIFFER: &str = "mask and value counts differ";

/// A blob in a packed file.
pub(crate) struct StoredBlob<'a> {
    /// The packed file.
    pub path: &'a Path,
    pub name: String,
    /// Its bytes in the file, padding included.
    pub bounds: Range<u64>,
    pub record: BlobRecord,
}

/// Reads a blob in order.
pub(crate) struct BlobReader<'a> {
    source: &'a Source,
    blob: StoredBlob<'a>,
    /// The next byte in the file.
    at: u64,
    /// Bytes before the padding that are not read yet.
    left: u64,
    blake3: Blake3,
}

impl<'a> BlobReader<'a> {
    pub(crate) fn new(source: &'a Source, blob: StoredBlob<'a>) -> BlobReader<'a> {
        let (at, left) = (blob.bounds.start, blob.record.size_bytes);
        BlobReader { source, blob, at, left, blake3: Blake3::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.blob.name
    }

    /// Bytes that are not read yet, without padding.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Fills `to` with the next bytes.
    pub(crate) fn next(&mut self, to: &mut [u8]) -> Result<()> {
        if to.len() as u64 > self.left {
            let expected = format!("{} more bytes in blob {}", to.len(), printable(self.name()));
            let found = self.left.to_string();
            return Err(Malformed::new(self.blob.path, COUNTS_DIFFER, expected, found).into());
        }
        self.source.read_exact_at(to, self.at)?;
        self.blake3.update(to);
        self.at += to.len() as u64;
        self.left -= to.len() as u64;
        Ok(())
    }

    /// Checks that the whole blob was read, and that it matches its digest.
    pub(crate) fn finish(mut self) -> Result<()> {
        let StoredBlob { path, name, bounds, record } = self.blob;
        if self.left > 0 {
            let expected = format!("{} bytes", record.size_bytes - self.left);
            let found = format!("{} bytes", record.size_bytes);
            return Err(Malformed::new(path, COUNTS_DIFFER, expected, found)
                .with_tensor(name)
                .with_hint(DAMAGED)
                .into());
        }
        let mut padding = vec![0; (bounds.end - self.at) as usize];
        self.source.read_exact_at(&mut padding, self.at)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Malformed::new(path, "padding of a blob", "zeros", "other bytes")
                .with_tensor(name)
                .with_offset(self.at)
                .with_hint(DAMAGED)
                .into());
        }
        self.blake3.update(&padding);
        if self.blake3.finish() == record.blake3 {
            return Ok(());
        }
        let expected = format!("BLAKE3 {}", record.blake3);
        let begin = bounds.end - record.size_bytes.next_multiple_of(ALIGNMENT);
        Err(Malformed::new(path, "blob does not match its digest", expected, "another")
            .with_tensor(name)
            .with_offset(begin)
            .with_hint(DAMAGED)
            .into())
    }
}

/// Reads the masks of a tensor row by row, from masks or from codes of groups.
pub(crate) struct MaskReader<'a> {
    reader: BlobReader<'a>,
    codes: Option<RowCodes>,
    /// Words of the mask of a row.
    words: usize,
    bytes: Vec<u8>,
}

/// The codes in a row of a tensor.
struct RowCodes {
    coder: Coder,
    bytes: usize,
    groups: usize,
}

impl<'a> MaskReader<'a> {
    /// Reads codes of `pattern` if there is one, otherwise masks.
    pub(crate) fn new(
        reader: BlobReader<'a>,
        layout: MaskLayout,
        pattern: Option<Groups>,
    ) -> MaskReader<'a> {
        let codes = pattern.map(|pattern| RowCodes {
            coder: Coder::new(pattern),
            bytes: pattern.row_bytes(layout.cols) as usize,
            groups: (layout.cols / u64::from(pattern.of)) as usize,
        });
        MaskReader { reader, codes, words: layout.words() as usize, bytes: Vec::new() }
    }

    /// Fills `rows` with the masks of the next rows, which must be whole.
    pub(crate) fn next(&mut self, rows: &mut [u32]) -> Result<()> {
        let Some(codes) = &self.codes else {
            self.bytes.resize(rows.len() * 4, 0);
            self.reader.next(&mut self.bytes)?;
            for (word, bytes) in rows.iter_mut().zip(self.bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            return Ok(());
        };
        self.bytes.resize(rows.len() / self.words * codes.bytes, 0);
        self.reader.next(&mut self.bytes)?;
        let coded = self.bytes.chunks_exact(codes.bytes);
        let decoded = rows
            .chunks_exact_mut(self.words)
            .zip(coded)
            .try_for_each(|(words, bytes)| codes.coder.decode(bytes, codes.groups, words));
        decoded.ok_or_else(|| {
            let path = self.reader.blob.path;
            Malformed::new(path, "invalid code of a group", "the code of a mask", "another")
                .with_tensor(self.reader.name())
                .into()
        })
    }

    /// Checks that all masks were read, and that they match their digest.
    pub(crate) fn finish(self) -> Result<()> {
        self.reader.finish()
    }
}
