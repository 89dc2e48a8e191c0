/*!
The distinct magnitudes of a tile and how often each occurs.

In: a [`TileView`]. Out: [`Magnitudes`].

A 16-bit format has at most 32,768 magnitudes: a table counts them. A 32-bit format has 2³¹: the keys
are sorted (radix sort, three passes) and run-length encoded. Both give the same [`Magnitudes`].
*/

use crate::format::{FloatFormat, KEYS_16, keys16, keys32};
use crate::tile::TileView;

/// The distinct non-zero finite magnitudes of a tile, ascending, with their counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Magnitudes {
    /// Keys, ascending, without those of zero, infinity and NaN.
    pub keys: Vec<u32>,
    /// Number of weights with each key.
    pub counts: Vec<u32>,
    /// Number of weights that are +0.0 or -0.0.
    pub zeros: u64,
    /// Number of weights that are infinite or NaN.
    pub non_finite: u64,
}

impl Magnitudes {
    /// Number of finite weights, including zeros.
    pub fn finite(&self) -> u64 {
        self.zeros + self.counts.iter().map(|&count| u64::from(count)).sum::<u64>()
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.counts.clear();
        (self.zeros, self.non_finite) = (0, 0);
    }

    /// Stores sorted keys, all of them non-zero and finite.
    fn store_sorted(&mut self, sorted: &[u32]) {
        let Some(&first) = sorted.first() else { return };
        self.keys.resize(sorted.len(), first);
        self.counts.resize(sorted.len(), 0);
        // Branch-free: whether two keys are equal is unpredictable.
        let (mut last, mut current) = (0, first);
        for &key in sorted {
            last += usize::from(key != current);
            current = key;
            self.keys[last] = key;
            self.counts[last] += 1;
        }
        self.keys.truncate(last + 1);
        self.counts.truncate(last + 1);
    }

    /// Stores the next distinct key; keys come in ascending order.
    fn push(&mut self, key: u32, count: u32, infinity_key: u32) {
        if key == 0 {
            self.zeros += u64::from(count);
        } else if key < infinity_key {
            self.keys.push(key);
            self.counts.push(count);
        } else {
            self.non_finite += u64::from(count);
        }
    }
}

/// Counts the magnitudes of one tile after another; memory is allocated once and reused.
#[derive(Debug, Default)]
pub struct Census {
    table: Vec<u32>,
    keys: Vec<u32>,
    spare: Vec<u32>,
    found: Magnitudes,
}

impl Census {
    /// Counts the magnitudes of one tile.
    ///
    /// # Panics
    /// If the tile has 2³² elements or more.
    pub fn take(&mut self, tile: &TileView<'_>) -> &Magnitudes {
        assert!(tile.len() < 1 << 32, "a tile of {} elements", tile.len());
        self.found.clear();
        match tile.format() {
            FloatFormat::Bf16 | FloatFormat::F16 => self.take16(tile),
            FloatFormat::F32 => self.take32(tile),
        }
        &self.found
    }

    /// Upper bound of the scratch memory of one census, in bytes, for a tile of `elements`.
    pub fn scratch_bytes(format: FloatFormat, elements: u64) -> u64 {
        let counting = match format {
            FloatFormat::Bf16 | FloatFormat::F16 => 4 * KEYS_16 as u64,
            FloatFormat::F32 => 8 * elements,
        };
        counting + 8 * format.distinct_at_most(elements)
    }

