//! BF16 weights as tiles, in the layouts of the two factors of AMX, which are those of AVX-512 BF16 too.

use super::available::has_avx512;
use super::tile::{TILE_DEPTH, TILE_ROWS, Tile};

/// Packs 16 rows of BF16 weights: each run of 32 inputs is a tile `[16 pairs, 16 rows, 2]`.
///
/// `rows`: `[at most 16, depth]`. Elements of `packed` for missing rows and inputs become zero.
pub(crate) fn pack_band(rows: &[u16], depth: usize, packed: &mut [Tile]) {
    assert!(rows.len().is_multiple_of(depth) && rows.len() <= TILE_ROWS * depth);
    assert!(packed.len() == depth.div_ceil(TILE_DEPTH));
    let whole = rows.len() == TILE_ROWS * depth;
    for (step, tile) in packed.iter_mut().enumerate() {
        let begin = step * TILE_DEPTH;
        let end = (begin + TILE_DEPTH).min(depth);
        if whole && end - begin == TILE_DEPTH && has_avx512() {
            // SAFETY: the processor has AVX-512; `rows` holds 16 rows of 32 weights from
            // `begin` on, as checked.
            unsafe { transpose_pairs(rows.as_ptr().add(begin), depth, tile) };
            continue;
        }
        *tile = Tile::ZERO;
        for (n, row) in rows.chunks_exact(depth).enumerate() {
            for (k, weight) in row[begin..end].iter().enumerate() {
                tile.0[k / 2][2 * n + k % 2] = *weight;
            }
        }
    }
}

/// A tile of weights `[16 pairs, 16 outputs, 2]` as one of rows `[16 outputs, 16 pairs, 2]`.
///
/// # Panics
/// If the processor has no AVX-512.
pub(crate) fn transpose_pairs_of(from: &Tile, to: &mut Tile) {
    assert!(has_avx512(), "this processor has no AVX-512");
    // SAFETY: the processor has AVX-512; a tile is 16 rows of 32 elements.
    unsafe { transpose_pairs(from.0.as_ptr().cast(), TILE_DEPTH, to) };
}

/// Transposes 16 rows of 16 pairs: `to[pair][row] = from[row][pair]`.
///
/// # Safety
/// The processor has AVX-512F; at `from`, 16 rows of 32 elements, `stride` apart, can be read.
#[target_feature(enable = "avx512f")]
unsafe fn transpose_pairs(from: *const u16, stride: usize, to: &mut Tile) {
    use std::arch::x86_64::*;
    // SAFETY: guaranteed by the caller.
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
    // Here 128-bit lane L of rows[4 g + j] holds pair 4 L + j of input rows 4 g .. 4 g + 4.
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
    fn weights_are_packed_in_pairs_of_inputs() {
        for rows in [16, 5] {
            let depth = 75;
            let weights: Vec<u16> = (0..rows * depth).map(|i| i as u16).collect();
            // As of an earlier product.
            let mut packed = vec![Tile([[0x7f80; TILE_DEPTH]; TILE_ROWS]); 3];
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
