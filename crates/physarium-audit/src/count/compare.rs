//! Counts zeros in weights and compares weights with the original's. Works on bytes and shares no code with the
//! pruner.

use std::ops::AddAssign;

use physarium_checkpoint::Dtype;

/// Counts of consecutive weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Weights that are +0.0 or -0.0.
    pub zeros: u64,
    /// Weights that are -0.0.
    pub sign_bit_zeros: u64,
    /// Weights that were +0.0 or -0.0.
    pub zeros_before: u64,
    /// Weights that are zero and were not.
    pub pruned: u64,
    /// Pruned weights that the conversion to another element type makes zero.
    pub by_conversion: u64,
    /// Weights that were zero and are not; they count as changed too.
    pub revived: u64,
    /// Nonzero weights whose bits differ from the original's.
    pub changed: u64,
    /// Changed weights that the conversion to another element type makes infinite.
    pub overflowed: u64,
    /// Weights that are -0.0 and were not.
    pub to_negative_zero: u64,
    /// Weights that are infinite or NaN.
    pub non_finite: u64,
}

impl Tally {
    /// Weights whose value is not the original's; what the conversion to another element type makes zero is.
    pub fn differing(&self) -> u64 {
        self.pruned - self.by_conversion + self.changed
    }

    /// Weights that are neither the original value nor +0.0.
    pub fn illegal(&self) -> u64 {
        self.changed + self.to_negative_zero
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.zeros += other.zeros;
        self.sign_bit_zeros += other.sign_bit_zeros;
        self.zeros_before += other.zeros_before;
        self.pruned += other.pruned;
        self.by_conversion += other.by_conversion;
        self.revived += other.revived;
        self.changed += other.changed;
        self.overflowed += other.overflowed;
        self.to_negative_zero += other.to_negative_zero;
        self.non_finite += other.non_finite;
    }
}

/// Weights per block; their counts fit in the narrow counters of a vectorised loop.
const BLOCK: usize = 1024;

macro_rules! tally {
    ($bytes:expr, $before:expr, $bits:ty, $exponent:expr) => {{
        const SIZE: usize = size_of::<$bits>();
        const SIGN: $bits = 1 << (<$bits>::BITS - 1);
        let exponent: $bits = $exponent;
        let (now, rest) = $bytes.as_chunks::<SIZE>();
        let (before, rest_before) = $before.as_chunks::<SIZE>();
        assert!(rest.is_empty() && rest_before.is_empty() && now.len() == before.len());
        let mut tally = Tally::default();
        for (now, before) in now.chunks(BLOCK).zip(before.chunks(BLOCK)) {
            let (mut zeros, mut signs, mut pruned): ($bits, $bits, $bits) = (0, 0, 0);
            let (mut changed, mut to_negative): ($bits, $bits) = (0, 0);
            let (mut zeros_before, mut revived, mut non_finite): ($bits, $bits, $bits) = (0, 0, 0);
            // Wrapping additions vectorise. They cannot wrap here: each count is at most `BLOCK`.
            for (now, before) in now.iter().zip(before) {
                let (now, before) = (<$bits>::from_le_bytes(*now), <$bits>::from_le_bytes(*before));
                let (is_zero, was_zero) = (now & !SIGN == 0, before & !SIGN == 0);
                zeros = zeros.wrapping_add(<$bits>::from(is_zero));
                signs = signs.wrapping_add(<$bits>::from(now == SIGN));
                pruned = pruned.wrapping_add(<$bits>::from(is_zero & !was_zero));
                zeros_before = zeros_before.wrapping_add(<$bits>::from(was_zero));
                revived = revived.wrapping_add(<$bits>::from(was_zero & !is_zero));
                let negated = (now == SIGN) & (before != SIGN);
                to_negative = to_negative.wrapping_add(<$bits>::from(negated));
                changed = changed.wrapping_add(<$bits>::from(!is_zero & (now != before)));
                non_finite = non_finite.wrapping_add(<$bits>::from(now & exponent == exponent));
            }
            tally += Tally {
                zeros: u64::from(zeros),
                sign_bit_zeros: u64::from(signs),
                zeros_before: u64::from(zeros_before),
                pruned: u64::from(pruned),
                revived: u64::from(revived),
                changed: u64::from(changed),
                to_negative_zero: u64::from(to_negative),
                non_finite: u64::from(non_finite),
                ..Tally::default()
            };
        }
        tally
    }};
}

