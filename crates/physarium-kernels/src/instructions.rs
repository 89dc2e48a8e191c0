//! The instruction set that products with many rows run on.

/// Ways to compute the product of BF16 weights and float32 activations.
///
/// Both sum in float32. They differ in the order of the sums and in the precision of the activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Instructions {
    /// The `gemm` crate in float32, on the vector instructions of the processor.
    Portable,
    /// Intel AMX tiles: an activation is the sum of two BF16 terms, which have 16 bits together.
    Amx,
}

impl Instructions {
    /// Its name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Instructions::Portable => "vector",
            Instructions::Amx => "amx",
        }
    }

    /// The arithmetic of its products, for reports.
    pub fn arithmetic(self) -> &'static str {
        match self {
            Instructions::Portable => "float32",
            Instructions::Amx => {
                "float32; activations rounded to 16 bits in products with BF16 weights"
            }
        }
    }

    /// The fastest one that the processor and the operating system support.
    pub fn detect() -> Instructions {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if crate::tiles::is_available() {
            return Instructions::Amx;
        }
        Instructions::Portable
    }
}
