//! A matrix divided into tiles, and the count of zeros in each.

use std::sync::atomic::{AtomicU32, Ordering};

use physarium_checkpoint::{Dtype, MatrixView, TargetPlan};

use super::EDGE;

/// Most tiles of all maps together: a map of more would make a report that no browser opens quickly.
const MOST_TILES: u64 = 250_000;
/// Largest edge; a count of such a tile fits in 32 bits.
const LARGEST_EDGE: u64 = 2048;

/// The edge of the tiles of all maps of a plan.
pub(crate) fn edge_for(plan: &TargetPlan) -> u64 {
    let tiles = |edge: u64| -> u64 {
        let views = plan.targets().flat_map(|target| &target.views);
        views.map(|view| view.rows.div_ceil(edge).saturating_mul(view.cols.div_ceil(edge))).sum()
    };
    let mut edge = EDGE;
    while edge < LARGEST_EDGE && tiles(edge) > MOST_TILES {
        edge *= 2;
    }
    edge
}

/// The zeros of the tiles of a matrix, to which several threads add.
#[derive(Debug)]
pub(crate) struct TileCounts {
    /// Dimensions of the matrix.
    shape: [u64; 2],
    edge: u64,
    counts: Vec<AtomicU32>,
}

impl TileCounts {
    /// Counts of zero.
    pub fn new(view: &MatrixView, edge: u64) -> TileCounts {
        let shape = [view.rows, view.cols];
        let [down, across] = shape.map(|all| all.div_ceil(edge));
        let counts = (0..down * across).map(|_| AtomicU32::new(0)).collect();
        TileCounts { shape, edge, counts }
    }

    /// Adds the zeros of consecutive weights, the first of which is element `first` of the matrix, to the counts of
    /// their tiles.
    pub fn count(&self, first: u64, weights: &[u8], dtype: Dtype) {
        let [_, cols] = self.shape;
        let (size, across) = (dtype.bits() as usize / 8, cols.div_ceil(self.edge));
        let (mut at, mut rest) = (first, weights);
        let mut band = vec![0u32; across as usize];
        while !rest.is_empty() {
            // To the end of the band of tiles.
            let row = at / cols / self.edge;
            let left = ((row + 1) * self.edge * cols - at) as usize * size;
            let (weights, after) = rest.split_at(left.min(rest.len()));
            self.add_runs(at % cols, weights, dtype, &mut band);
            let counts = &self.counts[(row * across) as usize..][..band.len()];
            for (total, zeros) in counts.iter().zip(&mut band) {
                total.fetch_add(std::mem::take(zeros), Ordering::Relaxed);
            }
            at += (weights.len() / size) as u64;
            rest = after;
        }
    }

    /// Adds the zeros of weights in one band of tiles to the counts of its tiles; the first weight is in this column.
    fn add_runs(&self, mut col: u64, mut weights: &[u8], dtype: Dtype, band: &mut [u32]) {
        let ([_, cols], size) = (self.shape, dtype.bits() as usize / 8);
        while !weights.is_empty() {
            let to_border = (self.edge - col % self.edge).min(cols - col) as usize;
            let (run, after) = weights.split_at((to_border * size).min(weights.len()));
            band[(col / self.edge) as usize] += zeros(run, dtype);
            col = (col + (run.len() / size) as u64) % cols;
            weights = after;
        }
    }

    /// The counts, row by row of tiles.
    pub fn finish(self) -> Vec<u32> {
        self.counts.into_iter().map(AtomicU32::into_inner).collect()
    }
}

macro_rules! zeros {
    ($weights:expr, $bits:ty) => {{
        let (weights, rest) = $weights.as_chunks::<{ size_of::<$bits>() }>();
        assert!(rest.is_empty(), "not whole elements");
        // Wrapping additions vectorise. They cannot wrap here: a run is not longer than the largest edge.
        let count = weights.iter().fold(0 as $bits, |count, weight| {
            count.wrapping_add(<$bits>::from(<$bits>::from_le_bytes(*weight) << 1 == 0))
        });
        u32::from(count)
    }};
}

/// Number of zeros of either sign in a run of weights.
fn zeros(run: &[u8], dtype: Dtype) -> u32 {
    match dtype {
        Dtype::BF16 | Dtype::F16 => zeros!(run, u16),
        Dtype::F32 => zeros!(run, u32),
        other => panic!("{other} is not a prunable dtype"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::TileMap;
    use super::*;

    /// Weights of which every third is zero.
    fn weights(count: usize, size: usize) -> Vec<u8> {
        (0..count).flat_map(|i| vec![u8::from(i % 3 != 0); size]).collect()
    }

    #[test]
    fn every_weight_is_counted_in_its_tile_whatever_the_chunks() {
        let matrix = || TileCounts {
            shape: [5, 7],
            edge: 3,
            counts: (0..6).map(|_| AtomicU32::new(0)).collect(),
        };
        for (dtype, size) in [(Dtype::BF16, 2), (Dtype::F32, 4)] {
            let weights = weights(35, size);
            for chunk in [1, 2, 7, 10, 35] {
                let matrix = matrix();
                for (index, part) in weights.chunks(chunk * size).enumerate() {
                    matrix.count((index * chunk) as u64, part, dtype);
                }
                let mut expected = vec![0; 6];
                for at in (0..35).step_by(3) {
                    expected[at / 7 / 3 * 3 + at % 7 / 3] += 1;
                }
                let counts = matrix.finish();
                assert_eq!(counts, expected, "{dtype} in chunks of {chunk}");
                let tiles = TileMap::new([5, 7], 3, &counts).tiles().expect("a map");
                assert_eq!(tiles.iter().map(|[zeros, _]| zeros).sum::<u64>(), 12);
                assert_eq!(
                    tiles.iter().map(|[_, all]| *all).collect::<Vec<_>>(),
                    [9, 9, 3, 6, 6, 2]
                );
            }
        }
    }

    #[test]
    fn both_zeros_count() {
        let weights: Vec<u8> =
            [0x8000u16, 0, 1, 0x8001].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(zeros(&weights, Dtype::F16), 2);
    }

    #[test]
    fn a_map_that_was_changed_is_none() {
        let map = TileMap::new([3, 3], 2, &[4, 2, 0, 1]);
        assert_eq!(map.tiles().expect("a map")[3], [1, 1]);
        let changed = |change: fn(&mut TileMap)| {
            let mut map = map.clone();
            change(&mut map);
            map.tiles()
        };
        assert_eq!(changed(|map| map.edge = 0), None);
        assert_eq!(changed(|map| map.edge = 1), None);
        assert_eq!(changed(|map| map.shape = [u64::MAX, u64::MAX]), None);
        assert_eq!(changed(|map| map.zeros.truncate(3)), None);
        assert_eq!(changed(|map| *map = TileMap::new([3, 3], 2, &[5, 0, 0, 0])), None);
    }
}
