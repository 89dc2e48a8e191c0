//! A float32 as the exact sum of three BF16 numbers.

use pulp::{Arch, NullaryFnOnce};

/// BF16 terms of a float32: 8 + 8 + 8 bits of its 24.
pub(crate) const TERMS: usize = 3;

/// Rows of an activation tile, and of a weight tile's outputs.
pub(crate) const TILE_ROWS: usize = 16;
/// Inputs that a tile spans.
pub(crate) const TILE_DEPTH: usize = 32;

/// Sixteen rows of sixty-four bytes that AMX loads at once; a row is a cache line.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[u16; TILE_DEPTH]; TILE_ROWS]);

impl Tile {
    /// All nought.
    pub(crate) const ZERO: Tile = Tile([[0; TILE_DEPTH]; TILE_ROWS]);
}

/// Splits a band of [`TILE_ROWS`] rows into tiles: for each run of 32 inputs the three terms.
/// Rows and inputs that are not there are nought.
///
/// `rows`: `[at most 16, depth]`. `tiles`: `[depth / 32 rounded up, 3]`. Terms below
/// BF16's smallest normal number (1e-38) count as nought on AMX.
pub(crate) fn split_band(rows: &[f32], depth: usize, tiles: &mut [Tile]) {
    assert!(rows.len() <= TILE_ROWS * depth && rows.len().is_multiple_of(depth));
    assert_eq!(tiles.len(), depth.div_ceil(TILE_DEPTH) * TERMS);
    Arch::new().dispatch(SplitBand { rows, depth, tiles });
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
            let [high, middle, low] = tiles;
            let begin = step * TILE_DEPTH;
            for row in 0..TILE_ROWS {
                let mut values = [0.0; TILE_DEPTH];
                if let Some(row) = self.rows.get(row * self.depth..(row + 1) * self.depth) {
                    let here = &row[begin..(begin + TILE_DEPTH).min(self.depth)];
                    values[..here.len()].copy_from_slice(here);
                }
                let (high, middle, low) = (&mut high.0[row], &mut middle.0[row], &mut low.0[row]);
                for i in 0..TILE_DEPTH {
                    [high[i], middle[i], low[i]] = three_terms(values[i]);
                }
            }
        }
    }
}

/// Bits of three BF16 numbers whose sum is `value`. An infinite value gives NaN, as NaN does.
#[inline(always)]
fn three_terms(value: f32) -> [u16; TERMS] {
    let cut = |value: f32| f32::from_bits(value.to_bits() & 0xffff_0000);
    let bits = |value: f32| (value.to_bits() >> 16) as u16;
    let high = cut(value);
    let rest = value - high;
    let middle = cut(rest);
    [bits(high), bits(middle), bits(rest - middle)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_terms_add_up_to_the_value() {
        let widen = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        for value in [0.0, 1.0, -1.5, 0.1, std::f32::consts::PI, -1e-20, 3e38, 1.000_000_1, 7e-30] {
            let sum: f64 = three_terms(value).map(|bits| f64::from(widen(bits))).iter().sum();
            assert_eq!(sum, f64::from(value));
        }
    }

    #[test]
    fn a_band_is_laid_out_tile_by_tile() {
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
