//! Unpacking: the directory back, byte for byte, each file proven by its digest before any appears.

use std::path::Path;

use physarium_checkpoint::{Malformed, NewDirectory, NewInside, Sha256, Source};

use crate::Result;
use crate::contents::{BlobKind, FileRecord, Form, TensorRecord};
use crate::mask_layout::{MaskLayout, place};
use crate::packed::{MaskReader, Packed};

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpackSummary {
    /// Files of the directory.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Unpacks. `on_bytes` is told of bytes of the output that are done; it stops the work by an error.
///
/// # Errors
/// `Malformed` for a damaged file, `Output`, `Locked`, `NoSpace`, `Io`, `InputChanged`; nothing has
/// appeared under the name then.
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

/// One file on its way out.
struct Unpacker<'a> {
    packed: &'a Packed,
    source: &'a Source,
    file: NewInside,
    sha256: Sha256,
    on_bytes: &'a mut dyn FnMut(u64) -> Result<()>,
}

impl Unpacker<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sha256.update(bytes);
        self.file.append(bytes)?;
        (self.on_bytes)(bytes.len() as u64)
    }

    fn blob(&mut self, kind: BlobKind, name: &str) -> Result<()> {
        let (packed, source) = (self.packed, self.source);
        packed.read_pieces(source, kind, name, |piece| self.write(piece))
    }

    fn tensor(&mut self, tensor: &TensorRecord) -> Result<()> {
        let layout = match (tensor.form, MaskLayout::of(tensor.dtype, &tensor.shape)) {
            (Form::Mask { .. } | Form::Groups { .. }, Some(layout)) => layout,
            _ => return self.blob(BlobKind::Dense, &tensor.name),
        };
        let (packed, source) = (self.packed, self.source);
        let mut masks = MaskReader::new(packed, source, tensor, layout)?;
        let mut values = packed.reader(source, BlobKind::Values, &tensor.name)?;
        let (mut words, mut there, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut row = 0;
        while row < layout.rows {
            let count = layout.band_rows().min(layout.rows - row);
            words.resize((count * layout.words()) as usize, 0);
            masks.next(&mut words)?;
            let ones: usize = words.iter().map(|word| word.count_ones() as usize).sum();
            there.resize(ones * layout.width as usize, 0);
            values.next(&mut there)?;
            rows.resize((count * layout.row_bytes()) as usize, 0);
            self.check_ends(layout, &words, tensor)?;
            place(layout, &words, &there, &mut rows);
            self.write(&rows)?;
            row += count;
        }
        masks.finish()?;
        values.finish()
    }

    /// Masks may have no ones behind a row's end.
    fn check_ends(&self, layout: MaskLayout, words: &[u32], tensor: &TensorRecord) -> Result<()> {
        let rest = layout.cols % 32;
        let beyond = |row: &[u32]| row.last().is_some_and(|last| rest > 0 && last >> rest != 0);
        if words.chunks_exact(layout.words() as usize).any(beyond) {
            let (what, expected) = ("mask", "no ones behind the end of a row");
            return Err(Malformed::new(self.packed.path(), what, expected, "some")
                .with_tensor(&tensor.name)
                .into());
        }
        Ok(())
    }

    /// Proves that the file is the one that was packed.
    fn finish(self, record: &FileRecord) -> Result<()> {
        let found = self.sha256.finish();
        if found != record.sha256 {
            let expected = format!("SHA-256 {}", record.sha256);
            return Err(Malformed::new(
                self.packed.path(),
                "unpacked file",
                expected,
                found.to_string(),
            )
            .with_tensor(&record.path)
            .into());
        }
        self.file.finish()
    }
}
