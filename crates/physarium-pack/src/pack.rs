/*!
Packing: a checkpoint directory to one file.

Each shard is read from front to back; a projection is read twice, once for its masks, which stay in
memory, and once for its values. The header comes first in the file and is written last, into room that
was left for it; the file gets its name when everything is in it.
*/

use std::collections::BTreeMap;
use std::path::Path;

use physarium_checkpoint::{
    Blake3, Checkpoint, Digest, Disposition, Dtype, LinkPolicy, NewFile, Overwrite, Purpose,
    Sha256, Shard, Sidecar, Source, TensorInfo,
};

use crate::Result;
use crate::census::Census;
use crate::contents::{
    ALIGNMENT, BlobKind, BlobRecord, CONTENTS, Contents, FileRecord, Form, SCHEMA, SEAL,
    TensorRecord,
};
use crate::groups::{Coder, Groups};
use crate::matrix::{Matrix, masks_of, select};

/// Bytes that the header's entry of a blob takes beside its name.
const ENTRY_BYTES: u64 = 120;

/// What is packed where.
#[derive(Debug)]
pub struct PackRequest<'a> {
    /// The directory.
    pub checkpoint: &'a Checkpoint,
    /// The file.
    pub out: &'a Path,
    /// What to do with a file that is in the way.
    pub overwrite: Overwrite,
    /// What to do with links out of the directory.
    pub links: LinkPolicy,
    /// Program and version, for the record.
    pub tool: &'a str,
}

