//! What the bytes of a shard amount to, and what its records should therefore state.

use physarium_checkpoint::Digest;
use physarium_checkpoint::journal::TensorRecord;

use super::findings::Verification;
use super::weights::Counts;

/// Digests and counts of a shard's bytes.
pub(super) struct ShardSeen {
    pub input_sha256: Digest,
    /// `None` if the output has no such file that can be read.
    pub output_sha256: Option<Digest>,
    /// Its tensors; empty if the output's file is missing or has another size.
    pub tensors: Vec<TensorSeen>,
}

/// Digest and counts of a tensor's bytes in the output.
pub(super) struct TensorSeen {
    pub name: String,
    pub output_blake3: Digest,
    pub counts: Counts,
}

impl TensorSeen {
    /// Compares with the journal's record; `shard` is the file of the findings.
    pub fn compare(&self, record: &TensorRecord, shard: &str, result: &mut Verification) {
        let mut report = |what: String| result.report(shard, Some(&self.name), what);
        if record.output_blake3 != Some(self.output_blake3) {
            let stated = record.output_blake3.map_or("none".to_owned(), |d| d.to_string());
            report(format!("BLAKE3, expected {stated}, found {}", self.output_blake3));
        }
        let Some(done) = record.processed() else { return };
        let counts = &self.counts;
        let matrices = done.matrices.iter().zip(&counts.matrices);
        let differing = matrices
            .enumerate()
            .find(|(_, (stated, counted))| [stated.pruned, stated.already_zero] != **counted);
        if let Some((at, (stated, [pruned, already_zero]))) = differing {
            report(format!(
                "matrix {at}: pruned weights and weights zero before, expected {} and {}, found \
                 {pruned} and {already_zero}",
                stated.pruned, stated.already_zero
            ));
        }
        for (what, stated, counted) in [
            ("pruned weights", done.pruned, counts.pruned),
            ("weights zero before", done.already_zero, counts.already_zero),
            ("infinite and NaN weights", done.non_finite, counts.non_finite),
            ("refitted weights", done.refitted, counts.refitted),
        ] {
            if stated != counted {
                report(format!("{what}, expected {stated}, found {counted}"));
            }
        }
    }
}
