/*!
From a solved float32 weight to the bits of its own format.

In: the bits that the weight had, and the solved weight. Out: its new bits.
*/

use crate::format::FloatFormat;

/// The bits of a solved weight, rounded to nearest even.
///
/// Rounding makes no zeros: what is too small for the format becomes its smallest magnitude, with its sign. A weight
/// that was zero and is zero keeps its bits; other zeros are +0.0. Bits that are [not finite](FloatFormat::is_finite)
/// say that the format cannot hold the weight.
pub fn rounded(format: FloatFormat, before: u32, solved: f32) -> u32 {
    if solved == 0.0 {
        return if format.key_of(before) == 0 { before } else { 0 };
    }
    let bits = format.nearest(solved);
    // The smallest magnitude has key 1 in every format.
    if format.key_of(bits) == 0 { bits | 1 } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F16: FloatFormat = FloatFormat::F16;

    #[test]
    fn rounding_makes_no_zeros() {
        assert_eq!(rounded(F16, 0x3c00, 1e-9), 1);
        assert_eq!(rounded(F16, 0x3c00, -1e-9), 0x8001);
        assert_eq!(rounded(FloatFormat::Bf16, 0x3f80, f32::from_bits(1)), 1);
        assert_eq!(rounded(FloatFormat::F32, 0x3f80_0000, f32::from_bits(1)), 1);
    }

    #[test]
    fn zeros_keep_their_bits_and_pruned_weights_are_positive() {
        for solved in [0.0, -0.0] {
            assert_eq!(rounded(F16, 0x8000, solved), 0x8000);
            assert_eq!(rounded(F16, 0, solved), 0);
            assert_eq!(rounded(F16, 0xbc00, solved), 0);
        }
    }

    #[test]
    fn the_largest_magnitude_is_reached_by_rounding_only() {
        assert_eq!(rounded(F16, 0, 65_519.0), 0x7bff);
        assert_eq!(rounded(F16, 0, -65_504.0), 0xfbff);
        assert!(!F16.is_finite(rounded(F16, 0, 65_520.0)));
        assert!(!F16.is_finite(rounded(F16, 0, f32::NAN)));
        assert!(!FloatFormat::Bf16.is_finite(rounded(FloatFormat::Bf16, 0, f32::MAX)));
        assert!(FloatFormat::F32.is_finite(rounded(FloatFormat::F32, 0, f32::MAX)));
    }
}
