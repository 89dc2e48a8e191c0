//! A float32 as one BF16 number, which keeps 8 of its 24 bits, or as the sum of two, which keep 16.

use pulp::NullaryFnOnce;

use super::tile::{TILE_DEPTH, TILE_ROWS, Tile};
use crate::instructions::dispatch;

/// Number of BF16 terms of a float32. Each rounds to 8 bits and a sign, so the relative error of the sum of two is at
/// most 2⁻¹⁷, about the rounding error of a float32 sum of a thousand products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terms {
    One,
    Two,
}

impl Terms {
    pub(crate) fn count(self) -> usize {
        match self {
            Terms::One => 1,
            Terms::Two => 2,
        }
    }
}

/// Rows of float32 in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// From the first element of the first row on.
    pub(crate) values: &'a [f32],
    /// Distance between the first elements of two rows.
    pub(crate) stride: usize,
    /// Elements of a row.
    pub(crate) width: usize,
}

impl<'a> Rows<'a> {
    /// The row, or nothing if there are fewer.
    #[inline(always)]
    fn row(self, index: usize) -> Option<&'a [f32]> {
        self.values.get(index * self.stride..index * self.stride + self.width)
    }
}

/// Splits at most [`TILE_ROWS`] rows into tiles: the terms of each run of 32 inputs. Missing rows and inputs are
/// zero-padded.
///
/// `tiles`: `[⌈width / 32⌉, terms]`. AMX treats terms below the smallest normal BF16 number (1e-38) as zero.
pub(crate) fn split_band(rows: Rows<'_>, terms: Terms, tiles: &mut [Tile]) {
    assert_eq!(tiles.len(), rows.width.div_ceil(TILE_DEPTH) * terms.count());
    match terms {
        Terms::One => dispatch(SplitBand::<1> { rows, tiles }),
        Terms::Two => dispatch(SplitBand::<2> { rows, tiles }),
    }
}

/// Packs at most [`TILE_DEPTH`] rows of 16 columns, from column `first` on, as tiles of weights
/// `[16 pairs of rows, 16 columns, 2]`, one for each term. Missing rows and columns are zero-padded.
pub(crate) fn pack_columns<const TERMS: usize>(
    rows: Rows<'_>,
    first: usize,
    tiles: [&mut Tile; TERMS],
) {
    dispatch(PackColumns { rows, first, tiles });
}

struct PackColumns<'a, const TERMS: usize> {
    rows: Rows<'a>,
    first: usize,
    tiles: [&'a mut Tile; TERMS],
}

impl<const TERMS: usize> NullaryFnOnce for PackColumns<'_, TERMS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let PackColumns { rows, first, mut tiles } = self;
        let columns = |row: usize| -> [f32; TILE_ROWS] {
            let row = rows.row(row).and_then(|row| row.get(first..)).unwrap_or_default();
            match row.first_chunk() {
                Some(whole) => *whole,
                None => std::array::from_fn(|lane| row.get(lane).copied().unwrap_or(0.0)),
            }
        };
        for pair in 0..TILE_DEPTH / 2 {
            let (mut even, mut odd) = (columns(2 * pair), columns(2 * pair + 1));
            for tile in &mut tiles {
                let mut packed = [0u32; TILE_ROWS];
                for lane in 0..TILE_ROWS {
                    let (first, second) = (nearest(even[lane]), nearest(odd[lane]));
                    even[lane] -= f32::from_bits(first);
                    odd[lane] -= f32::from_bits(second);
                    // Little-endian: the first of a pair is in the low half.
                    packed[lane] = first >> 16 | second;
                }
                tile.0[pair] = bytemuck::cast(packed);
            }
        }
    }
}

struct SplitBand<'a, const TERMS: usize> {
    rows: Rows<'a>,
    tiles: &'a mut [Tile],
}

impl<const TERMS: usize> NullaryFnOnce for SplitBand<'_, TERMS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (step, tiles) in self.tiles.as_chunks_mut::<TERMS>().0.iter_mut().enumerate() {
            let begin = step * TILE_DEPTH;
            for row in 0..TILE_ROWS {
                let mut values = [0.0; TILE_DEPTH];
                if let Some(row) = self.rows.row(row) {
                    match row[begin..].first_chunk() {
                        Some(whole) => values = *whole,
                        None => values[..self.rows.width - begin].copy_from_slice(&row[begin..]),
                    }
                }
                for tile in &mut *tiles {
                    for (to, value) in tile.0[row].iter_mut().zip(&mut values) {
                        let term = nearest(*value);
                        *value -= f32::from_bits(term);
                        *to = (term >> 16) as u16;
                    }
                }
            }
        }
    }
}

/// Bits of the nearest BF16 number, ties to even, as those of a float32.
#[inline(always)]
fn nearest(value: f32) -> u32 {
    let bits = value.to_bits();
    // A carry out of the largest exponent gives infinity, as it should.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if value.is_nan() { f32::NAN.to_bits() } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The terms that `split_band` makes of a value.
    fn two_terms(value: f32) -> [u16; 2] {
        let mut tiles = [Tile::ZERO, Tile::ZERO];
        split_band(Rows { values: &[value], stride: 1, width: 1 }, Terms::Two, &mut tiles);
        tiles.map(|tile| tile.0[0][0])
    }

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
        let mut tiles = vec![Tile::ZERO; 4];
        split_band(Rows { values: &rows, stride: depth, width: depth }, Terms::Two, &mut tiles);
        let high = |step: usize, row: usize, i: usize| {
            f32::from_bits(u32::from(tiles[2 * step].0[row][i]) << 16)
        };
        assert_eq!(
            (high(0, 2, 5), high(1, 1, 7), high(1, 1, 8), high(0, 3, 0)),
            (85.0, 79.0, 0.0, 0.0)
        );
    }
}
