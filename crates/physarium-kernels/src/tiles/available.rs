//! Whether this process can use Intel AMX.

use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Whether the processor has AMX for BF16 and the operating system allows this process to use it.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let features = __cpuid_count(7, 0).edx;
        let (bf16, tiles) = (features >> 22 & 1 == 1, features >> 24 & 1 == 1);
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        bf16 && tiles && vectors && request_tiles()
    })
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
