/*!
Weights against an original of another element type: compared by value.

In: weights of two of BF16, F16 and F32. The original's value is converted to the copy's type, rounded to the
nearest, ties to even; a weight is changed if it is neither zero nor that value. A finite value that only the
conversion makes infinite is changed. A weight that was not zero and is zero counts as pruned, also if the
conversion alone makes it zero: how many those are is counted too.
*/

use half::{bf16, f16};
use physarium_checkpoint::Dtype;

use super::compare::Tally;

/// Compares weights of type `dtype` with the original's, which are of type `original`.
///
/// # Panics
/// If the slices are not whole elements of prunable dtypes, equally many.
#[track_caller]
pub(crate) fn tally_cast(now: &[u8], before: &[u8], [dtype, original]: [Dtype; 2]) -> Tally {
    let [now_bytes, before_bytes] = [dtype, original].map(element_bytes);
    assert!(now.len().is_multiple_of(now_bytes), "not whole elements");
    assert_eq!(now.len() / now_bytes * before_bytes, before.len(), "as many elements");
    let negative_zero = 1 << (8 * now_bytes - 1);
    let mut tally = Tally::default();
    for (now, before) in now.chunks_exact(now_bytes).zip(before.chunks_exact(before_bytes)) {
        let (now, before) = (bits(now), widen(bits(before), original));
        let converted = narrow(before, dtype);
        let (value, expected) = (widen(now, dtype), widen(converted, dtype));
        let (is_zero, was_zero) = (value == 0.0, before == 0.0);
        let overflows = before.is_finite() && expected.is_infinite();
        let same = now == converted || (value.is_nan() && expected.is_nan());
        tally.zeros += u64::from(is_zero);
        tally.sign_bit_zeros += u64::from(now == negative_zero);
        tally.zeros_before += u64::from(was_zero);
        tally.pruned += u64::from(is_zero && !was_zero);
        tally.by_conversion += u64::from(is_zero && !was_zero && expected == 0.0);
        tally.revived += u64::from(was_zero && !is_zero);
        tally.changed += u64::from(!is_zero && (!same || overflows));
        tally.overflowed += u64::from(!is_zero && overflows);
        tally.non_finite += u64::from(!value.is_finite());
        tally.to_negative_zero += u64::from(now == negative_zero && converted != negative_zero);
    }
    tally
}

/// Bytes of an element.
pub(crate) fn element_bytes(dtype: Dtype) -> usize {
    (dtype.bits() / 8) as usize
}

/// The bits of an element; its bytes are little-endian.
fn bits(element: &[u8]) -> u32 {
    element.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte))
}

/// The value of an element, exactly.
fn widen(bits: u32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => f32::from_bits(bits),
        Dtype::BF16 => bf16::from_bits(bits as u16).to_f32(),
        Dtype::F16 => f16::from_bits(bits as u16).to_f32(),
        other => panic!("{other} is not a prunable dtype"),
    }
}

/// The element nearest to a value, ties to even.
fn narrow(value: f32, dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => value.to_bits(),
        Dtype::BF16 => bf16::from_f32(value).to_bits().into(),
        Dtype::F16 => f16::from_f32(value).to_bits().into(),
        other => panic!("{other} is not a prunable dtype"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_itself_after_a_wider_type() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            for bits in 0..=0xffff {
                let value = widen(bits, dtype);
                if !value.is_nan() {
                    assert_eq!(narrow(value, dtype), bits, "{dtype} {bits:#x}");
                }
            }
        }
        assert_eq!(widen(0x3c00, Dtype::F16), 1.0);
        assert_eq!(widen(0x7bff, Dtype::F16), 65_504.0);
        assert_eq!(widen(0x0001, Dtype::F16), 2f32.powi(-24));
        assert_eq!(widen(0xc248, Dtype::BF16), -50.0);
        assert!(widen(0x7c01, Dtype::F16).is_nan() && widen(0xfc00, Dtype::F16) < f32::MIN);
    }

    #[test]
    fn values_between_two_elements_go_to_the_nearest_and_ties_to_the_even() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let infinity = if dtype == Dtype::F16 { 0x7c00 } else { 0x7f80 };
            for low in 0..infinity - 1 {
                let (below, above) = (widen(low, dtype), widen(low + 1, dtype));
                let middle = match dtype {
                    Dtype::F16 => below + (above - below) / 2.0,
                    _ => f32::from_bits(below.to_bits() + 0x8000),
                };
                assert_eq!(narrow(middle, dtype), low + (low & 1), "{dtype} {low:#x}");
                let (less, more) = (middle.next_down(), middle.next_up());
                assert_eq!((narrow(less, dtype), narrow(more, dtype)), (low, low + 1));
                assert_eq!(narrow(-less, dtype), low | 0x8000);
            }
            // Half a step above the largest is infinite.
            assert_eq!(narrow(f32::MAX, dtype), infinity);
        }
        assert_eq!(narrow(65_519.0, Dtype::F16), 0x7bff);
        assert_eq!(narrow(65_520.0, Dtype::F16), 0x7c00);
        assert_eq!(narrow(2f32.powi(-25), Dtype::F16), 0);
    }

    #[test]
    fn weights_are_compared_by_value() {
        let f32s =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let f16s =
            |bits: &[u16]| -> Vec<u8> { bits.iter().flat_map(|b| b.to_le_bytes()).collect() };
        // Kept, kept by rounding, pruned, zero before, revived, zero by conversion, infinite by conversion, NaN,
        // changed, minus zero kept.
        let before = [1.0, 0.1, 0.3, 0.0, 0.0, 1e-9, 1e6, f32::NAN, 2.0, -0.0];
        let now = [0x3c00, 0x2e66, 0, 0, 0x3c00, 0x8000, 0x7c00, 0x7e01, 0x4001, 0x8000];
        let found = tally_cast(&f16s(&now), &f32s(&before), [Dtype::F16, Dtype::F32]);
        let expected = Tally {
            zeros: 4,
            sign_bit_zeros: 2,
            zeros_before: 3,
            pruned: 2,
            by_conversion: 1,
            revived: 1,
            changed: 3,
            overflowed: 1,
            to_negative_zero: 1,
            non_finite: 2,
        };
        assert_eq!(found, expected);
        // The other way nothing is rounded: 0.1 was not the value of this F16.
        let back = tally_cast(&f32s(&before), &f16s(&now), [Dtype::F32, Dtype::F16]);
        assert_eq!((back.pruned, back.revived, back.changed, back.zeros), (1, 2, 5, 3));
    }
}
