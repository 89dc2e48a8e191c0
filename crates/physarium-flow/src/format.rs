/*!
The float formats of weights, as a sign and a magnitude key.

In: little-endian elements as bytes. Out: keys (the bits without the sign) and the magnitudes that they
stand for.
*/

/// A little-endian float whose highest bit is the sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatFormat {
    /// bfloat16: 8 exponent bits, 7 fraction bits.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
}

/// Number of keys of a 16-bit format.
pub(crate) const KEYS_16: usize = 1 << 15;

impl FloatFormat {
    /// Upper bound of the number of distinct magnitudes among `elements` weights.
    pub(crate) fn distinct_at_most(self, elements: u64) -> u64 {
        match self {
            FloatFormat::Bf16 | FloatFormat::F16 => elements.min(KEYS_16 as u64),
            FloatFormat::F32 => elements,
        }
    }

    /// Size of one element in bytes.
    pub fn size_bytes(self) -> usize {
        match self {
            FloatFormat::Bf16 | FloatFormat::F16 => 2,
            FloatFormat::F32 => 4,
        }
    }

    /// The key of infinity; larger keys are NaN, smaller ones are finite.
    pub fn infinity_key(self) -> u32 {
        match self {
            FloatFormat::Bf16 => 0x7f80,
            FloatFormat::F16 => 0x7c00,
            FloatFormat::F32 => 0x7f80_0000,
        }
    }

    /// Whether a weight of these bits is neither infinite nor NaN.
    pub fn is_finite(self, bits: u32) -> bool {
        self.key_of(bits) < self.infinity_key()
    }

    /// The key of a weight of these bits.
    pub(crate) fn key_of(self, bits: u32) -> u32 {
        match self {
            FloatFormat::Bf16 | FloatFormat::F16 => bits & 0x7fff,
            FloatFormat::F32 => bits & 0x7fff_ffff,
        }
    }

    /// The bits of a number, rounded to nearest even.
    pub(crate) fn nearest(self, value: f32) -> u32 {
        match self {
            FloatFormat::Bf16 => half::bf16::from_f32(value).to_bits().into(),
            FloatFormat::F16 => half::f16::from_f32(value).to_bits().into(),
            FloatFormat::F32 => value.to_bits(),
        }
    }

    /// The magnitude with this key.
    pub fn magnitude(self, key: u32) -> f64 {
        f64::from(f32::from_bits(self.binary32_key(key)))
    }

    /// The key of the same magnitude in binary32: one order for all formats. Exact, since binary32
    /// represents every value of the other two.
    pub fn binary32_key(self, key: u32) -> u32 {
        match self {
            FloatFormat::Bf16 => key << 16,
            FloatFormat::F16 => half::f16::from_bits(key as u16).to_f32().to_bits(),
            FloatFormat::F32 => key,
        }
    }

    /// The smallest key of this format whose magnitude is at least that of `binary32_key`.
    pub(crate) fn key_at_least(self, binary32_key: u32) -> u32 {
        let (mut low, mut high) = (0, self.infinity_key());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.binary32_key(middle) < binary32_key { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// Keys of a slice of 16-bit elements.
///
/// # Panics
/// If the slice is not whole elements.
#[track_caller]
pub(crate) fn keys16(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let (elements, rest) = bytes.as_chunks::<2>();
    assert!(rest.is_empty(), "{} bytes are not whole 16-bit elements", bytes.len());
    elements.iter().map(|element| u16::from_le_bytes(*element) & 0x7fff)
}

/// Keys of a slice of 32-bit elements.
///
/// # Panics
/// If the slice is not whole elements.
#[track_caller]
pub(crate) fn keys32(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let (elements, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty(), "{} bytes are not whole 32-bit elements", bytes.len());
    elements.iter().map(|element| u32::from_le_bytes(*element) & 0x7fff_ffff)
}

#[cfg(test)]
mod tests {
    use super::FloatFormat;

    #[test]
    fn binary32_keys_keep_the_order_of_every_finite_half() {
        for format in [FloatFormat::Bf16, FloatFormat::F16] {
            let keys: Vec<u32> =
                (0..=format.infinity_key()).map(|key| format.binary32_key(key)).collect();
            assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "{format:?}");
            for (key, binary32) in keys.iter().enumerate() {
                assert_eq!(format.key_at_least(*binary32), key as u32);
            }
        }
        assert_eq!(FloatFormat::F32.key_at_least(12_345), 12_345);
    }

    #[test]
    fn magnitudes_are_exact() {
        assert_eq!(FloatFormat::Bf16.magnitude(0x3f80), 1.0);
        assert_eq!(FloatFormat::F16.magnitude(0x3c00), 1.0);
        assert_eq!(FloatFormat::F16.magnitude(1), 2f64.powi(-24));
        assert_eq!(FloatFormat::F32.magnitude(1), 2f64.powi(-149));
        assert_eq!(FloatFormat::Bf16.magnitude(1), 2f64.powi(-133));
    }
}
