/*!
The k-th smallest magnitude of more weights than fit in memory, in mixed formats.

Two passes over the weights: the first counts the upper 16 bits of each binary32 key, the second,
within the bucket that the k-th falls in, the lower 15. A third pass, where ties are cut through,
counts them piece by piece to find where they end.
*/

use crate::census::Census;
use crate::cut::Cut;
use crate::format::{FloatFormat, keys16, keys32};
use crate::{Magnitudes, TileView};

/// Bits of a binary32 key that the second pass resolves.
const FINE_BITS: u32 = 15;
/// Buckets of the first pass.
const COARSE: usize = 1 << 16;
/// First coarse bucket of infinities and NaNs.
const COARSE_INFINITY: usize = (0x7f80_0000u32 >> FINE_BITS) as usize;

/// Finds the magnitude at which exactly so many weights are below.
#[derive(Debug, Clone)]
pub struct MagnitudeSearch {
    counts: Vec<u64>,
    bucket: Option<u32>,
}

/// Where the line falls, as a binary32 key that all formats share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundCut {
    /// All weights with a smaller key die.
    pub below: u32,
    /// So many of the weights with this key die too; fewer than there are.
    pub ties: u64,
}

impl FoundCut {
    /// The cut for a tensor of one format, its ties given as a position.
    pub fn for_format(self, format: FloatFormat, ties_end: u64) -> Cut {
        let below = format.key_at_least(self.below);
        let exact = format.binary32_key(below) == self.below;
        Cut { below, ties_end: if exact { ties_end } else { 0 } }
    }

    /// The key of the ties in a format that can hold it.
    pub fn tie_key(self, format: FloatFormat) -> Option<u32> {
        let key = format.key_at_least(self.below);
        (self.ties > 0 && format.binary32_key(key) == self.below).then_some(key)
    }
}

impl MagnitudeSearch {
    /// The first pass.
    pub fn coarse() -> Self {
        MagnitudeSearch { counts: vec![0; COARSE], bucket: None }
    }

    /// An empty search of the same pass, for another thread.
    pub fn fork(&self) -> Self {
        MagnitudeSearch { counts: vec![0; self.counts.len()], bucket: self.bucket }
    }

    /// Takes in what another thread counted.
    ///
    /// # Panics
    /// If the other is of another pass.
    pub fn merge(&mut self, other: &MagnitudeSearch) {
        assert_eq!(self.bucket, other.bucket, "passes of one search");
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Counts weights.
    pub fn count(&mut self, bytes: &[u8], format: FloatFormat, census: &mut Census) {
        match format {
            FloatFormat::F32 => keys32(bytes).for_each(|key| self.add(key, 1)),
            FloatFormat::Bf16 | FloatFormat::F16 => {
                let n = bytes.len() / format.size_bytes();
                let Magnitudes { keys, counts, zeros, non_finite } =
                    census.take(&TileView::new(bytes, format, 1, n, bytes.len()));
                self.add(0, *zeros);
                self.add(0x7f80_0000, *non_finite);
                for (&key, &count) in keys.iter().zip(counts) {
                    self.add(format.binary32_key(key), u64::from(count));
                }
            }
        }
    }

    fn add(&mut self, key: u32, count: u64) {
        let slot = match self.bucket {
            None => key >> FINE_BITS,
            Some(bucket) if key >> FINE_BITS == bucket => key & ((1 << FINE_BITS) - 1),
            Some(_) => return,
        };
        self.counts[slot as usize] += count;
    }

    /// Ends the first pass: the second, and how many weights are below its bucket.
    ///
    /// `zeros` is the number of weights that shall be zero; `None` when it is zero or reaches the
    /// number of finite weights, which needs no second pass.
    pub fn refine(&self, zeros: u64) -> Option<(MagnitudeSearch, u64)> {
        assert!(self.bucket.is_none(), "refine ends the first pass");
        let (bucket, below) = rank(&self.counts[..COARSE_INFINITY], zeros)?;
        let counts = vec![0; 1 << FINE_BITS];
        Some((MagnitudeSearch { counts, bucket: Some(bucket) }, below))
    }

    /// Ends the second pass; `zeros` as in [`refine`](Self::refine), `below` as it returned it.
    pub fn found(&self, zeros: u64, below: u64) -> FoundCut {
        let bucket = self.bucket.expect("found ends the second pass");
        let (low, before) =
            rank(&self.counts, zeros - below).expect("the first pass put the rank in this bucket");
        FoundCut { below: bucket << FINE_BITS | low, ties: zeros - below - before }
    }

    /// Finite weights counted by the first pass.
    pub fn finite(&self) -> u64 {
        self.counts[..COARSE_INFINITY].iter().sum()
    }
}

/// The slot in which the weight of rank `k` (from 0) falls, and how many are in slots before it.
fn rank(counts: &[u64], k: u64) -> Option<(u32, u64)> {
    let mut before = 0;
    for (slot, &count) in counts.iter().enumerate() {
        if k < before + count {
            return Some((slot as u32, before));
        }
        before += count;
    }
    None
}

/// How many weights have this key of their own format.
pub fn count_ties(bytes: &[u8], format: FloatFormat, key: u32) -> u64 {
    match format {
        FloatFormat::Bf16 | FloatFormat::F16 => {
            keys16(bytes).filter(|&other| u32::from(other) == key).count() as u64
        }
        FloatFormat::F32 => keys32(bytes).filter(|&other| other == key).count() as u64,
    }
}

/// Position just after the weight that brings the ties of `key` to `left`; counts `left` down by
/// the ties passed, so that a search goes on in the next piece.
pub fn locate_tie(bytes: &[u8], format: FloatFormat, key: u32, left: &mut u64) -> Option<u64> {
    let mut find = |keys: &mut dyn Iterator<Item = u32>| {
        for (at, other) in keys.enumerate() {
            *left -= u64::from(other == key);
            if *left == 0 {
                return Some(at as u64 + 1);
            }
        }
        None
    };
    match format {
        FloatFormat::Bf16 | FloatFormat::F16 => find(&mut keys16(bytes).map(u32::from)),
        FloatFormat::F32 => find(&mut keys32(bytes)),
    }
}

/// Positions of the infinite and NaN weights.
pub fn non_finite_positions(bytes: &[u8], format: FloatFormat) -> Vec<u64> {
    let infinity = format.infinity_key();
    let keys: Vec<u32> = match format {
        FloatFormat::Bf16 | FloatFormat::F16 => keys16(bytes).map(u32::from).collect(),
        FloatFormat::F32 => keys32(bytes).collect(),
    };
    (0u64..).zip(keys).filter(|(_, key)| *key >= infinity).map(|(at, _)| at).collect()
}
