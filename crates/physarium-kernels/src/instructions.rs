/*!
The instruction set that this process computes with.

It is what the processor has, unless [`INSTRUCTIONS_VARIABLE`] names a smaller one, which tests use. This is the only
place that reads the variable.
*/

use std::sync::OnceLock;

use pulp::{Arch, NullaryFnOnce};

use crate::matvec::VectorKind;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::tiles::{avx512_bf16_is_fast, has_amx, has_avx512_bf16};

/// The environment variable that names the instruction set: `portable`, `avx2`, `avx512`, `avx512bf16`,
/// `neon` or `amx`.
pub const INSTRUCTIONS_VARIABLE: &str = "PHYSARIUM_INSTRUCTIONS";

/// The environment asks for an instruction set that this processor does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{INSTRUCTIONS_VARIABLE}={found}: expected an instruction set of this processor: {expected}"
)]
pub struct NoSuchInstructions {
    found: String,
    expected: String,
}

/// What this process computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instructions {
    /// The vector instructions.
    pub(crate) vectors: VectorKind,
    /// What BF16 numbers may be multiplied with.
    pub(crate) bf16: Bf16,
}

/// Which instructions for BF16 may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bf16 {
    /// Intel AMX.
    pub(crate) amx: bool,
    /// AVX-512 BF16.
    pub(crate) avx512: bool,
}

impl Bf16 {
    /// Those of the processor.
    fn of_processor() -> Bf16 {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        return Bf16 { amx: has_amx(), avx512: has_avx512_bf16() };
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        Bf16::default()
    }
}

impl Instructions {
    /// The instructions of this process.
    ///
    /// # Errors
    /// [`NoSuchInstructions`], if the environment asks for some that the processor does not have.
    pub(crate) fn of_process() -> Result<Instructions, NoSuchInstructions> {
        static OF_PROCESS: OnceLock<Result<Instructions, NoSuchInstructions>> = OnceLock::new();
        let read = || Instructions::named(std::env::var_os(INSTRUCTIONS_VARIABLE));
        OF_PROCESS.get_or_init(read).clone()
    }

    fn named(name: Option<std::ffi::OsString>) -> Result<Instructions, NoSuchInstructions> {
        let kinds = VectorKind::available();
        let best = Instructions {
            vectors: kinds.last().copied().unwrap_or(VectorKind::Portable),
            bf16: Bf16::of_processor(),
        };
        let Some(name) = name else { return Ok(best) };
        let none = Bf16::default();
        let vectors =
            kinds.iter().map(|kind| (kind.name(), Instructions { vectors: *kind, bf16: none }));
        let without_amx = Instructions { bf16: Bf16 { amx: false, ..best.bf16 }, ..best };
        let avx512_bf16 = best.bf16.avx512.then_some(("avx512bf16", without_amx));
        let amx = best.bf16.amx.then_some(("amx", best));
        let all: Vec<_> = vectors.chain(avx512_bf16).chain(amx).collect();
        let found = all.iter().find(|(known, _)| name == *known);
        found.map(|(_, instructions)| *instructions).ok_or_else(|| NoSuchInstructions {
            found: name.to_string_lossy().escape_default().to_string(),
            expected: all.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Checks that the processor has the instructions that the environment asks for.
///
/// # Errors
/// [`NoSuchInstructions`], if it does not.
pub fn check_instructions() -> Result<(), NoSuchInstructions> {
    Instructions::of_process().map(|_| ())
}

/// Whether products of BF16 numbers on AVX-512 take less time than in float32.
pub(crate) fn avx512_bf16_saves_time() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return avx512_bf16_is_fast();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Runs an operation, compiled for the vector instructions of this process.
///
/// The operation's `call`, and what it calls, must be `#[inline(always)]` to be compiled so; a closure is not.
///
/// Operations in Rust give the same bits on all of them, as long as they call no function of the platform's library.
pub fn dispatch<O: NullaryFnOnce>(operation: O) -> O::Output {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    ARCH.get_or_init(arch).dispatch(operation)
}

fn arch() -> Arch {
    let vectors = Instructions::of_process().map(|instructions| instructions.vectors);
    #[cfg(target_arch = "x86_64")]
    if vectors == Ok(VectorKind::Avx2) {
        return pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3);
    }
    match vectors {
        Ok(VectorKind::Portable) => Arch::Scalar,
        _ => Arch::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_what_the_processor_has() {
        let named = |name: &str| Instructions::named(Some(name.into()));
        for kind in VectorKind::available() {
            let found = named(kind.name()).expect("available");
            assert_eq!(found, Instructions { vectors: kind, bf16: Bf16::default() });
        }
        let bf16 = Bf16::of_processor();
        assert_eq!(named("amx").is_ok(), bf16.amx);
        let without_amx = named("avx512bf16").map(|found| found.bf16).ok();
        assert_eq!(without_amx, bf16.avx512.then_some(Bf16 { amx: false, avx512: true }));
        for unknown in ["", "AVX2", "sse9\u{1b}"] {
            let error = named(unknown).expect_err("unknown").to_string();
            assert!(error.starts_with("PHYSARIUM_INSTRUCTIONS="), "{error}");
            assert!(error.contains("portable") && !error.contains('\u{1b}'), "{error}");
        }
        assert!(Instructions::named(None).is_ok());
    }
}
