//! The vector instructions of float32 products, selected at run time.

#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// Vector instructions that float32 products run on. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorKind {
    /// No special instructions: any processor.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with VBMI2, which expands 32 sparse 16-bit values with one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Arm NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl VectorKind {
    /// The kinds that this processor supports, the fastest last.
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

    /// Its name for reports.
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
