//! The parts of a shard: its header and its tensors, as the `safetensors` crate reads them.

use std::collections::HashMap;

use physarium_checkpoint::{Dtype, MatrixView, Shard, Source};
use safetensors::tensor::Metadata;

use crate::error::Result;

/// Bytes of one side that are read together; a multiple of every element size.
const READ_BYTES: u64 = 1 << 20;

/// Consecutive bytes of a shard: its header or one tensor.
pub(super) struct Span {
    /// The tensor's name; `None` for the header.
    pub name: Option<String>,
    /// The element type of a target; `None` for all other bytes.
    pub weights: Option<Dtype>,
    pub begin: u64,
    pub end: u64,
    /// Ends of the matrices of a target that has several, in ascending order; no piece crosses one.
    borders: Vec<u64>,
}

impl Span {
    /// End of the piece that begins at `at`.
    pub fn piece_end(&self, at: u64) -> u64 {
        let next = self.borders.partition_point(|border| *border <= at);
        let border = self.borders.get(next).copied().unwrap_or(u64::MAX);
        self.end.min(at + READ_BYTES).min(border)
    }

    /// Whether a matrix ends at `at`.
    pub fn ends_matrix(&self, at: u64) -> bool {
        self.borders.binary_search(&at).is_ok()
    }
}

/// The header and the tensors of a shard, in file order. `targets` are the matrices of targets by name.
///
/// # Errors
/// `Checkpoint` if the header cannot be read.
pub(super) fn spans(
    shard: &Shard,
    source: &Source,
    targets: &HashMap<&str, &[MatrixView]>,
) -> Result<Vec<Span>> {
    let data_begin = shard.data_begin;
    let mut header = vec![0; data_begin as usize];
    source.read_exact_at(&mut header, 0)?;
    let metadata: Metadata = serde_json::from_slice(&header[8..])
        .expect("the crate reads every header that opening the checkpoint accepts");
    let header = Span { name: None, weights: None, begin: 0, end: data_begin, borders: Vec::new() };
    let mut spans = vec![header];
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).expect("a name of its own list");
        let (begin, end) = info.data_offsets;
        let (begin, end) = (data_begin + begin as u64, data_begin + end as u64);
        let target = targets.get(name.as_str()).zip(match info.dtype {
            safetensors::Dtype::BF16 => Some(Dtype::BF16),
            safetensors::Dtype::F16 => Some(Dtype::F16),
            safetensors::Dtype::F32 => Some(Dtype::F32),
            _ => None,
        });
        let borders = target.map(|(views, dtype)| borders(views, dtype, begin)).unwrap_or_default();
        let weights = target.map(|(_, dtype)| dtype);
        spans.push(Span { name: Some(name), weights, begin, end, borders });
    }
    Ok(spans)
}

/// Ends of the matrices of a tensor that has several, in bytes of the file; `begin` is where it begins.
fn borders(views: &[MatrixView], dtype: Dtype, begin: u64) -> Vec<u64> {
    let end = |view: &MatrixView| begin + (view.begin + view.elements()) * (dtype.bits() / 8);
    if views.len() > 1 { views.iter().map(end).collect() } else { Vec::new() }
}
