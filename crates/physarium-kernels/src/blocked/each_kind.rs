//! The vectors of float32 and float64 on each instruction set.

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
use super::vector::{Number, Vector};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// A number with its vectors.
pub(crate) trait Vectors: Number {
    type Portable: Vector<Number = Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx2: Vector<Number = Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx512: Vector<Number = Self>;
    #[cfg(target_arch = "aarch64")]
    type Neon: Vector<Number = Self>;
}

impl Vectors for f32 {
    type Portable = portable::Four<f32>;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = avx2::Eight;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = avx512::Sixteen;
    #[cfg(target_arch = "aarch64")]
    type Neon = neon::Four;
}

impl Vectors for f64 {
    type Portable = portable::Four<f64>;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = avx2::FourDouble;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = avx512::EightDouble;
    #[cfg(target_arch = "aarch64")]
    type Neon = neon::TwoDouble;
}
