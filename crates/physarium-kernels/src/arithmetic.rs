//! The arithmetic of products with many rows. Everything else has one arithmetic.

use std::fmt;

use crate::instructions::{Instructions, avx512_bf16_saves_time};

/// What a product with many rows computes. Results of one arithmetic have the same bits on every processor that has
/// it, whatever its instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Float32: each sum is a chain of fused multiply-adds in runs of 256 terms. Available everywhere.
    F32,
    /// As `F32`, but [coarse](crate::Compute::coarse) products of activations with BF16 weights, and sums over tokens, take
    /// activations rounded to BF16, 8 bits; sums are float32, in the order of AVX-512 BF16, which it needs.
    Bf16,
    /// For products with BF16 weights and of activations with each other, an activation is the sum of two BF16
    /// numbers, which have 16 bits together; sums are float32, in the order of Intel AMX. Needs AMX.
    Bf16x2,
}

/// This process cannot compute in an arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "arithmetic {0} needs a processor with {needed}, which this one has not, or may not use: \
     expected arithmetic f32, which every processor has",
    needed = match .0 { Arithmetic::Bf16 => "AVX-512 BF16", _ => "Intel AMX" }
)]
pub struct ArithmeticUnavailable(Arithmetic);

impl Arithmetic {
    /// All of them.
    pub const ALL: [Arithmetic; 3] = [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Bf16x2];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Bf16 => "bf16",
            Arithmetic::Bf16x2 => "bf16x2",
        }
    }

    /// What it does, for reports.
    pub fn description(self) -> &'static str {
        match self {
            Arithmetic::F32 => "float32",
            Arithmetic::Bf16 => "float32; in a calibration, activations rounded to 8 bits",
            Arithmetic::Bf16x2 => {
                "float32; activations rounded to 16 bits in products with BF16 weights"
            }
        }
    }

    /// The fastest one that this process has.
    pub fn of_machine() -> Arithmetic {
        match Instructions::of_process() {
            Ok(found) if found.bf16.amx => Arithmetic::Bf16x2,
            Ok(found) if found.bf16.avx512 && avx512_bf16_saves_time() => Arithmetic::Bf16,
            _ => Arithmetic::F32,
        }
    }

    /// Checks that this process can compute in it.
    ///
    /// # Errors
    /// [`ArithmeticUnavailable`], if it cannot.
    pub fn check(self) -> Result<(), ArithmeticUnavailable> {
        let bf16 = Instructions::of_process().map(|found| found.bf16).unwrap_or_default();
        let available = match self {
            Arithmetic::F32 => true,
            Arithmetic::Bf16 => bf16.avx512,
            Arithmetic::Bf16x2 => bf16.amx,
        };
        available.then_some(()).ok_or(ArithmeticUnavailable(self))
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The precision of a factor of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// At least 16 bits of each element.
    Full,
    /// Where that is faster, 8 bits of each element: enough for a step of an iteration that computes its residual anew,
    /// and for activations whose products are summed over many tokens.
    Coarse,
}
