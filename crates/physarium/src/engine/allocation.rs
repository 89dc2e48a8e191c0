/*!
How many weights of each target are to be zero: the same share everywhere, or more where they are felt less.

A weight's worth is what its removal alone costs the model's predictions, to second order: w² E[x²] F, with x
its input and F the Fisher information of its output ([`physarium_model::Sensitivity`]). One line is drawn
through the worths of all targets; a target's count is what lies below it.
*/

use std::collections::HashMap;

use physarium_checkpoint::{Amount, PlannedTensor, Sparsity};
use physarium_model::{Compute, Decoder, Linear, Projection, Sensitivity};

use crate::error::Result;

/// Targets by layer and projection.
pub(super) type Targets<'a> = HashMap<(usize, Projection), &'a PlannedTensor>;
/// Number of zeros of each target.
pub(super) type Zeros = HashMap<(usize, Projection), u64>;

/// How far a target's share may be from the model's.
const REACH: f64 = 0.2;
/// Bits of a worth, as a float32, that its bin does not see: 64 bins for each doubling.
const UNSEEN_BITS: u32 = 17;
/// Bins for the worths above nought.
const BINS: usize = 1 << (31 - UNSEEN_BITS);

/// Zeros of each target that share the budget of the whole model. `felt` holds all layers.
///
/// # Errors
/// If weights cannot be read.
///
/// # Panics
/// If `amount` is no budget of the whole model.
pub(super) fn allocate(
    decoder: &Decoder,
    compute: &Compute,
    targets: &Targets<'_>,
    felt: &[[Sensitivity; 7]],
    amount: Amount,
) -> Result<Zeros> {
    let mut places: Vec<_> = targets.keys().copied().collect();
    places.sort_unstable();
    let mut worths = Vec::with_capacity(places.len());
    let mut at_hand = None;
    for (index, projection) in &places {
        let layer = match at_hand.take() {
            Some((layer, kept)) if layer == *index => kept,
            _ => decoder.layer(*index)?,
        };
        let felt = &felt[*index][*projection as usize];
        worths.push(Worths::of(compute, layer.map(*projection), felt));
        at_hand = Some((*index, layer));
    }
    let counts = match amount {
        Amount::ModelSparsity(sparsity) => share(&worths, sparsity),
        Amount::Price(price) => {
            let (sum, all) = worths.iter().fold((0.0, 0), |(s, n), w| (s + w.sum, n + w.elements));
            let line = (f64::from(price) * sum / all as f64) as f32;
            worths.iter().map(|worths| worths.below(bin(line))).collect()
        }
        Amount::Sparsity(_) | Amount::Pattern(_) => unreachable!("no budget of the whole model"),
    };
    Ok(places.into_iter().zip(counts).collect())
}

/// The worths of a target's weights.
struct Worths {
    elements: u64,
    sum: f64,
    /// How many are in each bin.
    bins: Vec<u64>,
}

fn bin(worth: f32) -> usize {
    // A NaN may have a sign.
    (worth.abs().to_bits() >> UNSEEN_BITS) as usize
}

impl Worths {
    fn of(compute: &Compute, map: &Linear, felt: &Sensitivity) -> Worths {
        /// Rows that a task looks at.
        const ROWS: usize = 256;
        let cols = map.inputs();
        let inputs: Vec<f32> = felt.inputs.iter().map(|power| *power as f32).collect();
        let mut parts: Vec<_> = felt.outputs.chunks(ROWS).map(|rows| (rows, None)).collect();
        compute.each_chunk(&mut parts, 1, |index, part| {
            let (mut bins, mut sum) = (vec![0u32; BINS], 0.0);
            let mut row = vec![0.0; cols];
            for (offset, cost) in part[0].0.iter().enumerate() {
                map.weights().widen((index * ROWS + offset) * cols, &mut row);
                let cost = *cost as f32;
                for (weight, input) in row.iter().zip(&inputs) {
                    let worth = weight * weight * input * cost;
                    sum += f64::from(worth);
                    bins[bin(worth)] += 1;
                }
            }
            part[0].1 = Some((bins, sum));
        });
        let mut all =
            Worths { elements: (map.outputs() * cols) as u64, sum: 0.0, bins: vec![0; BINS] };
        for (bins, sum) in parts.into_iter().filter_map(|(_, part)| part) {
            all.sum += sum;
            all.bins.iter_mut().zip(bins).for_each(|(all, here)| *all += u64::from(here));
        }
        all
    }

