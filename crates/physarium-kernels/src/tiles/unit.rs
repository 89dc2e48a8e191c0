//! What multiplies tiles in this process.

use super::amx::TileUnit;
use super::available::{has_amx, has_avx512_bf16};
use super::avx512;
use super::sums::{Begin, Sums};
use super::terms::Terms;
use super::tile::Tile;

/// Instructions that multiply tiles. Each has an order of sums of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TileKind {
    /// Intel AMX.
    Amx,
    /// AVX-512 BF16; one term of an activation.
    Avx512Bf16,
}

impl TileKind {
    /// Whether this process can use them.
    fn is_available(self) -> bool {
        match self {
            TileKind::Amx => has_amx(),
            TileKind::Avx512Bf16 => has_avx512_bf16(),
        }
    }

    /// Prepares this thread for products.
    ///
    /// # Panics
    /// If the processor does not have the instructions.
    pub(crate) fn start(self) -> Multiplier {
        assert!(self.is_available(), "this processor has no {self:?}");
        match self {
            TileKind::Amx => Multiplier::Amx(TileUnit::configure()),
            TileKind::Avx512Bf16 => Multiplier::Avx512Bf16(Avx512Bf16(())),
        }
    }
}

/// A thread that is ready to multiply tiles.
pub(crate) enum Multiplier {
    Amx(TileUnit),
    Avx512Bf16(Avx512Bf16),
}

/// Shows that the processor has AVX-512 BF16.
pub(crate) struct Avx512Bf16(());

impl Multiplier {
    /// Adds the products of two bands of activations and two bands of weights to a 32 × 32 block of sums.
    ///
    /// `activations`: their terms, and two bands of `[steps, terms]` tiles, as `split_band` makes them. `weights`: two
    /// bands of `[steps]` tiles, as `pack_band` makes them.
    #[inline]
    pub(crate) fn block(
        &self,
        (terms, activations): (Terms, [&[Tile]; 2]),
        weights: [&[Tile]; 2],
        sums: &mut Sums,
        begin: Begin,
    ) {
        let steps = weights[0].len();
        assert!(steps > 0);
        assert!(weights.iter().all(|band| band.len() == steps));
        assert!(activations.iter().all(|band| band.len() == steps * terms.count()));
        match self {
            // SAFETY: the tiles are configured; the bands have the lengths asserted above.
            Multiplier::Amx(unit) => unsafe {
                unit.add_block((terms, activations), weights, sums, begin)
            },
            Multiplier::Avx512Bf16(Avx512Bf16(())) => {
                assert!(terms == Terms::One, "one term of an activation");
                // SAFETY: `start` has found that the processor has AVX-512 BF16.
                unsafe { avx512::add_block(activations, weights, sums, begin) }
            }
        }
    }
}
