//! Stored weights to float32, exactly.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// BF16 bits to float32.
pub(crate) fn bf16(from: &[u16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(*from) << 16);
    }
}

/// F16 to float32.
pub(crate) fn float16(from: &[f16], to: &mut [f32]) {
    from.convert_to_f32_slice(to);
}
