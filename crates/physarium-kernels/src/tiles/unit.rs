//! What multiplies tiles in this process.

use super::amx::TileUnit;
use super::avx512::PairUnit;
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
    /// Prepares this thread for products.
    ///
    /// # Panics
    /// If the processor does not have the instructions.
    pub(crate) fn start(self) -> Multiplier {
        match self {
            TileKind::Amx => Multiplier::Amx(TileUnit::configure()),
            TileKind::Avx512Bf16 => Multiplier::Avx512Bf16(PairUnit::start()),
        }
    }
}

/// A thread that is ready to multiply tiles.
pub(crate) enum Multiplier {
    Amx(TileUnit),
    Avx512Bf16(PairUnit),
}

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
            Multiplier::Avx512Bf16(unit) => {
                assert!(terms == Terms::One, "one term of an activation");
                unit.add_block(activations, weights, sums, begin);
            }
        }
    }
}