    fn take16(&mut self, tile: &TileView<'_>) {
        self.table.resize(KEYS_16, 0);
        let table: &mut [u32; KEYS_16] =
            self.table.as_mut_slice().try_into().expect("resized to this length");
        for row in tile.rows() {
            for key in keys16(row) {
                // Cannot wrap: a tile has fewer than 2^32 elements.
                let count = &mut table[usize::from(key & 0x7fff)];
                *count = count.wrapping_add(1);
            }
        }
        let infinity = tile.format().infinity_key();
        // Most of the table is empty, so it is scanned sixteen counts at a time.
        for (block, counts) in table.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            if counts.iter().fold(0, |any, count| any | count) == 0 {
                continue;
            }
            for (offset, count) in counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
                self.found.push((block * 16 + offset) as u32, *count, infinity);
                *count = 0;
            }
        }
    }

    fn take32(&mut self, tile: &TileView<'_>) {
        self.keys.clear();
        for row in tile.rows() {
            self.keys.extend(keys32(row));
        }
        sort_keys(&mut self.keys, &mut self.spare);
        let zeros = self.keys.partition_point(|&key| key == 0);
        let finite = self.keys.partition_point(|&key| key < tile.format().infinity_key());
        self.found.zeros = zeros as u64;
        self.found.non_finite = (self.keys.len() - finite) as u64;
        self.found.store_sorted(&self.keys[zeros..finite]);
    }
}

/// Sorts 31-bit keys: three stable counting passes, the lowest digit first.
fn sort_keys(keys: &mut Vec<u32>, spare: &mut Vec<u32>) {
    const DIGITS: usize = 1 << 11;
    const SHIFTS: [u32; 3] = [0, 11, 22];
    let digit = |key: u32, shift: u32| (key >> shift) as usize % DIGITS;
    spare.resize(keys.len(), 0);
    let mut places = [[0u32; DIGITS]; 3];
    for &key in keys.iter() {
        for (places, shift) in places.iter_mut().zip(SHIFTS) {
            // Wrapping for speed; it cannot wrap, as there are fewer than 2^32 keys.
            let count = &mut places[digit(key, shift)];
            *count = count.wrapping_add(1);
        }
    }
    for (places, shift) in places.iter_mut().zip(SHIFTS) {
        let mut start = 0;
        for count in places.iter_mut() {
            start += std::mem::replace(count, start);
        }
        let sorted = spare.as_mut_slice();
        for &key in keys.iter() {
            let place = &mut places[digit(key, shift)];
            sorted[*place as usize] = key;
            *place = place.wrapping_add(1);
        }
        std::mem::swap(keys, spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_counts_only_its_own_elements() {
        // 3 x 4 matrix of BF16 bit patterns; the tile is its middle 2 x 2.
        let bits: [u16; 12] = [9, 9, 9, 9, 9, 1, 0x8001, 9, 9, 0x8000, 0x7f80, 9];
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        let tile = TileView::new(&bytes[10..], FloatFormat::Bf16, [2, 2], 8);
        let found = Census::default().take(&tile).clone();
        let expected = Magnitudes { keys: vec![1], counts: vec![2], zeros: 1, non_finite: 1 };
        assert_eq!(found, expected);
        assert_eq!(found.finite(), 3);
    }

    #[test]
    fn binary32_keys_are_counted_in_ascending_order() {
        let mut state = 1u32;
        let bits: Vec<u32> = (0..5000)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // First keys that differ in all bits, then keys that differ in their lower bits only.
                if i < 2500 { state >> 2 } else { 0x3f80_0000 | state >> 23 }
            })
            .chain([0, 0x7fff_ffff, 0x8000_0000, 1])
            .collect();
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        let mut counts = std::collections::BTreeMap::new();
        for key in bits.iter().map(|b| b & 0x7fff_ffff) {
            *counts.entry(key).or_insert(0u32) += 1;
        }
        let finite = counts.iter().filter(|(key, _)| (1..0x7f80_0000).contains(*key));
        let (keys, expected): (Vec<u32>, Vec<u32>) = finite.map(|(k, n)| (*k, *n)).unzip();
        let tile = TileView::new(&bytes, FloatFormat::F32, [1, bits.len()], bytes.len());
        let mut census = Census::default();
        let found = census.take(&tile);
        assert_eq!(found.keys, keys);
        assert_eq!(found.counts, expected);
        assert_eq!(found.zeros, 2);
    }
}
