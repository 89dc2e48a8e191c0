//! A float32 as the sum of two BF16 numbers, which keep 16 of its 24 bits.

use pulp::NullaryFnOnce;

use super::tile::{TILE_DEPTH, TILE_ROWS, Tile};
use crate::instructions::dispatch;

/// Number of BF16 terms of a float32. Each rounds to 8 bits and a sign, so the relative error of the sum is at
/// most 2⁻¹⁷, about the rounding error of a float32 sum of a thousand products.
pub(crate) const TERMS: usize = 2;

/// Splits a band of at most [`TILE_ROWS`] rows into tiles: the two terms of each run of 32 inputs. Missing
/// rows and inputs are zero-padded.
///
/// `rows`: `[at most 16, depth]`. `tiles`: `[⌈depth / 32⌉, 2]`. AMX treats terms below the smallest normal
/// BF16 number (1e-38) as zero.
pub(crate) fn split_band(rows: &[f32], depth: usize, tiles: &mut [Tile]) {
    assert!(rows.len() <= TILE_ROWS * depth && rows.len().is_multiple_of(depth));
    assert_eq!(tiles.len(), depth.div_ceil(TILE_DEPTH) * TERMS);
    dispatch(SplitBand { rows, depth, tiles });
}

/// Writes the two terms of each value to two slices: `values[i] ≈ high[i] + low[i]`.
pub(crate) fn split(values: &[f32], high: &mut [u16], low: &mut [u16]) {
    assert!(values.len() == high.len() && values.len() == low.len());
    dispatch(
        #[inline(always)]
        || {
            for ((value, high), low) in values.iter().zip(high).zip(low) {
                [*high, *low] = two_terms(*value);
            }
        },
    );
}

struct SplitBand<'a> {
    rows: &'a [f32],
    depth: usize,
    tiles: &'a mut [Tile],
}

impl NullaryFnOnce for SplitBand<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (step, tiles) in self.tiles.as_chunks_mut::<TERMS>().0.iter_mut().enumerate() {
            let [high, low] = tiles;
            let begin = step * TILE_DEPTH;
            for row in 0..TILE_ROWS {
                let mut values = [0.0; TILE_DEPTH];
                if let Some(row) = self.rows.get(row * self.depth..(row + 1) * self.depth) {
                    match row[begin..].first_chunk() {
                        Some(whole) => values = *whole,
                        None => values[..self.depth - begin].copy_from_slice(&row[begin..]),
                    }
                }
                let (high, low) = (&mut high.0[row], &mut low.0[row]);
                for i in 0..TILE_DEPTH {
                    [high[i], low[i]] = two_terms(values[i]);
                }
            }
        }
    }
}

/// Bits of two BF16 numbers whose sum is `value` with a relative error of at most 2⁻¹⁷. Infinity and NaN both
/// give NaN.
#[inline(always)]
fn two_terms(value: f32) -> [u16; TERMS] {
    // To nearest, ties to even. A carry out of the largest exponent gives infinity, as it should.
    let round = |value: f32| {
        let bits = value.to_bits();
        bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
    };
    let high = if value.is_nan() { f32::NAN.to_bits() } else { round(value) };
    let low = round(value - f32::from_bits(high));
    [(high >> 16) as u16, (low >> 16) as u16]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_terms_add_up_to_the_value() {
        let widen = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
        let mut value = 1e-30f32;
        while value < 3e38 {
            let sum: f64 = two_terms(-value).map(widen).iter().sum();
            assert!((sum / -f64::from(value) - 1.0).abs() <= 2f64.powi(-17), "{value}: {sum}");
            value *= 1.000_37;
        }
        assert_eq!(two_terms(0.0), [0, 0]);
        assert_eq!(two_terms(1.5), [0x3fc0, 0]);
        assert!(two_terms(f32::NAN).map(widen).iter().any(|term| term.is_nan()));
    }

    #[test]
    fn a_band_is_split_tile_by_tile() {
        let depth = 40;
        let rows: Vec<f32> = (0..3 * depth).map(|i| i as f32).collect();
        let mut tiles = vec![Tile::ZERO; 2 * TERMS];
        split_band(&rows, depth, &mut tiles);
        let high = |step: usize, row: usize, i: usize| {
            f32::from_bits(u32::from(tiles[step * TERMS].0[row][i]) << 16)
        };
        assert_eq!(
            (high(0, 2, 5), high(1, 1, 7), high(1, 1, 8), high(0, 3, 0)),
            (85.0, 79.0, 0.0, 0.0)
        );
    }
}
