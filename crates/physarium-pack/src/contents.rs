//! The record of a packed file's contents, which its second to last blob holds.

use std::collections::BTreeMap;

use physarium_checkpoint::{Digest, Dtype};
use serde::{Deserialize, Serialize};

use crate::groups::Groups;
use crate::mask_layout::MaskLayout;

/// Name and version of the format.
pub(crate) const SCHEMA: &str = "physarium.physpack/1";
/// Name of the blob that holds the contents as JSON.
pub(crate) const CONTENTS: &str = "physarium.physpack/1:contents";
/// Name of the blob with the digests of header and contents: SHA-256 of the header with its length, BLAKE3 of the
/// contents.
pub(crate) const SEAL: &str = "physarium.physpack/1:seal";
/// Beginning of both names in every version of the format.
pub(crate) const ANY_VERSION: &str = "physarium.physpack/";
/// Blobs begin at multiples of this many bytes from the start of the file.
pub(crate) const ALIGNMENT: u64 = 64;

/// The record of a packed file's contents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contents {
    pub schema: String,
    /// Program that packed, with its version.
    pub tool: String,
    pub files: Vec<FileRecord>,
    /// All other blobs by name.
    pub blobs: BTreeMap<String, BlobRecord>,
}

/// A file of the packed directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    /// Relative to the directory, with `/` between names.
    pub path: String,
    pub size_bytes: u64,
    pub sha256: Digest,
    /// The tensors of a shard, in the order of their bytes; absent for other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<TensorRecord>>,
}

/// A tensor of a packed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions, outermost first.
    pub shape: Vec<u64>,
    /// How it is stored.
    pub form: Form,
}

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Its bytes, unchanged.
    Dense,
    /// A bit for each element, and the elements whose bit is one.
    Mask {
        /// Number of those elements.
        values: u64,
    },
    /// A code for each group of `of` elements, and `keep` elements of each group.
    Groups {
        /// Elements of a group that are stored (N).
        keep: u32,
        /// Elements of a group (M).
        of: u32,
    },
}

/// Size without padding, and digest with padding, of a blob. The padding is zeros.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlobRecord {
    pub size_bytes: u64,
    pub blake3: Digest,
}

/// The kinds of blobs. The name of a blob is its kind, a colon, and the name of its file or tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobKind {
    /// A file that is not a shard.
    File,
    /// A shard's bytes before its tensors.
    Header,
    /// A tensor, unchanged.
    Dense,
    Mask,
    Groups,
    Values,
}

impl BlobKind {
    /// The name of the blob of this kind, for a file or tensor of this name.
    pub(crate) fn of(self, name: &str) -> String {
        let kind = match self {
            BlobKind::File => "file",
            BlobKind::Header => "header",
            BlobKind::Dense => "dense",
            BlobKind::Mask => "mask",
            BlobKind::Groups => "groups",
            BlobKind::Values => "values",
        };
        format!("{kind}:{name}")
    }
}

impl TensorRecord {
    /// Its blobs with their sizes in bytes; `None` if form, shape and dtype are inconsistent.
    pub(crate) fn blobs(&self) -> Option<Vec<(BlobKind, u64)>> {
        let layout = || MaskLayout::of(self.dtype, &self.shape);
        Some(match self.form {
            Form::Dense => {
                let elements = self.shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim))?;
                let bits = elements.checked_mul(self.dtype.bits())?;
                vec![(BlobKind::Dense, bits.is_multiple_of(8).then_some(bits / 8)?)]
            }
            Form::Mask { values } => {
                let layout = layout()?;
                let bytes = values.checked_mul(layout.width)?;
                vec![(BlobKind::Mask, layout.mask_bytes()), (BlobKind::Values, bytes)]
            }
            Form::Groups { keep, of } => {
                let (layout, groups) = (layout()?, Groups { keep, of });
                if !groups.has_codes() || !layout.cols.is_multiple_of(u64::from(of)) {
                    return None;
                }
                let values = layout.rows * (layout.cols / u64::from(of)) * u64::from(keep);
                let codes = layout.rows * groups.row_bytes(layout.cols);
                vec![(BlobKind::Groups, codes), (BlobKind::Values, values * layout.width)]
            }
        })
    }

    /// Bytes of its blobs, without padding.
    pub fn stored_bytes(&self) -> u64 {
        self.blobs().map_or(0, |blobs| blobs.iter().map(|(_, bytes)| bytes).sum())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_documentation_is_read() {
        let text = include_str!("../../../docs/FORMATS.md");
        let begin = text.find("```json physpack\n").unwrap() + "```json physpack\n".len();
        let example = &text[begin..begin + text[begin..].find("```").unwrap()];
        let contents: Contents = serde_json::from_str(example).unwrap();
        assert_eq!(contents.schema, SCHEMA);
        let tensors = contents.files[0].tensors.as_ref().unwrap();
        assert_eq!(tensors[0].form, Form::Mask { values: 256 });
        assert_eq!(tensors[1].stored_bytes(), 32 * (16 / 4 * 3_u64).div_ceil(8) + 32 * 8 * 2);
        let written: serde_json::Value = serde_json::from_str(example).unwrap();
        assert_eq!(serde_json::to_value(&contents).unwrap(), written);
    }
}
