/*!
Packing a checkpoint directory into one file.

Each shard is read in order. A target is read twice: once for its masks, which are kept in memory, and once for its
values. Targets are the default projections and, in an output of `prune`, the targets of its recipe. The header is at
the beginning of the file and is written last, into space reserved for it. The file is renamed to its own name when
it is complete.
*/

use std::collections::BTreeMap;
use std::path::Path;

use physarium_checkpoint::{
    Blake3, Checkpoint, Digest, Disposition, Dtype, Error, LinkPolicy, Malformed, NewFile,
    Overwrite, Purpose, Sha256, Shard, Sidecar, Source, TensorInfo,
};

use crate::Result;
use crate::census::Census;
use crate::contents::{
    ALIGNMENT, BlobKind, BlobRecord, CONTENTS, Contents, FileRecord, Form, SCHEMA, SEAL,
    TensorRecord,
};
use crate::groups::{Coder, Groups};
use crate::mask_layout::{MaskLayout, count_negative_zeros, masks_of, select};
use crate::packed::{MAX_CONTENTS_BYTES, Packed};
use crate::targets::{Targets, bands};

/// Most bytes of a blob's entry in the header, without its name.
const ENTRY_BYTES: u64 = 120;

/// What to pack where.
#[derive(Debug)]
pub struct PackRequest<'a> {
    /// The checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// The packed file.
    pub out: &'a Path,
    /// What to do with an existing file at that path.
    pub overwrite: Overwrite,
    /// What to do with links to files outside the directory.
    pub links: LinkPolicy,
    /// Program and version, which are recorded in the file.
    pub tool: &'a str,
}

/// Number and bytes of some tensors, before and after packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TensorSizes {
    /// Number of tensors.
    pub tensors: u64,
    /// Their bytes in the checkpoint.
    pub dense: u64,
    /// Their bytes in the packed file.
    pub packed: u64,
}