    /// How many are in bins before `bin`.
    fn below(&self, bin: usize) -> u64 {
        self.bins[..bin].iter().sum()
    }
}

/// Counts that add up to the share of all elements, each within [`REACH`] of the share.
fn share(worths: &[Worths], sparsity: Sparsity) -> Vec<u64> {
    let target = sparsity.count(worths.iter().map(|worths| worths.elements).sum());
    let share = f64::from(sparsity);
    let reach = REACH.min(share).min(1.0 - share);
    // Sums so far, so that rounding leaves nothing over.
    let floors = exact_parts(worths, share - reach);
    let ceilings = exact_parts(worths, share + reach);
    let at = |line: usize| -> Vec<u64> {
        let limits = floors.iter().zip(&ceilings);
        let counts = worths.iter().zip(limits);
        counts.map(|(worths, (low, high))| worths.below(line).clamp(*low, *high)).collect()
    };
    let lines: Vec<usize> = (0..=BINS).collect();
    let line = lines.partition_point(|line| at(*line).iter().sum::<u64>() <= target);
    // All below the line's bin die, and of those in the bin the same part everywhere.
    let (below, until) = (at(line.saturating_sub(1)), at(line.min(BINS)));
    let left = target - below.iter().sum::<u64>();
    let gaps: Vec<u64> = until.iter().zip(&below).map(|(until, below)| until - below).collect();
    let (all, mut so_far, mut spent) = (gaps.iter().sum::<u64>().max(1), 0, 0);
    let parts = below.iter().zip(gaps).map(|(below, gap)| {
        so_far += gap;
        let until = (u128::from(left) * u128::from(so_far) / u128::from(all)) as u64;
        let here = below + until - spent;
        spent = until;
        here
    });
    parts.collect()
}

/// The same share of each, adding up to the share of all.
fn exact_parts(worths: &[Worths], share: f64) -> Vec<u64> {
    let (mut so_far, mut spent) = (0, 0);
    let part = |worths: &Worths| {
        so_far += worths.elements;
        let until = (share * so_far as f64).round() as u64;
        let here = until - spent;
        spent = until;
        here
    };
    worths.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many weights as asked for, of worth `scale` · 1, 2, 3, …
    fn worths(elements: u64, scale: f32) -> Worths {
        let mut bins = vec![0; BINS];
        (1..=elements).for_each(|i| bins[bin(scale * i as f32)] += 1);
        Worths { elements, sum: 0.0, bins }
    }

    #[test]
    fn counts_add_up_and_stay_within_reach() {
        let all = [worths(1000, 1.0), worths(500, 1e-3), worths(777, 1e3), worths(10, 1.5)];
        for sparsity in [0.0, 0.13, 0.5, 0.77, 0.95, 1.0] {
            let counts = share(&all, Sparsity::try_from(sparsity).expect("a share"));
            let expected = (2287.0 * sparsity).round() as u64;
            assert_eq!(counts.iter().sum::<u64>(), expected, "{sparsity}: {counts:?}");
            for (count, worths) in counts.iter().zip(&all) {
                let off = (*count as f64 / worths.elements as f64 - sparsity).abs();
                assert!(*count <= worths.elements && off <= REACH + 0.06, "{sparsity}: {counts:?}");
            }
        }
        let half = share(&all, Sparsity::try_from(0.5).expect("a share"));
        assert_eq!(half[1], 350, "the least worth gives most: {half:?}");
        assert_eq!(half[2], 233, "the most worth gives least: {half:?}");
    }
}
