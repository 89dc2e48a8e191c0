//! Seeded random numbers and weights.

use std::io::{self, Write};

use crate::tensor::Kind;

/// A small generator (SplitMix64), the same on every machine.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    /// A generator whose numbers depend on the seed and on a name.
    pub fn named(seed: u64, name: &str) -> Noise {
        let hash = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Noise(name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, hash))
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number from 0 to `n` − 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// Two Gaussian weights of standard deviation 0.02 (Box-Muller).
    fn gaussians(&mut self) -> [f32; 2] {
        let bits = self.bits();
        let radius = ((bits >> 32) as u32 | 1) as f32 / u32::MAX as f32;
        let angle = (bits as u32) as f32 / u32::MAX as f32 * std::f32::consts::TAU;
        let length = 0.02 * (-2.0 * radius.ln()).sqrt();
        [length * angle.cos(), length * angle.sin()]
    }

    /// Writes `elements` of a kind; one weight in 1,024 is zero, half of those -0.0.
    pub fn write(&mut self, out: &mut impl Write, kind: Kind, elements: u64) -> io::Result<()> {
        let mut left = elements;
        while left > 0 {
            let zero = self.bits();
            for mut value in self.gaussians().into_iter().take(left.min(2) as usize) {
                if zero.is_multiple_of(1024) {
                    value = if zero & 2048 == 0 { 0.0 } else { -0.0 };
                }
                match kind {
                    Kind::Bf16 => out.write_all(&half::bf16::from_f32(value).to_le_bytes())?,
                    Kind::F16 => out.write_all(&half::f16::from_f32(value).to_le_bytes())?,
                    Kind::F32 => out.write_all(&value.to_le_bytes())?,
                    Kind::Bytes(_) => out.write_all(&[zero as u8])?,
                }
                left -= 1;
            }
        }
        Ok(())
    }
}
