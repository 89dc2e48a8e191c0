/*!
Zeroing the weights that a cut prunes.

In: consecutive weights as bytes and a [`Cut`]. Out: the bytes with pruned weights set to +0.0, and
[`Counts`].
*/

use std::ops::AddAssign;

use crate::cut::Cut;
use crate::format::FloatFormat;

/// What was found and pruned in a run of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Weights that were not zero and were set to +0.0.
    pub pruned: u64,
    /// Weights that were +0.0 or -0.0; their bits are kept.
    pub already_zero: u64,
    /// Infinite and NaN weights; their bits are kept.
    pub non_finite: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.pruned += other.pruned;
        self.already_zero += other.already_zero;
        self.non_finite += other.non_finite;
    }
}

/// Applies a cut to consecutive weights of its scope; `first` is the row-major position of the first
/// of them in the scope.
///
/// # Panics
/// If `bytes` are not whole elements.
#[track_caller]
pub fn apply_cut(bytes: &mut [u8], format: FloatFormat, cut: Cut, first: u64) -> Counts {
    let counts = match format {
        FloatFormat::Bf16 | FloatFormat::F16 => below::<2>(bytes, cut.below, format.infinity_key()),
        FloatFormat::F32 => below::<4>(bytes, cut.below, format.infinity_key()),
    };
    let size = format.size_bytes();
    let before_end = cut.ties_end.saturating_sub(first).min((bytes.len() / size) as u64) as usize;
    let ties = at_key(&mut bytes[..before_end * size], format, cut.below);
    Counts { pruned: counts.pruned + ties, ..counts }
}

/// Number of elements in a block: its counts fit in 16 bits, so that counting vectorises.
const BLOCK: usize = 1024;

/// A pass over elements, compiled for the widest vectors of the machine it runs on. It is a struct
/// because a closure would not be inlined into the code that is compiled for those vectors.
struct Below<'a, const SIZE: usize> {
    elements: &'a mut [[u8; SIZE]],
    below: u32,
    infinity: u32,
}

macro_rules! impl_below {
    ($bits:ty, $signed:ty) => {
        impl pulp::NullaryFnOnce for Below<'_, { size_of::<$bits>() }> {
            type Output = Counts;

            #[inline(always)]
            fn call(self) -> Counts {
                let (below, infinity) = (self.below as $signed, self.infinity as $signed);
                let mut counts = Counts::default();
                for block in self.elements.chunks_mut(BLOCK) {
                    // Wrapping additions vectorise; they cannot wrap, as a count is at most `BLOCK`.
                    let (mut pruned, mut zero, mut non_finite): ($bits, $bits, $bits) = (0, 0, 0);
                    for element in block {
                        let bits = <$bits>::from_le_bytes(*element);
                        let key = (bits & <$bits>::MAX >> 1) as $signed;
                        let prune = (key > 0) & (key < below);
                        pruned = pruned.wrapping_add(<$bits>::from(prune));
                        zero = zero.wrapping_add(<$bits>::from(key == 0));
                        non_finite = non_finite.wrapping_add(<$bits>::from(key >= infinity));
                        *element = if prune { 0 } else { bits }.to_le_bytes();
                    }
                    counts += Counts {
                        pruned: u64::from(pruned),
                        already_zero: u64::from(zero),
                        non_finite: u64::from(non_finite),
                    };
                }
                counts
            }
        }
    };
}

impl_below!(u16, i16);
impl_below!(u32, i32);

/// Zeroes every non-zero element below a key.
fn below<const SIZE: usize>(bytes: &mut [u8], below: u32, infinity: u32) -> Counts
where
    for<'a> Below<'a, SIZE>: pulp::NullaryFnOnce<Output = Counts>,
{
    let (elements, rest) = bytes.as_chunks_mut::<SIZE>();
    assert!(rest.is_empty(), "not whole {SIZE}-byte elements");
    physarium_kernels::dispatch(Below { elements, below, infinity })
}

/// Zeroes every element with the key `key`, if that is non-zero and finite; returns their number.
fn at_key(bytes: &mut [u8], format: FloatFormat, key: u32) -> u64 {
    if key == 0 || key >= format.infinity_key() {
        return 0;
    }
    let mut zeroed = 0;
    match format {
        FloatFormat::Bf16 | FloatFormat::F16 => {
            for element in bytes.as_chunks_mut::<2>().0 {
                if u32::from(u16::from_le_bytes(*element) & 0x7fff) == key {
                    *element = [0; 2];
                    zeroed += 1;
                }
            }
        }
        FloatFormat::F32 => {
            for element in bytes.as_chunks_mut::<4>().0 {
                if u32::from_le_bytes(*element) & 0x7fff_ffff == key {
                    *element = [0; 4];
                    zeroed += 1;
                }
            }
        }
    }
    zeroed
}
