//! Whether this process can use Intel AMX, and AVX-512 BF16.

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// Whether the processor has AMX for BF16 and the operating system allows this process to use it.
pub(crate) fn has_amx() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let features = __cpuid_count(7, 0).edx;
        let (bf16, tiles) = (features >> 22 & 1 == 1, features >> 24 & 1 == 1);
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        bf16 && tiles && vectors && request_tiles()
    })
}

/// Whether the processor has AVX-512 BF16, and the operating system keeps its registers.
pub(crate) fn has_avx512_bf16() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512bf16")
}

/// Whether the processor has the instructions that tiles are packed with.
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// Whether products on AVX-512 BF16 take less time than in float32: twice the rate on AMD's Zen 4, but half of it to five
/// sixths on Intel's Sapphire Rapids (benchmarks/README.md).
pub(crate) fn avx512_bf16_is_fast() -> bool {
    let name = __cpuid(0);
    let letters = [name.ebx, name.edx, name.ecx].map(u32::to_le_bytes);
    letters.as_flattened() == b"AuthenticAMD"
}

/// Requests permission from Linux to use tiles in this process. Returns whether it was granted.
fn request_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: with these arguments arch_prctl takes two numbers and accesses no memory of this process.
    let refused =
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    refused == 0
}
