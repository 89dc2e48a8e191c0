/*!
Products on Intel AMX tiles: sixteen by sixteen sums of BF16 products in float32, by one instruction.

Activations come as two BF16 terms ([`crate::terms`]), weights as BF16. Every product of two BF16
numbers is exact in float32, and so are the sums up to their rounding: the result is that of float32
arithmetic on activations with 16 bits.
rustc has no stable intrinsics for AMX; these are its instructions.
*/

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use crate::terms::{TERMS, TILE_DEPTH, TILE_ROWS, Tile};

/// Whether the processor has AMX for BF16 and the operating system lets this process use it.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let features = __cpuid_count(7, 0).edx;
        let (bf16, tiles) = (features >> 22 & 1 == 1, features >> 24 & 1 == 1);
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        bf16 && tiles && vectors && ask_for_tiles()
    })
}

/// Asks Linux to save tiles with the threads of this process.
fn ask_for_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: arch_prctl takes two numbers here and touches no memory of ours.
    let refused =
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    refused == 0
}

/// The shapes of the eight tiles: all 16 rows of 64 bytes. The layout is the processor's.
#[repr(C, align(64))]
struct TileShapes([u8; 64]);

impl TileShapes {
    const FULL: TileShapes = {
        let mut bytes = [0; 64];
        bytes[0] = 1; // the palette
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = TILE_ROWS as u8;
            tile += 1;
        }
        TileShapes(bytes)
    };
}

/// This thread's tiles, configured; released when dropped.
pub(crate) struct Tiles(std::marker::PhantomData<*const ()>);

impl Tiles {
    /// # Panics
    /// Where there is no AMX.
    pub(crate) fn configure() -> Tiles {
        assert!(is_available(), "this processor has no AMX");
        let shapes = TileShapes::FULL;
        // SAFETY: AMX is there, the configuration is valid and is read before this returns.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack)) };
        Tiles(std::marker::PhantomData)
    }

    /// A 32 × 32 block of sums: two bands of activations by two of weights.
    ///
    /// `activations`: two bands of `[steps, 2]` tiles. `weights`: two bands of `[steps]` as
    /// [`pack_band`] lays them out. `sums`: `[32, 32]`, begun from nought or from what is there.
    #[inline]
    pub(crate) fn block(
        &self,
        activations: [&[Tile]; 2],
        weights: [&[Tile]; 2],
        sums: Sums<'_>,
        begin: Begin,
    ) {
        let steps = weights[0].len();
        assert!(steps > 0);
        assert!(weights.iter().all(|band| band.len() == steps));
        assert!(activations.iter().all(|band| band.len() == steps * TERMS));
        let (c, stride) = (sums.begin, sums.stride_bytes);
        // SAFETY: `self` says that the tiles are configured. The lengths just asserted are what the
        // loop reads: one weight tile and two activation tiles of each band a step. `Sums` says
        // that 32 rows of 32 floats are there to be read and written.
        unsafe {
            match begin {
                Begin::Nought => asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack)
                ),
                Begin::FromSums => asm!(
                    "tileloadd tmm0, [{c} + {s}]", "tileloadd tmm1, [{c} + {s} + 64]",
                    "tileloadd tmm2, [{d} + {s}]", "tileloadd tmm3, [{d} + {s} + 64]",
                    c = in(reg) c, d = in(reg) c.byte_add(TILE_ROWS * stride), s = in(reg) stride,
                    options(nostack)
                ),
            }
            asm!(
                "2:",
                "tileloadd tmm6, [{b0} + {row}]",
                "tileloadd tmm7, [{b1} + {row}]",
                "tileloadd tmm4, [{a0} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm4, [{a0} + {row} + 1024]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {b0}, 1024", "add {b1}, 1024", "add {a0}, 2048", "add {a1}, 2048",
                "dec {steps}", "jnz 2b",
                b0 = inout(reg) weights[0].as_ptr() => _, b1 = inout(reg) weights[1].as_ptr() => _,
                a0 = inout(reg) activations[0].as_ptr() => _,
                a1 = inout(reg) activations[1].as_ptr() => _,
                row = in(reg) 64usize, steps = inout(reg) steps => _,
                options(nostack)
            );
            asm!(
                "tilestored [{c} + {s}], tmm0", "tilestored [{c} + {s} + 64], tmm1",
                "tilestored [{d} + {s}], tmm2", "tilestored [{d} + {s} + 64], tmm3",
                c = in(reg) c, d = in(reg) c.byte_add(TILE_ROWS * stride), s = in(reg) stride,
                options(nostack)
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there is AMX, or there would be no `Tiles`.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// What sums begin from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// From nought.
    Nought,
    /// From what the block holds: the sums over the inputs before.
    FromSums,
}

/// A block of 32 rows of 32 floats in memory that is this thread's alone.
#[derive(Clone, Copy)]
pub(crate) struct Sums<'a> {
    begin: *mut f32,
    stride_bytes: usize,
    borrowed: std::marker::PhantomData<&'a mut f32>,
}