/// Number of weights that are −0.0, and of the tensors that hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NegativeZeros {
    /// Number of tensors.
    pub tensors: u64,
    /// Number of weights.
    pub elements: u64,
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackSummary {
    /// Bytes of all files that were packed.
    pub input_bytes: u64,
    /// Bytes of the packed file.
    pub output_bytes: u64,
    /// Targets stored as masks and values.
    pub masked: TensorSizes,
    /// Targets stored as codes of groups and values.
    pub grouped: TensorSizes,
    /// Targets stored unchanged, because no other form is smaller.
    pub dense_projections: TensorSizes,
    /// Zeros of targets that are −0.0 and are stored as values, whichever form their target has.
    pub negative_zeros: NegativeZeros,
    /// Files that are not in the packed file, with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

/// Packs a checkpoint. `on_bytes` is called with the number of input bytes packed since the last call; an error that
/// it returns stops the work.
///
/// # Errors
/// `Output`, `Locked`, `NoSpace`, `Io`, `InputChanged`, and what `on_bytes` returns. No file of that name is created
/// or replaced then.
pub fn pack(
    request: &PackRequest<'_>,
    on_bytes: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<PackSummary> {
    let checkpoint = request.checkpoint;
    refuse_other_file(request)?;
    let sidecars = Sidecar::list(checkpoint, Purpose::Archive, request.links)?;
    let shards: u64 = checkpoint.shards().iter().map(Shard::size_bytes).sum();
    let files: u64 = sidecars.iter().map(|sidecar| sidecar.size_bytes).sum();
    let room = header_room(checkpoint, &sidecars);
    // The record of the contents takes up to twice as much as the header.
    if 2 * room > MAX_CONTENTS_BYTES {
        let expected = format!("a record of at most {MAX_CONTENTS_BYTES} bytes");
        let (what, found) = ("too many tensors for a packed file", format!("up to {}", 2 * room));
        return Err(Malformed::new(checkpoint.dir(), what, expected, found).into());
    }
    let out = NewFile::create(
        request.out,
        checkpoint.dir(),
        shards + files + 4 * room,
        request.overwrite,
    )?;
    let targets = Targets::of(checkpoint)?;
    let mut packer = Packer::begin(out, room, targets, on_bytes)?;
    let mut records = Vec::new();
    for shard in checkpoint.shards() {
        records.push(packer.shard(shard)?);
    }
    let mut left_out = Vec::new();
    for sidecar in &sidecars {
        // Files whose names are not UTF-8 are listed as left out.
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
        negative_zeros: packer.negative_zeros,
        left_out,
    };
    for tensor in records.iter().flat_map(|file| file.tensors.iter().flatten()) {
        summary.count(tensor, &packer.targets);
    }
    summary.output_bytes = packer.publish(request.tool, records)?;
    Ok(summary)
}

/// Fails if a file that is to be replaced is no packed file.
fn refuse_other_file(request: &PackRequest<'_>) -> Result<()> {
    let out = request.out;
    let is_file = out.symlink_metadata().is_ok_and(|meta| meta.is_file());
    if request.overwrite == Overwrite::Refuse || !is_file {
        return Ok(());
    }
    match Packed::open(out) {
        Ok(_) => Ok(()),
        Err(Error::Malformed(fault)) => Err(Error::Output {
            path: out.to_owned(),
            what: "output exists",
            expected: "a new file, or a packed file to replace".to_owned(),
            found: format!("another file ({})", fault.what),
        }),
        Err(e) => Err(e),
    }
}

impl PackSummary {
    fn count(&mut self, tensor: &TensorRecord, targets: &Targets) {
        let sizes = match tensor.form {
            Form::Mask { .. } => &mut self.masked,
            Form::Groups { .. } => &mut self.grouped,
            Form::Dense if targets.contain(&tensor.name) => &mut self.dense_projections,
            Form::Dense => return,
        };
        sizes.tensors += 1;
        sizes.dense += tensor.shape.iter().product::<u64>() * tensor.dtype.bits() / 8;
        sizes.packed += tensor.stored_bytes();
    }
}

/// Most bytes that the header can take, with its length.
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
    targets: Targets,
    out: NewFile,
    /// Bytes reserved for the header.
    room: u64,
    /// Names of the blobs, in the order of their bytes, with their bounds in the file including padding.
    entries: Vec<(String, [u64; 2])>,
    blobs: BTreeMap<String, BlobRecord>,
    /// Of the targets so far.
    negative_zeros: NegativeZeros,
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
        targets: Targets,
        on_bytes: &'a mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Packer<'a>> {
        out.append(&vec![0; room as usize])?;
        Ok(Packer {
            targets,
            out,
            room,
            entries: Vec::new(),
            blobs: BTreeMap::new(),
            negative_zeros: NegativeZeros::default(),
            on_bytes,
        })
    }

    fn begin_blob(&self, kind: BlobKind, name: &str) -> Blob {
        Blob { name: kind.of(name), begin: self.out.written(), blake3: Blake3::default() }
    }

    fn append(&mut self, blob: &mut Blob, bytes: &[u8]) -> Result<()> {
        blob.blake3.update(bytes);
        self.out.append(bytes)
    }

    /// Ends a blob and pads it to the alignment.
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

    /// Packs a file that is not a shard.
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

    /// Packs a shard: its header, then its tensors in the order of their bytes.
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
            let is_target = self.targets.contain(&tensor.name);
            let layout = is_target.then(|| MaskLayout::of(tensor.dtype, &tensor.shape)).flatten();
            let form = match layout {
                Some(layout) => self.target(&source, tensor, layout, &mut sha256)?,
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

    /// Packs a tensor unchanged; `sha256` is the digest of its file, unless that has its bytes already.
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
            // No progress is reported for a part of a tensor, but the work may be stopped.
            (self.on_bytes)(0)
        })?;
        self.end_blob(blob)?;
        Ok(Form::Dense)
    }

    /// Packs a target in the form that takes the fewest bytes.
    fn target(
        &mut self,
        source: &Source,
        tensor: &TensorInfo,
        layout: MaskLayout,
        sha256: &mut Sha256,
    ) -> Result<Form> {
        let mut masks = Vec::with_capacity((layout.mask_bytes() / 4) as usize);
        let mut negative_zeros = 0;
        bands(source, tensor, layout, |rows| {
            sha256.update(rows);
            masks_of(layout, rows, &mut masks);
            negative_zeros += count_negative_zeros(tensor.dtype, rows);
            (self.on_bytes)(0)
        })?;
        self.negative_zeros.tensors += u64::from(negative_zeros > 0);
        self.negative_zeros.elements += negative_zeros;
        let mut census = Census::new(layout, masks);
        let (_, form) = census.smallest();
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
                for row in census.masks.chunks_exact(layout.words() as usize) {
                    coder.encode(row, (layout.cols / u64::from(of)) as usize, &mut codes);
                }
                self.whole_blob(BlobKind::Groups, &tensor.name, &codes)?;
            }
        }
        let mut blob = self.begin_blob(BlobKind::Values, &tensor.name);
        let (mut masks, mut values) = (&census.masks[..], Vec::new());
        bands(source, tensor, layout, |rows| {
            let words = rows.len() / layout.row_bytes() as usize * layout.words() as usize;
            let (here, rest) = masks.split_at(words);
            masks = rest;
            values.clear();
            select(layout, here, rows, &mut values);
            self.append(&mut blob, &values)?;
            (self.on_bytes)(0)
        })?;
        self.end_blob(blob)?;
        Ok(form)
    }

    /// Writes contents, seal and header, and publishes the file. Returns its size in bytes.
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

    /// The header with its length, padded with spaces to the reserved size.
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
        assert!(text.len() as u64 <= length, "the reserved space is enough for the header");
        text.resize(length as usize, b' ');
        [&length.to_le_bytes(), &text[..]].concat()
    }
}
