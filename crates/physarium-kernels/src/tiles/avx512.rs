/*!
Products on AVX-512 BF16: one instruction adds 16 sums of two BF16 products in float32.

In: activations as one BF16 term, weights as BF16, both as tiles. Out: a 32 × 32 block of float32 sums. `vdpbf16ps` adds
the product of the second of a pair, then that of the first, each with one rounding; numbers below the smallest normal
float32 (1e-38) are zero. The products of a run of 256 inputs are a chain that begins at zero; the runs are added one
after the other. So the bits are the same on every processor that has the instruction.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, VDPBF16PS; AMD's processors from Zen 4 on have the same
results, by measurement.
*/

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use super::available::has_avx512_bf16;
use super::sums::{Begin, EDGE, Sums};
use super::tile::{TILE_ROWS, Tile};

/// Tiles over the depth whose products are one chain: 256 inputs.
pub(crate) const RUN: usize = 8;
/// Rows whose sums are in registers at once, for both bands of columns.
const ROWS: usize = 8;

/// Shows that the processor has AVX-512 BF16.
pub(crate) struct PairUnit(());

impl PairUnit {
    /// # Panics
    /// If the processor has no AVX-512 BF16.
    pub(super) fn start() -> PairUnit {
        assert!(has_avx512_bf16(), "this processor has no AVX-512 BF16");
        PairUnit(())
    }

    /// Adds the products of two bands of activations and two bands of weights to a 32 × 32 block of sums.
    ///
    /// All bands are `[steps]` tiles, and begin where a run does.
    #[inline]
    pub(super) fn add_block(
        &self,
        activations: [&[Tile]; 2],
        weights: [&[Tile]; 2],
        sums: &mut Sums,
        begin: Begin,
    ) {
        // SAFETY: `self` exists only where the processor has AVX-512 BF16.
        unsafe { add_block(activations, weights, sums, begin) }
    }
}

/// [`PairUnit::add_block`].
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_block(activations: [&[Tile]; 2], weights: [&[Tile]; 2], sums: &mut Sums, mut begin: Begin) {
    let [first, second] = weights.map(|band| band.chunks(RUN));
    for (run, weights) in first.zip(second).enumerate() {
        for row in (0..EDGE).step_by(ROWS) {
            let activations = &activations[row / TILE_ROWS][run * RUN..][..weights.0.len()];
            let chains = chains(activations, row % TILE_ROWS, [weights.0, weights.1]);
            for (sums, chains) in sums.0[row..row + ROWS].iter_mut().zip(chains) {
                for (sums, chain) in sums.as_chunks_mut::<TILE_ROWS>().0.iter_mut().zip(chains) {
                    // SAFETY: 16 sums are read and written.
                    unsafe {
                        let sum = match begin {
                            Begin::Zero => chain,
                            Begin::FromSums => _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), chain),
                        };
                        _mm512_storeu_ps(sums.as_mut_ptr(), sum);
                    }
                }
            }
        }
        begin = Begin::FromSums;
    }
}

/// The sums over a run for [`ROWS`] rows of activations from `row` on, and both bands of columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn chains(activations: &[Tile], row: usize, weights: [&[Tile]; 2]) -> [[__m512; 2]; ROWS] {
    let mut chains = [[_mm512_setzero_ps(); 2]; ROWS];
    let steps = activations.iter().zip(weights[0]).zip(weights[1]);
    for ((activations, first), second) in steps {
        let rows: &[[u16; 32]; ROWS] = activations.0[row..].first_chunk().expect("half a tile");
        for pair in 0..TILE_ROWS {
            let columns = [first, second].map(|tile| pairs_of(&tile.0[pair]));
            for (chains, row) in chains.iter_mut().zip(rows) {
                // Little-endian: the first of a pair is in the low half.
                let both = i32::from(row[2 * pair]) | i32::from(row[2 * pair + 1]) << 16;
                let both = as_bf16(_mm512_set1_epi32(both));
                for (chain, columns) in chains.iter_mut().zip(columns) {
                    *chain = _mm512_dpbf16_ps(*chain, both, columns);
                }
            }
        }
    }
    chains
}

/// A row of a tile of weights: a pair of inputs for each of 16 columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs_of(row: &[u16; 32]) -> __m512bh {
    // SAFETY: 64 bytes are read.
    as_bf16(unsafe { _mm512_loadu_si512(row.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes without invalid values.
    unsafe { transmute::<__m512i, __m512bh>(bits) }
}