/// Bytes of some tensors before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TensorSizes {
    /// Tensors.
    pub tensors: u64,
    /// Their bytes in the checkpoint.
    pub dense: u64,
    /// Their bytes in the packed file.
    pub packed: u64,
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackSummary {
    /// Bytes of all files that were packed.
    pub input_bytes: u64,
    /// Bytes of the packed file.
    pub output_bytes: u64,
    /// Projections stored as masks and values.
    pub masked: TensorSizes,
    /// Projections stored as groups and values.
    pub grouped: TensorSizes,
    /// Projections that would not have become smaller.
    pub dense_projections: TensorSizes,
    /// Files that are not in the packed file, with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

/// Packs. `on_bytes` is told of bytes of the input that are done; it stops the work by an error.
///
/// # Errors
/// `Output`, `Locked`, `NoSpace`, `Io`, `InputChanged`; nothing has appeared under the name then.
pub fn pack(
    request: &PackRequest<'_>,
    on_bytes: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<PackSummary> {
    let checkpoint = request.checkpoint;
    let sidecars = Sidecar::list(checkpoint, Purpose::Archive, request.links)?;
    let shards: u64 = checkpoint.shards().iter().map(Shard::size_bytes).sum();
    let files: u64 = sidecars.iter().map(|sidecar| sidecar.size_bytes).sum();
    let room = header_room(checkpoint, &sidecars);
    let out = NewFile::create(
        request.out,
        checkpoint.dir(),
        shards + files + 4 * room,
        request.overwrite,
    )?;
    let mut packer = Packer::begin(out, room, on_bytes)?;
    let mut records = Vec::new();
    for shard in checkpoint.shards() {
        records.push(packer.shard(shard)?);
    }
    let mut left_out = Vec::new();
    for sidecar in &sidecars {
        // Names that are not UTF-8 are left out when files are listed.
        let path = sidecar.path.to_string_lossy().into_owned();
        match sidecar.disposition {
            Disposition::Copy => records.push(packer.file(checkpoint.dir(), path)?),
            Disposition::LeftOut(why) => left_out.push((path, why)),
        }
    }
    let mut summary = PackSummary {
        input_bytes: shards + files,
        output_bytes: 0,
        masked: TensorSizes::default(),
        grouped: TensorSizes::default(),
        dense_projections: TensorSizes::default(),
        left_out,
    };
    for tensor in records.iter().flat_map(|file| file.tensors.iter().flatten()) {
        summary.count(tensor);
    }
    summary.output_bytes = packer.publish(request.tool, records)?;
    Ok(summary)
}

impl PackSummary {
    fn count(&mut self, tensor: &TensorRecord) {
        let is_projection = physarium_checkpoint::Named::of_default_target(&tensor.name).is_some();
        let sizes = match tensor.form {
            Form::Mask { .. } => &mut self.masked,
            Form::Groups { .. } => &mut self.grouped,
            Form::Dense if is_projection => &mut self.dense_projections,
            Form::Dense => return,
        };
        sizes.tensors += 1;
        sizes.dense += tensor.shape.iter().product::<u64>() * tensor.dtype.bits() / 8;
        sizes.packed += tensor.stored_bytes();
    }
}

/// Bytes that the header takes at most, with its length.
fn header_room(checkpoint: &Checkpoint, sidecars: &[Sidecar]) -> u64 {
    let entry = |name: &str| serde_json::Value::from(name).to_string().len() as u64 + ENTRY_BYTES;
    let tensors = checkpoint.tensors().map(|(_, tensor)| 2 * entry(&tensor.name));
    let shards = checkpoint.shards().iter().map(|shard| entry(&shard.name));
    let files = sidecars.iter().map(|sidecar| entry(&sidecar.path.to_string_lossy()));
    let own = [CONTENTS, SEAL].map(entry).into_iter();
    let total: u64 = tensors.chain(shards).chain(files).chain(own).sum();
    (total + ENTRY_BYTES).next_multiple_of(ALIGNMENT)
}

/// A packed file while it is written.
struct Packer<'a> {
    out: NewFile,
    /// Bytes left for the header.
    room: u64,
    /// Names and padded bounds of blobs, from the end of the header on, in their order.
    entries: Vec<(String, [u64; 2])>,
    blobs: BTreeMap<String, BlobRecord>,
    on_bytes: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// A blob while it is written.
struct Blob {
    name: String,
    begin: u64,
    blake3: Blake3,
}

impl<'a> Packer<'a> {
    fn begin(
        mut out: NewFile,
        room: u64,
        on_bytes: &'a mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Packer<'a>> {
        out.append(&vec![0; room as usize])?;
        Ok(Packer { out, room, entries: Vec::new(), blobs: BTreeMap::new(), on_bytes })
    }

    fn begin_blob(&self, kind: BlobKind, name: &str) -> Blob {
        Blob { name: kind.of(name), begin: self.out.written(), blake3: Blake3::default() }
    }

    fn append(&mut self, blob: &mut Blob, bytes: &[u8]) -> Result<()> {
        blob.blake3.update(bytes);
        self.out.append(bytes)
    }

    /// Fills a blob up to where the next one may begin.
    fn end_blob(&mut self, mut blob: Blob) -> Result<()> {
        let size_bytes = self.out.written() - blob.begin;
        let padding = size_bytes.next_multiple_of(ALIGNMENT) - size_bytes;
        self.append(&mut blob, &[0; ALIGNMENT as usize][..padding as usize])?;
        let Blob { name, begin, blake3 } = blob;
        self.entries.push((name.clone(), [begin, self.out.written()]));
        self.blobs.insert(name, BlobRecord { size_bytes, blake3: blake3.finish() });
        Ok(())
    }

    fn whole_blob(&mut self, kind: BlobKind, name: &str, bytes: &[u8]) -> Result<()> {
        let mut blob = self.begin_blob(kind, name);
        self.append(&mut blob, bytes)?;
        self.end_blob(blob)
    }

    /// A file as it is.
    fn file(&mut self, dir: &Path, path: String) -> Result<FileRecord> {
        let source = Source::open(&dir.join(&path))?;
        let mut sha256 = Sha256::default();
        let mut blob = self.begin_blob(BlobKind::File, &path);
        source.read_pieces(0..source.len(), |piece| {
            sha256.update(piece);
            self.append(&mut blob, piece)?;
            (self.on_bytes)(piece.len() as u64)
        })?;
        self.end_blob(blob)?;
        source.check_unchanged(source.identity())?;
        Ok(FileRecord { path, size_bytes: source.len(), sha256: sha256.finish(), tensors: None })
    }

    /// A shard: its header, then its tensors in the order of their bytes.
    fn shard(&mut self, shard: &Shard) -> Result<FileRecord> {
        let source = shard.reopen()?;
        let mut sha256 = Sha256::default();
        let mut header = vec![0; shard.data_begin as usize];
        source.read_exact_at(&mut header, 0)?;
        sha256.update(&header);
        self.whole_blob(BlobKind::Header, &shard.name, &header)?;
        (self.on_bytes)(shard.data_begin)?;
        let mut tensors = Vec::with_capacity(shard.tensors.len());
        for tensor in &shard.tensors {
            let form = match Matrix::of_projection(tensor) {
                Some(matrix) => self.projection(&source, tensor, matrix, &mut sha256)?,
                None => self.dense(&source, tensor, Some(&mut sha256))?,
            };
            let TensorInfo { name, dtype, shape, .. } = tensor.clone();
            tensors.push(TensorRecord { name, dtype, shape, form });
            (self.on_bytes)(tensor.size_bytes())?;
        }
        source.check_unchanged(&shard.identity)?;
        Ok(FileRecord {
            path: shard.name.clone(),
            size_bytes: shard.size_bytes(),
            sha256: sha256.finish(),
            tensors: Some(tensors),
        })
    }

    fn dense(
        &mut self,
        source: &Source,
        tensor: &TensorInfo,
        mut sha256: Option<&mut Sha256>,
    ) -> Result<Form> {
        let mut blob = self.begin_blob(BlobKind::Dense, &tensor.name);
        source.read_pieces(tensor.begin..tensor.end, |piece| {
            if let Some(sha256) = &mut sha256 {
                sha256.update(piece);
            }
            self.append(&mut blob, piece)?;
            // Nothing more is done, but a large tensor may be interrupted.
            (self.on_bytes)(0)
        })?;
        self.end_blob(blob)?;
        Ok(Form::Dense)
    }

    /// A projection in the form that takes the fewest bytes.
    fn projection(
        &mut self,
        source: &Source,
        tensor: &TensorInfo,
        matrix: Matrix,
        sha256: &mut Sha256,
    ) -> Result<Form> {
        let mut masks = Vec::with_capacity((matrix.mask_bytes() / 4) as usize);
        bands(source, tensor, matrix, |rows| {
            sha256.update(rows);
            masks_of(matrix, rows, &mut masks);
            (self.on_bytes)(0)
        })?;
        let mut census = Census::new(matrix, masks);
        let form = census.form();
        match form {
            Form::Dense => return self.dense(source, tensor, None),
            Form::Mask { .. } => {
                let bytes: Vec<u8> = census.masks.iter().flat_map(|m| m.to_le_bytes()).collect();
                self.whole_blob(BlobKind::Mask, &tensor.name, &bytes)?;
            }
            Form::Groups { keep, of } => {
                let coder = Coder::new(Groups { keep, of });
                census.fill(&coder);
                let mut codes = Vec::new();
                for row in census.masks.chunks_exact(matrix.words() as usize) {
                    coder.encode(row, (matrix.cols / u64::from(of)) as usize, &mut codes);
                }
                self.whole_blob(BlobKind::Groups, &tensor.name, &codes)?;
            }
        }
        let mut blob = self.begin_blob(BlobKind::Values, &tensor.name);
        let (mut masks, mut values) = (&census.masks[..], Vec::new());
        bands(source, tensor, matrix, |rows| {
            let words = rows.len() / matrix.row_bytes() as usize * matrix.words() as usize;
            let (here, rest) = masks.split_at(words);
            masks = rest;
            values.clear();
            select(matrix, here, rows, &mut values);
            self.append(&mut blob, &values)?;
            (self.on_bytes)(0)
        })?;
        self.end_blob(blob)?;
        Ok(form)
    }

    /// Writes contents, seal and header, and has the file appear. Returns its size in bytes.
    fn publish(mut self, tool: &str, files: Vec<FileRecord>) -> Result<u64> {
        let contents = Contents {
            schema: SCHEMA.to_owned(),
            tool: tool.to_owned(),
            files,
            blobs: std::mem::take(&mut self.blobs),
        };
        let mut text = serde_json::to_vec(&contents).expect("contents are plain JSON");
        text.resize(text.len().next_multiple_of(ALIGNMENT as usize), b' ');
        let begin = self.out.written();
        self.out.append(&text)?;
        self.entries.push((CONTENTS.to_owned(), [begin, self.out.written()]));
        let begin = self.out.written();
        self.out.append(&[0; 64])?;
        self.entries.push((SEAL.to_owned(), [begin, self.out.written()]));
        let header = self.header();
        let Digest(sha256) = Sha256::of(&header);
        let mut blake3 = Blake3::default();
        blake3.update(&text);
        let Digest(blake3) = blake3.finish();
        self.out.rewrite(&[sha256, blake3].concat(), begin)?;
        self.out.rewrite(&header, 0)?;
        let bytes = self.out.written();
        self.out.publish()?;
        Ok(bytes)
    }

    /// The header with its length, filled up with blanks to the room that was left for it.
    fn header(&self) -> Vec<u8> {
        let mut entries = serde_json::Map::new();
        let metadata = serde_json::json!({ "format": SCHEMA });
        entries.insert("__metadata__".to_owned(), metadata);
        for (name, [begin, end]) in &self.entries {
            let entry = serde_json::json!({
                "dtype": Dtype::U8.name(),
                "shape": [end - begin],
                "data_offsets": [begin - self.room, end - self.room],
            });
            entries.insert(name.clone(), entry);
        }
        let mut text = serde_json::Value::Object(entries).to_string().into_bytes();
        let length = self.room - 8;
        assert!(text.len() as u64 <= length, "room for the header");
        text.resize(length as usize, b' ');
        [&length.to_le_bytes(), &text[..]].concat()
    }
}

/// Reads a tensor in bands of whole rows.
fn bands(
    source: &Source,
    tensor: &TensorInfo,
    matrix: Matrix,
    mut visit: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let band = matrix.band_rows() * matrix.row_bytes();
    let mut buffer = vec![0; band.min(tensor.size_bytes()) as usize];
    let mut at = tensor.begin;
    while at < tensor.end {
        let rows = &mut buffer[..band.min(tensor.end - at) as usize];
        source.read_exact_at(rows, at)?;
        visit(rows)?;
        at += rows.len() as u64;
    }
    Ok(())
}
