/*!
Weights found by their magnitude key: how many there are, and at which positions.

In: consecutive elements as bytes. Out: counts, and positions in elements from the first one.
*/

use crate::format::{FloatFormat, keys16, keys32};

/// Number of weights whose key, in their own format, is `key`.
pub fn count_ties(bytes: &[u8], format: FloatFormat, key: u32) -> u64 {
    match format {
        FloatFormat::Bf16 | FloatFormat::F16 => {
            keys16(bytes).filter(|&other| u32::from(other) == key).count() as u64
        }
        FloatFormat::F32 => keys32(bytes).filter(|&other| other == key).count() as u64,
    }
}

/// Position just after the `left`-th weight with this key; `None` if there are fewer.
///
/// Subtracts the ties found from `left`, so that the search can continue in the next piece.
pub fn locate_tie(bytes: &[u8], format: FloatFormat, key: u32, left: &mut u64) -> Option<u64> {
    let mut find = |keys: &mut dyn Iterator<Item = u32>| {
        for (at, other) in keys.enumerate() {
            *left -= u64::from(other == key);
            if *left == 0 {
                return Some(at as u64 + 1);
            }
        }
        None
    };
    match format {
        FloatFormat::Bf16 | FloatFormat::F16 => find(&mut keys16(bytes).map(u32::from)),
        FloatFormat::F32 => find(&mut keys32(bytes)),
    }
}

/// Positions of the infinite and NaN weights.
pub fn non_finite_positions(bytes: &[u8], format: FloatFormat) -> Vec<u64> {
    let infinity = format.infinity_key();
    let keys: Vec<u32> = match format {
        FloatFormat::Bf16 | FloatFormat::F16 => keys16(bytes).map(u32::from).collect(),
        FloatFormat::F32 => keys32(bytes).collect(),
    };
    (0u64..).zip(keys).filter(|(_, key)| *key >= infinity).map(|(at, _)| at).collect()
}