impl Sums<'_> {
    /// # Safety
    /// For the lifetime, 32 rows of 32 floats, `stride` floats apart, can be read and written at
    /// `begin` by this thread and nobody else.
    pub(crate) unsafe fn new(begin: *mut f32, stride: usize) -> Self {
        Sums { begin, stride_bytes: stride * 4, borrowed: std::marker::PhantomData }
    }
}

/// Lays out 16 rows of BF16 weights for AMX: for each run of 32 inputs, `[16 pairs, 16 rows, 2]`.
///
/// `rows`: `[at most 16, depth]`. Rows and inputs that are not there are nought, which `packed` is
/// before.
pub(crate) fn pack_band(rows: &[u16], depth: usize, packed: &mut [Tile]) {
    assert!(rows.len().is_multiple_of(depth) && rows.len() <= TILE_ROWS * depth);
    assert!(packed.len() == depth.div_ceil(TILE_DEPTH));
    let whole = rows.len() == TILE_ROWS * depth;
    for (step, tile) in packed.iter_mut().enumerate() {
        let begin = step * TILE_DEPTH;
        let end = (begin + TILE_DEPTH).min(depth);
        if whole && end - begin == TILE_DEPTH && is_available() {
            // SAFETY: there is AMX and with it AVX-512; 16 rows of 32 weights from `begin` are in
            // `rows`, as asserted.
            unsafe { transpose_pairs(rows.as_ptr().add(begin), depth, tile) };
            continue;
        }
        for (n, row) in rows.chunks_exact(depth).enumerate() {
            for (k, weight) in row[begin..end].iter().enumerate() {
                tile.0[k / 2][2 * n + k % 2] = *weight;
            }
        }
    }
}

/// Transposes 16 rows of 16 pairs: `to[pair][row] = from[row][pair]`.
///
/// # Safety
/// The processor has AVX-512F; `from` has 16 rows of 32 elements `stride` apart.
#[target_feature(enable = "avx512f")]
unsafe fn transpose_pairs(from: *const u16, stride: usize, to: &mut Tile) {
    use std::arch::x86_64::*;
    // SAFETY: as the caller says.
    let load = |row: usize| unsafe { _mm512_loadu_si512(from.add(row * stride).cast()) };
    let mut rows: [__m512i; 16] = std::array::from_fn(load);
    let mut next = rows;
    for i in 0..8 {
        next[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        next[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..4 {
        rows[4 * i] = _mm512_unpacklo_epi64(next[4 * i], next[4 * i + 2]);
        rows[4 * i + 1] = _mm512_unpackhi_epi64(next[4 * i], next[4 * i + 2]);
        rows[4 * i + 2] = _mm512_unpacklo_epi64(next[4 * i + 1], next[4 * i + 3]);
        rows[4 * i + 3] = _mm512_unpackhi_epi64(next[4 * i + 1], next[4 * i + 3]);
    }
    // Now 128-bit lane L of rows[4 g + j] holds pair 4 L + j of rows 4 g .. 4 g + 4.
    for j in 0..4 {
        let low = _mm512_shuffle_i32x4::<0x88>(rows[j], rows[4 + j]);
        let high = _mm512_shuffle_i32x4::<0x88>(rows[8 + j], rows[12 + j]);
        let low_odd = _mm512_shuffle_i32x4::<0xdd>(rows[j], rows[4 + j]);
        let high_odd = _mm512_shuffle_i32x4::<0xdd>(rows[8 + j], rows[12 + j]);
        next[j] = _mm512_shuffle_i32x4::<0x88>(low, high);
        next[8 + j] = _mm512_shuffle_i32x4::<0xdd>(low, high);
        next[4 + j] = _mm512_shuffle_i32x4::<0x88>(low_odd, high_odd);
        next[12 + j] = _mm512_shuffle_i32x4::<0xdd>(low_odd, high_odd);
    }
    for (to, row) in to.0.iter_mut().zip(next) {
        // SAFETY: a row of a tile is 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), row) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_laid_out_in_pairs_of_inputs() {
        for rows in [16, 5] {
            let depth = 75;
            let weights: Vec<u16> = (0..rows * depth).map(|i| i as u16).collect();
            let mut packed = vec![Tile::ZERO; 3];
            pack_band(&weights, depth, &mut packed);
            let all = packed.iter().flat_map(|tile| tile.0.iter().flatten());
            for (at, found) in all.enumerate() {
                let (step, pair, n, odd) = (at / 512, at % 512 / 32, at % 32 / 2, at % 2);
                let k = step * 32 + 2 * pair + odd;
                let expected = if n < rows && k < depth { n * depth + k } else { 0 };
                assert_eq!(usize::from(*found), expected, "{at}");
            }
        }
    }
}
