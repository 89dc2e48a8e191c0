//! What is in a packed file: the record that its last blob but one holds.

use std::collections::BTreeMap;

use physarium_checkpoint::{Digest, Dtype};
use serde::{Deserialize, Serialize};

use crate::groups::Groups;
use crate::mask_layout::MaskLayout;

/// Name and version of the format.
pub(crate) const SCHEMA: &str = "physarium.physpack/1";
/// Blob that holds the contents as JSON.
pub(crate) const CONTENTS: &str = "physarium.physpack/1:contents";
/// Blob that seals header and contents: SHA-256 of the header with its length, BLAKE3 of the contents.
pub(crate) const SEAL: &str = "physarium.physpack/1:seal";
/// How the names of both begin, in every version.
pub(crate) const ANY_VERSION: &str = "physarium.physpack/";
/// Blobs begin at multiples of this, from the start of the file.
pub(crate) const ALIGNMENT: u64 = 64;

/// The record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contents {
    pub schema: String,
    /// Program and version that packed.
    pub tool: String,
    pub files: Vec<FileRecord>,
    /// All other blobs by name.
    pub blobs: BTreeMap<String, BlobRecord>,
}

/// A file of the directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    /// Relative to the directory, with `/` between names.
    pub path: String,
    pub size_bytes: u64,
    pub sha256: Digest,
    /// For a shard: what follows its header, in the order of its bytes.
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
    /// Its bytes.
    Dense,
    /// A bit for each element, and the elements that have a one.
    Mask {
        /// Number of those.
        values: u64,
    },
    /// Codes of groups of elements, and `keep` elements of each group.
    Groups {
        /// Elements of a group that are stored.
        keep: u32,
        /// Elements of a group.
        of: u32,
    },
}

/// What a blob holds before it is filled up with noughts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlobRecord {
    pub size_bytes: u64,
    pub blake3: Digest,
}

/// The kinds of blobs; a blob's name is its kind, a colon, and the name of what it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobKind {
    /// A file that is no shard.
    File,
    /// A shard's bytes before its tensors.
    Header,
    /// A tensor as it is.
    Dense,
    Mask,
    Groups,
    Values,
}

impl BlobKind {
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
    /// Its blobs with their sizes in bytes; `None` where form, shape and dtype do not go together.
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
                if !groups.is_known() || !layout.cols.is_multiple_of(u64::from(of)) {
                    return None;
                }
                let values = layout.rows * (layout.cols / u64::from(of)) * u64::from(keep);
                let codes = layout.rows * groups.row_bytes(layout.cols);
                vec![(BlobKind::Groups, codes), (BlobKind::Values, values * layout.width)]
            }
        })
    }

    /// Bytes of its blobs.
    pub fn stored_bytes(&self) -> u64 {
        self.blobs().map_or(0, |blobs| blobs.iter().map(|(_, bytes)| bytes).sum())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_the_documentation_is_read() {
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
