/*!
A packed file has one face: the record of its contents, the headers of its shards and its index describe one model.

`run` and `eval` read the record, `unpack` writes headers and index, and a loader of the unpacked directory reads
those. Without this check a file could show each of them another model, with every digest right.
*/

use std::path::Path;

use physarium_checkpoint::{
    EnclosedFiles, EnclosedShard, Malformed, TensorInfo, check_enclosed, printable,
};

use crate::Result;
use crate::contents::{BlobKind, TensorRecord};
use crate::packed::Packed;

impl Packed {
    /// Opens a packed file and checks that its container, seal, record, headers and index are consistent.
    ///
    /// # Errors
    /// `Malformed` for anything that violates the format, and for a version that this program does not support;
    /// `InputChanged`, `FileShrank`, `Io`.
    pub fn open(path: &Path) -> Result<Packed> {
        let packed = Packed::read_sealed(path)?;
        check_face(&packed)?;
        Ok(packed)
    }
}

/// Compares the record with the headers of the shards, and the shards with the index.
///
/// # Errors
/// `Malformed` with the first tensor or shard that differs; `Io`.
fn check_face(packed: &Packed) -> Result<()> {
    let source = packed.source()?;
    let mut shards = Vec::new();
    for file in packed.files() {
        let Some(records) = &file.tensors else { continue };
        let size = packed.blob_bytes(BlobKind::Header, &file.path);
        if size > EnclosedShard::MAX_HEADER_BYTES {
            let expected = format!("at most {} bytes", EnclosedShard::MAX_HEADER_BYTES);
            return Err(packed.fault("header of a packed shard", &expected, size.to_string()));
        }
        let mut header = vec![0; size as usize];
        packed.read_whole(&source, BlobKind::Header, &file.path, &mut header)?;
        let shard =
            EnclosedShard { name: &file.path, header: &header, size_bytes: file.size_bytes };
        let tensors = shard.tensors(packed.path())?;
        same_tensors(&packed.path().join(&file.path), records, &tensors)?;
        shards.push((file.path.as_str(), tensors));
    }
    check_enclosed(packed, &shards)
}

/// Fails unless a record lists the tensors of a header, in the order of their bytes.
fn same_tensors(shard: &Path, records: &[TensorRecord], tensors: &[TensorInfo]) -> Result<()> {
    let what = "header of a packed shard differs from the record";
    let shown = |name: &str, dtype, shape: &[u64]| {
        let dims = if shape.len() > 8 { "[…]".to_owned() } else { format!("{shape:?}") };
        format!("{} {dtype} {dims}", printable(name))
    };
    for at in 0..records.len().max(tensors.len()) {
        let (record, tensor) = (records.get(at), tensors.get(at));
        let same = record.zip(tensor).is_some_and(|(record, tensor)| {
            record.name == tensor.name
                && record.dtype == tensor.dtype
                && record.shape == tensor.shape
        });
        if !same {
            let none = || "no tensor".to_owned();
            let expected = record.map_or_else(none, |r| shown(&r.name, r.dtype, &r.shape));
            let found = tensor.map_or_else(none, |t| shown(&t.name, t.dtype, &t.shape));
            return Err(Malformed::new(shard, what, expected, found).into());
        }
    }
    Ok(())
}

impl EnclosedFiles for Packed {
    fn container(&self) -> &Path {
        self.path()
    }

    fn has(&self, name: &str) -> bool {
        self.files().iter().any(|file| file.path == name)
    }

    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.file(name, limit)
    }
}
