/*!
The distinct magnitudes of a tile and how often each occurs.

A 16-bit format has at most 32,768 magnitudes: a table counts them. A 32-bit one has 2³¹: the keys
are sorted (by radix, three passes) and run-length encoded. Both give the same [`Magnitudes`].
*/

use crate::format::{FloatFormat, KEYS_16, keys16, keys32};

/// A tile's bytes inside a larger row-major matrix.
///
/// Shapes: `rows` × `cols` elements; row `r` begins at byte `r * stride_bytes`.
#[derive(Debug, Clone, Copy)]
pub struct TileView<'a> {
    bytes: &'a [u8],
    format: FloatFormat,
    rows: usize,
    cols: usize,
    stride_bytes: usize,
}

impl<'a> TileView<'a> {
    /// A window on `bytes`, which begin with the tile's first element.
    ///
    /// # Panics
    /// If the last row does not lie in `bytes`, or rows overlap.
    #[track_caller]
    pub fn new(
        bytes: &'a [u8],
        format: FloatFormat,
        rows: usize,
        cols: usize,
        stride_bytes: usize,
    ) -> Self {
        let row_bytes = cols * format.size_bytes();
        let needed = if rows == 0 { 0 } else { (rows - 1) * stride_bytes + row_bytes };
        assert!(bytes.len() >= needed, "{rows} x {cols} tile in {} bytes", bytes.len());
        assert!(rows < 2 || stride_bytes >= row_bytes, "stride {stride_bytes} < row {row_bytes}");
        TileView { bytes, format, rows, cols, stride_bytes }
    }

    /// Element format.
    pub fn format(&self) -> FloatFormat {
        self.format
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }

    /// Whether the tile has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows' bytes, first to last.
    pub fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let TileView { bytes, stride_bytes, rows, .. } = *self;
        let row_bytes = self.cols * self.format.size_bytes();
        (0..rows).map(move |row| &bytes[row * stride_bytes..][..row_bytes])
    }

    /// Position (row-major in the tile) just after the `ties`-th element of this key.
    ///
    /// # Panics
    /// If the tile has fewer.
    pub(crate) fn end_of_ties(&self, key: u32, ties: u64) -> u64 {
        let mut left = ties;
        let mut position = 0;
        for row in self.rows() {
            if let Some(at) = crate::search::locate_tie(row, self.format, key, &mut left) {
                return position + at;
            }
            position += self.cols as u64;
        }
        panic!("{left} of {ties} ties at key {key:#x} not found in the tile");
    }
}

/// The distinct non-zero finite magnitudes of a tile, ascending, with their counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Magnitudes {
    /// Keys, ascending, without zero and without infinity and NaN.
    pub keys: Vec<u32>,
    /// How many weights have each key.
    pub counts: Vec<u32>,
    /// Weights that are +0.0 or -0.0.
    pub zeros: u64,
    /// Weights that are infinite or NaN.
    pub non_finite: u64,
}

impl Magnitudes {
    /// Finite weights, zeros among them.
    pub fn finite(&self) -> u64 {
        self.zeros + self.counts.iter().map(|&count| u64::from(count)).sum::<u64>()
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.counts.clear();
        (self.zeros, self.non_finite) = (0, 0);
    }

    /// Takes in the next distinct key; keys come ascending.
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

/// Counts tiles one after the other, in memory that is allocated once.
#[derive(Debug, Default)]
pub struct Census {
    table: Vec<u32>,
    keys: Vec<u32>,
    spare: Vec<u32>,
    found: Magnitudes,
}

impl Census {
    /// Counts one tile.
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

    /// Scratch that one census needs at most, in bytes, for a tile of `elements`.
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
                table[usize::from(key & 0x7fff)] += 1;
            }
        }
        let infinity = tile.format().infinity_key();
        // Most of the table is empty: look at it sixteen counts at a time.
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
        let infinity = tile.format().infinity_key();
        for run in self.keys.chunk_by(|a, b| a == b) {
            self.found.push(run[0], run.len() as u32, infinity);
        }
    }
}

/// Sorts 31-bit keys: three stable counting passes, least significant digits first.
fn sort_keys(keys: &mut Vec<u32>, spare: &mut Vec<u32>) {
    const DIGITS: [(u32, u32); 3] = [(0, 11), (11, 10), (21, 10)];
    spare.resize(keys.len(), 0);
    for (shift, bits) in DIGITS {
        let digit = |key: u32| (key >> shift & ((1 << bits) - 1)) as usize;
        let mut next = [0u32; 1 << 11];
        for &key in keys.iter() {
            next[digit(key)] += 1;
        }
        let mut start = 0;
        for count in &mut next {
            start += std::mem::replace(count, start);
        }
        for &key in keys.iter() {
            let place = &mut next[digit(key)];
            spare[*place as usize] = key;
            *place += 1;
        }
        std::mem::swap(keys, spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_only_its_own_elements() {
        // 3 x 4 matrix of bf16 bit patterns, the window is its middle 2 x 2.
        let bits: [u16; 12] = [9, 9, 9, 9, 9, 1, 0x8001, 9, 9, 0x8000, 0x7f80, 9];
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        let tile = TileView::new(&bytes[10..], FloatFormat::Bf16, 2, 2, 8);
        let found = Census::default().take(&tile).clone();
        let expected = Magnitudes { keys: vec![1], counts: vec![2], zeros: 1, non_finite: 1 };
        assert_eq!(found, expected);
        assert_eq!(found.finite(), 3);
    }

    #[test]
    fn radix_sort_sorts_all_31_bits() {
        let mut state = 1u32;
        let mut keys: Vec<u32> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state & 0x7fff_ffff
            })
            .chain([0, 0x7fff_ffff, 0, 1 << 30])
            .collect();
        let mut expected = keys.clone();
        expected.sort_unstable();
        sort_keys(&mut keys, &mut Vec::new());
        assert_eq!(keys, expected);
    }
}
