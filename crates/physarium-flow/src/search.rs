/*!
The k-th smallest magnitude of more weights than fit in memory, in mixed formats.

In: the weights piece by piece, in two passes. Out: a [`FoundCut`].

The first pass counts the upper 16 bits of each binary32 key; the second counts the lower 15 bits
within the bucket that holds the k-th. If only some of the weights at that magnitude are pruned, the
caller makes a third pass with [`count_ties`](crate::count_ties) and
[`locate_tie`](crate::locate_tie) to find where they end.
*/

use crate::census::{Census, Magnitudes};
use crate::cut::Cut;
use crate::format::{FloatFormat, keys32};
use crate::tile::TileView;

/// Bits of a binary32 key that the second pass resolves.
const FINE_BITS: u32 = 15;
/// Buckets of the first pass.
const COARSE: usize = 1 << 16;
/// First bucket of the first pass that holds infinities and NaNs.
const COARSE_INFINITY: usize = (0x7f80_0000u32 >> FINE_BITS) as usize;

/// Finds the magnitude below which a given number of weights lie.
#[derive(Debug, Clone)]
pub struct MagnitudeSearch {
    counts: Vec<u64>,
    /// The bucket that the second pass resolves; `None` in the first pass.
    bucket: Option<u32>,
}

/// The threshold, as a binary32 key: one order for all formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundCut {
    /// All non-zero weights with a smaller key are pruned.
    pub below: u32,
    /// Number of weights with this key that are pruned too; fewer than there are.
    pub ties: u64,
}

impl FoundCut {
    /// The cut of a tensor in `format`; ties before position `ties_end` are pruned.
    pub fn for_format(self, format: FloatFormat, ties_end: u64) -> Cut {
        let below = format.key_at_least(self.below);
        let exact = format.binary32_key(below) == self.below;
        Cut { below, ties_end: if exact { ties_end } else { 0 } }
    }

    /// The key of the ties in `format`; `None` if there are none or the format cannot represent it.
    pub fn tie_key(self, format: FloatFormat) -> Option<u32> {
        let key = format.key_at_least(self.below);
        (self.ties > 0 && format.binary32_key(key) == self.below).then_some(key)
    }
}

impl MagnitudeSearch {
    /// Begins the first pass.
    pub fn coarse() -> Self {
        MagnitudeSearch { counts: vec![0; COARSE], bucket: None }
    }

    /// An empty search of the same pass, for use by another thread.
    pub fn fork(&self) -> Self {
        MagnitudeSearch { counts: vec![0; self.counts.len()], bucket: self.bucket }
    }

    /// Adds the counts of another thread.
    ///
    /// # Panics
    /// If `other` is of another pass.
    pub fn merge(&mut self, other: &MagnitudeSearch) {
        assert_eq!(self.bucket, other.bucket, "passes of one search");
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Counts weights, given as bytes; `census` is scratch.
    pub fn count(&mut self, bytes: &[u8], format: FloatFormat, census: &mut Census) {
        match format {
            FloatFormat::F32 => keys32(bytes).for_each(|key| self.add(key, 1)),
            FloatFormat::Bf16 | FloatFormat::F16 => {
                let n = bytes.len() / format.size_bytes();
                let Magnitudes { keys, counts, zeros, non_finite } =
                    census.take(&TileView::new(bytes, format, [1, n], bytes.len()));
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

    /// Ends the first pass. Returns the second one, and the number of weights below its bucket.
    ///
    /// `zeros`: number of weights that are to be zero. `None` if it reaches the number of finite
    /// weights: then all of them are pruned and no second pass is needed.
    ///
    /// # Panics
    /// If this is the second pass.
    pub fn refine(&self, zeros: u64) -> Option<(MagnitudeSearch, u64)> {
        assert!(self.bucket.is_none(), "refine ends the first pass");
        let (bucket, below) = rank(&self.counts[..COARSE_INFINITY], zeros)?;
        let counts = vec![0; 1 << FINE_BITS];
        Some((MagnitudeSearch { counts, bucket: Some(bucket) }, below))
    }

    /// Ends the second pass; `zeros` as for [`refine`](Self::refine), `below` as it returned it.
    ///
    /// # Panics
    /// If this is the first pass, or the weights are not those of the first pass.
    pub fn found(&self, zeros: u64, below: u64) -> FoundCut {
        let bucket = self.bucket.expect("found ends the second pass");
        let (low, before) =
            rank(&self.counts, zeros - below).expect("the first pass put the rank in this bucket");
        FoundCut { below: bucket << FINE_BITS | low, ties: zeros - below - before }
    }

    /// Number of finite weights that the first pass counted.
    pub fn finite(&self) -> u64 {
        self.counts[..COARSE_INFINITY].iter().sum()
    }
}

/// The slot that holds the weight of rank `k` (from 0), and the number of weights in slots before it.
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
