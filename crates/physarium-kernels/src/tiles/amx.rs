/*!
Products on Intel AMX tiles: one instruction adds 16 × 16 sums of BF16 products in float32.

In: activations as one or two BF16 terms, weights as BF16, both as tiles. Out: a 32 × 32 block of float32 sums. The
product of two BF16 numbers is exact in float32, so the result is that of float32 arithmetic on activations
with 8 or 16 bits.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, AMX-TILE and AMX-BF16. Stable Rust has no
intrinsics for AMX, so this file uses inline assembly.
*/

use std::arch::asm;

use super::available::has_amx;
use super::sums::{Begin, EDGE, Sums};
use super::terms::Terms;
use super::tile::{TILE_ROWS, Tile};

/// The shapes of the eight tile registers, 16 rows of 64 bytes each, in the layout that `ldtilecfg` reads.
#[repr(C, align(64))]
struct TileShapes([u8; 64]);

impl TileShapes {
    const FULL: TileShapes = {
        let mut bytes = [0; 64];
        bytes[0] = 1; // palette
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = TILE_ROWS as u8;
            tile += 1;
        }
        TileShapes(bytes)
    };
}

/// The tile registers of this thread, configured; they are released on drop.
pub(crate) struct TileUnit(std::marker::PhantomData<*const ()>);

impl TileUnit {
    /// Configures the tile registers of this thread.
    ///
    /// # Panics
    /// If the processor has no AMX.
    pub(crate) fn configure() -> TileUnit {
        assert!(has_amx(), "this processor has no AMX");
        let shapes = TileShapes::FULL;
        // SAFETY: the processor has AMX; the configuration is valid and is read before this returns.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack)) };
        TileUnit(std::marker::PhantomData)
    }

    /// Adds the products of two bands of activations and two bands of weights to a 32 × 32 block of sums.
    ///
    /// # Safety
    /// All bands have one tile of weights, and as many of activations as there are terms, for each step, at least one.
    #[inline]
    pub(super) unsafe fn add_block(
        &self,
        (terms, activations): (Terms, [&[Tile]; 2]),
        weights: [&[Tile]; 2],
        sums: &mut Sums,
        begin: Begin,
    ) {
        // SAFETY: `self` exists only while the tiles are configured; the lengths are guaranteed by the caller.
        unsafe {
            sums.begin(begin);
            match terms {
                Terms::One => add_one_term(activations, weights),
                Terms::Two => add_two_terms(activations, weights),
            }
            sums.store();
        }
    }
}

/// Adds the products of activations of one term to the sums in the first four tiles.
///
/// # Safety
/// The tiles are configured; all bands have as many tiles, at least one.
#[inline]
unsafe fn add_one_term(activations: [&[Tile]; 2], weights: [&[Tile]; 2]) {
    let steps = weights[0].len();
    // SAFETY: guaranteed by the caller: each step reads a tile of each band.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm6, [{b0} + {row}]",
            "tileloadd tmm4, [{a0} + {row}]",
            "tileloadd tmm7, [{b1} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {b0}, 1024", "add {b1}, 1024", "add {a0}, 1024", "add {a1}, 1024",
            "dec {steps}", "jnz 2b",
            b0 = inout(reg) weights[0].as_ptr() => _, b1 = inout(reg) weights[1].as_ptr() => _,
            a0 = inout(reg) activations[0].as_ptr() => _,
            a1 = inout(reg) activations[1].as_ptr() => _,
            row = in(reg) 64usize, steps = inout(reg) steps => _,
            options(nostack)
        );
    }
}

/// The same of two terms.
///
/// # Safety
/// The tiles are configured; bands of weights have as many tiles, at least one, and those of activations twice as many.
#[inline]
unsafe fn add_two_terms(activations: [&[Tile]; 2], weights: [&[Tile]; 2]) {
    let steps = weights[0].len();
    // SAFETY: guaranteed by the caller: each step reads a tile of each band of weights, and two of activations.
    unsafe {
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
    }
}

impl Drop for TileUnit {
    fn drop(&mut self) {
        // SAFETY: the processor has AMX, as `configure` asserted.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Bytes from a row of sums to the next.
const STRIDE: usize = size_of::<[f32; EDGE]>();

impl Sums {
    /// Sets the first four tiles to the initial values.
    ///
    /// # Safety
    /// The tiles are configured.
    unsafe fn begin(&self, begin: Begin) {
        let c = self.0.as_ptr().cast::<f32>();
        // SAFETY: guaranteed by the caller; the block has 32 rows.
        unsafe {
            match begin {
                Begin::Zero => asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack)
                ),
                Begin::FromSums => asm!(
                    "tileloadd tmm0, [{c} + {s}]", "tileloadd tmm1, [{c} + {s} + 64]",
                    "tileloadd tmm2, [{d} + {s}]", "tileloadd tmm3, [{d} + {s} + 64]",
                    c = in(reg) c, d = in(reg) c.byte_add(TILE_ROWS * STRIDE), s = in(reg) STRIDE,
                    options(nostack)
                ),
            }
        }
    }

    /// Stores the first four tiles.
    ///
    /// # Safety
    /// The tiles are configured.
    unsafe fn store(&mut self) {
        let c = self.0.as_mut_ptr().cast::<f32>();
        // SAFETY: guaranteed by the caller; the block has 32 rows.
        unsafe {
            asm!(
                "tilestored [{c} + {s}], tmm0", "tilestored [{c} + {s} + 64], tmm1",
                "tilestored [{d} + {s}], tmm2", "tilestored [{d} + {s} + 64], tmm3",
                c = in(reg) c, d = in(reg) c.byte_add(TILE_ROWS * STRIDE), s = in(reg) STRIDE,
                options(nostack)
            );
        }
    }
}
