//! Which instructions the lanes run on, chosen when the program runs.

#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// Vectors that a product with one vector runs on. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorKind {
    /// What every processor has.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with VBMI2, which expands a row of 16-bit values by one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Arm's NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl VectorKind {
    /// Those that this processor has, the best one last.
    pub fn available() -> Vec<VectorKind> {
        let mut kinds = vec![VectorKind::Portable];
        #[cfg(target_arch = "aarch64")]
        kinds.push(VectorKind::Neon);
        #[cfg(target_arch = "x86_64")]
        {
            if Avx2::is_available() {
                kinds.push(VectorKind::Avx2);
            }
            if Avx512::is_available() {
                kinds.push(VectorKind::Avx512);
            }
        }
        kinds
    }

    /// The best one that this processor has.
    pub fn detect() -> VectorKind {
        VectorKind::available().pop().unwrap_or(VectorKind::Portable)
    }

    /// Its name for a report.
    pub fn name(self) -> &'static str {
        match self {
            VectorKind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            VectorKind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            VectorKind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            VectorKind::Neon => "neon",
        }
    }
}
