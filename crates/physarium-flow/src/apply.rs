//! Zeroing the weights that a cut says are dead.

use std::ops::AddAssign;

use crate::cut::Cut;
use crate::format::FloatFormat;

/// What was found and done in a run of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Weights set to +0.0 that were not zero.
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

/// Applies a cut to consecutive weights of its scope, the first of which has row-major position
/// `first` in the scope.
///
/// # Panics
/// If `bytes` are not whole elements.
#[track_caller]
pub fn apply_cut(bytes: &mut [u8], format: FloatFormat, cut: Cut, first: u64) -> Counts {
    let counts = match format {
        FloatFormat::Bf16 | FloatFormat::F16 => below16(bytes, cut.below, format.infinity_key()),
        FloatFormat::F32 => below32(bytes, cut.below, format.infinity_key()),
    };
    let size = format.size_bytes();
    let before_end = cut.ties_end.saturating_sub(first).min((bytes.len() / size) as u64) as usize;
    let ties = at_key(&mut bytes[..before_end * size], format, cut.below);
    Counts { pruned: counts.pruned + ties, ..counts }
}

/// Elements of a block whose counts fit in 16 bits, so that counting vectorises.
const BLOCK: usize = 1024;

fn below16(bytes: &mut [u8], below: u32, infinity: u32) -> Counts {
    let (elements, rest) = bytes.as_chunks_mut::<2>();
    assert!(rest.is_empty(), "not whole 16-bit elements");
    let (below, infinity) = (below as i16, infinity as i16);
    let mut counts = Counts::default();
    for block in elements.chunks_mut(BLOCK) {
        let (mut pruned, mut zero, mut non_finite) = (0i16, 0i16, 0i16);
        for element in block {
            let bits = u16::from_le_bytes(*element);
            let key = (bits & 0x7fff) as i16;
            let dies = key > 0 && key < below;
            pruned += i16::from(dies);
            zero += i16::from(key == 0);
            non_finite += i16::from(key >= infinity);
            *element = if dies { 0 } else { bits }.to_le_bytes();
        }
        counts += Counts {
            pruned: pruned as u64,
            already_zero: zero as u64,
            non_finite: non_finite as u64,
        };
    }
    counts
}

fn below32(bytes: &mut [u8], below: u32, infinity: u32) -> Counts {
    let (elements, rest) = bytes.as_chunks_mut::<4>();
    assert!(rest.is_empty(), "not whole 32-bit elements");
    let (below, infinity) = (below as i32, infinity as i32);
    let mut counts = Counts::default();
    for block in elements.chunks_mut(BLOCK) {
        let (mut pruned, mut zero, mut non_finite) = (0i32, 0i32, 0i32);
        for element in block {
            let bits = u32::from_le_bytes(*element);
            let key = (bits & 0x7fff_ffff) as i32;
            let dies = key > 0 && key < below;
            pruned += i32::from(dies);
            zero += i32::from(key == 0);
            non_finite += i32::from(key >= infinity);
            *element = if dies { 0 } else { bits }.to_le_bytes();
        }
        counts += Counts {
            pruned: pruned as u64,
            already_zero: zero as u64,
            non_finite: non_finite as u64,
        };
    }
    counts
}

/// Zeroes every element of one non-zero finite key; returns how many there were.
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
