/*!
N:M sparsity: of each M consecutive inputs of a row, the N largest magnitudes are kept.

In: weights of one row as bytes. Out: the bytes with pruned weights set to +0.0, and [`Counts`].

The groups are those that sparse matrix units use (Mishra et al. 2021, "Accelerating sparse deep
neural networks", arXiv 2104.08378, §3): along the inputs, starting at the first weight of each row.
If M does not divide the length of the row, its last group is shorter and keeps at most N too.
*/

use crate::apply::Counts;
use crate::format::{FloatFormat, keys16, keys32};

/// Largest M that is supported.
const MAX_GROUP: usize = 64;

/// Whether a row of `cols` inputs consists of whole groups of `group`.
pub fn pattern_divides_row(cols: u64, group: usize) -> bool {
    cols.is_multiple_of(group as u64)
}

/// Applies the pattern `keep`:`group` to weights of one row, beginning at the start of a group. Among
/// equal magnitudes the earlier ones are pruned first. Infinite and NaN weights are kept.
///
/// # Panics
/// If `bytes` are not whole elements, or not 0 < `keep` < `group` <= 64.
#[track_caller]
pub fn apply_pattern(bytes: &mut [u8], format: FloatFormat, keep: usize, group: usize) -> Counts {
    assert!(0 < keep && keep < group && group <= MAX_GROUP, "pattern {keep}:{group}");
    let size = format.size_bytes();
    assert!(bytes.len().is_multiple_of(size), "not whole {size}-byte elements");
    let mut counts = Counts::default();
    for weights in bytes.chunks_mut(group * size) {
        let n = weights.len() / size;
        let mut keys = [0u32; MAX_GROUP];
        match format {
            FloatFormat::Bf16 | FloatFormat::F16 => {
                keys16(weights).zip(&mut keys).for_each(|(key, slot)| *slot = u32::from(key));
            }
            FloatFormat::F32 => keys32(weights).zip(&mut keys).for_each(|(key, slot)| *slot = key),
        }
        let keys = &keys[..n];
        for (at, &key) in keys.iter().enumerate() {
            let smaller_before = keys[..at].iter().filter(|&&other| other <= key).count();
            let smaller_after = keys[at + 1..].iter().filter(|&&other| other < key).count();
            let prune = smaller_before + smaller_after < n.saturating_sub(keep);
            if key == 0 {
                counts.already_zero += 1;
            } else if key >= format.infinity_key() {
                counts.non_finite += 1;
            } else if prune {
                weights[at * size..][..size].fill(0);
                counts.pruned += 1;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bf16(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()
    }

    #[test]
    fn keeps_the_largest_of_each_group() {
        let mut row = bf16(&[1.0, -3.0, 2.0, 0.5, 4.0, 4.0, 4.0, 4.0, -1.0, 2.0, 3.0]);
        let counts = apply_pattern(&mut row, FloatFormat::Bf16, 2, 4);
        assert_eq!(row, bf16(&[0.0, -3.0, 2.0, 0.0, 0.0, 0.0, 4.0, 4.0, 0.0, 2.0, 3.0]));
        assert_eq!(counts, Counts { pruned: 5, ..Counts::default() });
    }

    #[test]
    fn zeros_count_as_pruned_and_infinities_stay() {
        let mut row = bf16(&[0.0, -0.0, 1.0, 2.0, f32::INFINITY, f32::NAN, f32::INFINITY, 1.0]);
        let before = row.clone();
        let counts = apply_pattern(&mut row, FloatFormat::Bf16, 2, 4);
        assert_eq!(counts, Counts { pruned: 1, already_zero: 2, non_finite: 3 });
        assert_eq!(row[..14], before[..14]);
    }
}