/// Compares weights with the original's. Without an original, `before` is the same slice as `now`.
///
/// # Panics
/// If the slices differ in length, or are not whole elements of a prunable dtype.
#[track_caller]
pub(crate) fn tally(now: &[u8], before: &[u8], dtype: Dtype) -> Tally {
    match dtype {
        Dtype::BF16 => tally!(now, before, u16, 0x7f80),
        Dtype::F16 => tally!(now, before, u16, 0x7c00),
        Dtype::F32 => tally!(now, before, u32, 0x7f80_0000),
        other => panic!("{other} is not a prunable dtype"),
    }
}

/// Index of the first weight that is neither the original value nor +0.0. Slow; used only after [`tally()`] has
/// counted one.
pub(crate) fn first_illegal(now: &[u8], before: &[u8], element_bytes: usize) -> Option<u64> {
    let pairs = now.chunks(element_bytes).zip(before.chunks(element_bytes));
    let illegal = |(now, before): (&[u8], &[u8])| now != before && now.iter().any(|b| *b != 0);
    pairs.into_iter().position(illegal).map(|at| at as u64)
}

/// Index of the first weight that is -0.0 and was not. Slow; used only after [`tally()`] has counted one.
pub(crate) fn first_negative_zero(now: &[u8], before: &[u8], element_bytes: usize) -> Option<u64> {
    let pairs = now.chunks(element_bytes).zip(before.chunks(element_bytes));
    let negative = |weight: &[u8]| {
        let (last, rest) = weight.split_last().expect("an element has bytes");
        *last == 0x80 && rest.iter().all(|byte| *byte == 0)
    };
    let at = pairs.into_iter().position(|(now, before)| negative(now) && !negative(before));
    at.map(|at| at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_counted_once() {
        let bytes = |bits: &[u16]| bits.iter().flat_map(|b| b.to_le_bytes()).collect::<Vec<u8>>();
        //                    kept    pruned  to -0.0 was 0 was -0  changed from 0
        let before = bytes(&[0x3f80, 0x3f80, 0xbf80, 0, 0x8000, 0x3f80, 0]);
        let now = bytes(&[0x3f80, 0, 0x8000, 0, 0x8000, 0x3f81, 0x3f80]);
        let expected = Tally {
            zeros: 4,
            sign_bit_zeros: 2,
            zeros_before: 3,
            pruned: 2,
            revived: 1,
            changed: 2,
            to_negative_zero: 1,
            ..Tally::default()
        };
        assert_eq!(expected.illegal(), 3);
        assert_eq!(tally(&now, &before, Dtype::BF16), expected);
        assert_eq!(first_illegal(&now, &before, 2), Some(2));
        assert_eq!(first_negative_zero(&now, &before, 2), Some(2));
        let wide = |bytes: &[u8]| -> Vec<u8> {
            bytes.chunks(2).flat_map(|pair| [0, 0, pair[0], pair[1]]).collect()
        };
        assert_eq!(tally(&wide(&now), &wide(&before), Dtype::F32), expected);
    }

    #[test]
    fn infinite_and_nan_weights_are_counted_and_large_ones_are_not() {
        let bytes = |bits: &[u16]| bits.iter().flat_map(|b| b.to_le_bytes()).collect::<Vec<u8>>();
        let bf16 = bytes(&[0x7f7f, 0x7f80, 0xff80, 0x7fc0, 0xff81, 0x7c00]);
        let non_finite = |bytes: &[u8], dtype| tally(bytes, bytes, dtype).non_finite;
        assert_eq!(non_finite(&bf16, Dtype::BF16), 4);
        assert_eq!(non_finite(&bytes(&[0x7bff, 0x7c00, 0xfc01, 0x3c00]), Dtype::F16), 2);
        assert_eq!(non_finite(&bytes(&[0, 0x7f80, 0xffff, 0x7f7f, 1, 0xff80]), Dtype::F32), 2);
    }

    #[test]
    fn counters_do_not_overflow_on_long_inputs() {
        let (now, before) = (vec![0; 200_000], vec![1; 200_000]);
        let expected = Tally { zeros: 100_000, pruned: 100_000, ..Tally::default() };
        assert_eq!(tally(&now, &before, Dtype::F16), expected);
        let expected =
            Tally { zeros_before: 100_000, revived: 100_000, changed: 100_000, ..Tally::default() };
        assert_eq!(tally(&before, &now, Dtype::F16), expected);
    }
}
