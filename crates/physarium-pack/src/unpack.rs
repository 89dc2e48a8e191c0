//! Unpacking: restores the directory byte for byte, and verifies the digest of every file before it is published.

use std::path::Path;

use physarium_checkpoint::{Malformed, NewDirectory, NewInside, Sha256, Source};

use crate::Result;
use crate::contents::{BlobKind, FileRecord, Form, TensorRecord};
use crate::mask_layout::{MaskLayout, place};
use crate::packed::Packed;

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpackSummary {
    /// Number of files in the directory.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Unpacks a checkpoint. `on_bytes` is called with the number of output bytes written since the last call; an error
/// that it returns stops the work.
///
/// # Errors
/// `Malformed` for a damaged file; `Output`, `Locked`, `NoSpace`, `Io`, `InputChanged`, and what `on_bytes` returns.
/// No directory of that name is created then.
pub fn unpack(
    packed: &Packed,
    out: &Path,
    on_bytes: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<UnpackSummary> {
    let bytes = packed.unpacked_bytes();
    let mut dir = NewDirectory::create(out, packed.path(), bytes)?;
    let source = packed.source()?;
    for record in packed.files() {
        let file = dir.create_file(Path::new(&record.path))?;
        let mut unpacker =
            Unpacker { packed, source: &source, file, sha256: Sha256::default(), on_bytes };
        match &record.tensors {
            None => unpacker.blob(BlobKind::File, &record.path)?,
            Some(tensors) => {
                unpacker.blob(BlobKind::Header, &record.path)?;
                for tensor in tensors {
                    unpacker.tensor(tensor)?;
                }
            }
        }
        unpacker.finish(record)?;
    }
    dir.publish()?;
    Ok(UnpackSummary { files: packed.files().len(), bytes })
}

/// A file while it is unpacked.
struct Unpacker<'a> {
    packed: &'a Packed,
    source: &'a Source,
    file: NewInside,
    sha256: Sha256,
    on_bytes: &'a mut dyn FnMut(u64) -> Result<()>,
}

impl Unpacker<'_> {
    /// Appends bytes to the file.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sha256.update(bytes);
        self.file.append(bytes)?;
        (self.on_bytes)(bytes.len() as u64)
    }

    /// Appends a whole blob.
    fn blob(&mut self, kind: BlobKind, name: &str) -> Result<()> {
        let (packed, source) = (self.packed, self.source);
        packed.read_pieces(source, kind, name, |piece| self.write(piece))
    }

    /// Appends the bytes of a tensor.
    fn tensor(&mut self, tensor: &TensorRecord) -> Result<()> {
        let layout = match (tensor.form, MaskLayout::of(tensor.dtype, &tensor.shape)) {
            (Form::Mask { .. } | Form::Groups { .. }, Some(layout)) => layout,
            _ => return self.blob(BlobKind::Dense, &tensor.name),
        };
        let (packed, source) = (self.packed, self.source);
        let mut masks = packed.mask_reader(source, tensor, layout)?;
        let mut values = packed.reader(source, BlobKind::Values, &tensor.name)?;
        let (mut words, mut band_values, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut row = 0;
        while row < layout.rows {
            let count = layout.band_rows().min(layout.rows - row);
            words.resize((count * layout.words()) as usize, 0);
            masks.next(&mut words)?;
            let ones: usize = words.iter().map(|word| word.count_ones() as usize).sum();
            band_values.resize(ones * layout.width as usize, 0);
            values.next(&mut band_values)?;
            rows.resize((count * layout.row_bytes()) as usize, 0);
            self.check_ends(layout, &words, tensor)?;
            place(layout, &words, &band_values, &mut rows);
            self.write(&rows)?;
            row += count;
        }
        masks.finish()?;
        values.finish()
    }

    /// Fails if a mask has ones after the end of its row.
    fn check_ends(&self, layout: MaskLayout, words: &[u32], tensor: &TensorRecord) -> Result<()> {
        let rest = layout.cols % 32;
        let beyond = |row: &[u32]| row.last().is_some_and(|last| rest > 0 && last >> rest != 0);
        if words.chunks_exact(layout.words() as usize).any(beyond) {
            let (what, expected) = ("invalid mask", "no ones after the end of a row");
            return Err(Malformed::new(self.packed.path(), what, expected, "some")
                .with_tensor(&tensor.name)
                .into());
        }
        Ok(())
    }

    /// Checks that the file is the one that was packed, and makes it durable.
    fn finish(self, record: &FileRecord) -> Result<()> {
        let found = self.sha256.finish();
        if found != record.sha256 {
            let expected = format!("SHA-256 {}", record.sha256);
            return Err(Malformed::new(
                self.packed.path(),
                "unpacked file does not match its digest",
                expected,
                found.to_string(),
            )
            .with_tensor(&record.path)
            .into());
        }
        self.file.finish()
    }
}
