/*!
The number of zeros of each target under one model-wide budget: more where predictions depend less on the weights.

The importance of a weight is the estimated loss from removing it alone, to second order: w² E[x²] F, where x is its
input and F the Fisher information of its output ([`physarium_model::Sensitivity`]). One threshold applies to
all targets; a target loses as many weights as it has below the threshold. Here weights are only counted; the
method chooses them.
*/

use std::collections::BTreeMap;

use physarium_checkpoint::{PlannedTensor, Price, Site, Sparsity};
use physarium_model::{Compute, Decoder, Linear, Sensitivity};

use crate::error::Result;

/// Targets by their place in the decoder, in data-flow order.
pub(crate) type TargetsBySite<'a> = BTreeMap<Site, &'a PlannedTensor>;
/// Number of zeros of each target.
pub(crate) type ZerosBySite = BTreeMap<Site, u64>;

/// How far the sparsity of a target may be from the model's.
const REACH: f64 = 0.2;
/// Low bits of an importance, as a float32, that a bin ignores. This leaves 64 bins for each factor of two.
const IGNORED_BITS: u32 = 17;
/// Number of bins: one for each value of the other bits, without the sign.
const BINS: usize = 1 << (31 - IGNORED_BITS);

/// Histograms of the importances of all targets.
pub(super) struct Allocation {
    /// In data-flow order.
    targets: Vec<(Site, Importances)>,
}

impl Allocation {
    /// Reads the weights of all targets. `sensitivities` has an entry for each. Ends early once `compute` is stopped.
    ///
    /// # Errors
    /// `Model` if weights cannot be read.
    pub fn new(
        decoder: &Decoder,
        compute: &Compute,
        targets: &TargetsBySite<'_>,
        sensitivities: &BTreeMap<Site, Sensitivity>,
    ) -> Result<Allocation> {
        let mut all = Vec::with_capacity(targets.len());
        for index in (0..decoder.config().layers()).take_while(|_| !compute.is_stopped()) {
            let mut layer = None;
            for site in targets.keys().filter(|site| site.layer == Some(index as u64)) {
                let layer = match &layer {
                    Some(layer) => layer,
                    None => layer.insert(decoder.layer(index)?),
                };
                let map = layer.at(site).expect("a target is a map of the decoder");
                all.push((site.clone(), Importances::of(compute, map, &sensitivities[site])));
            }
        }
        Ok(Allocation { targets: all })
    }

    /// Zeros of each target, which add up to this share of all targets' elements.
    pub fn by_sparsity(self, sparsity: Sparsity) -> ZerosBySite {
        let (sites, all): (Vec<Site>, Vec<Importances>) = self.targets.into_iter().unzip();
        sites.into_iter().zip(share(&all, sparsity)).collect()
    }

    /// Zeros of each target: its weights below `price` times the mean importance.
    pub fn by_price(self, price: Price) -> ZerosBySite {
        let all = self.targets.iter().map(|(_, of_target)| of_target);
        let (sum, elements) = all.fold((0.0, 0), |(s, n), t| (s + t.sum, n + t.elements));
        let threshold = (f64::from(price) * sum / elements as f64) as f32;
        let below =
            |(site, of_target): (Site, Importances)| (site, of_target.below(bin(threshold)));
        self.targets.into_iter().map(below).collect()
    }
}

/// Histogram of the importances of one target.
struct Importances {
    elements: u64,
    /// Weights that are zero already.
    zeros: u64,
    sum: f64,
    /// Number of weights in each bin.
    bins: Vec<u64>,
}

fn bin(importance: f32) -> usize {
    // The sign of a NaN is arbitrary.
    (importance.abs().to_bits() >> IGNORED_BITS) as usize
}

impl Importances {
    fn of(compute: &Compute, map: &Linear, sensitivity: &Sensitivity) -> Importances {
        /// Rows of one task.
        const ROWS: usize = 256;
        let cols = map.inputs();
        let inputs: Vec<f32> = sensitivity.inputs.iter().map(|power| *power as f32).collect();
        let mut parts: Vec<_> = sensitivity.outputs.chunks(ROWS).map(|rows| (rows, None)).collect();
        compute.each_chunk(&mut parts, 1, |index, part| {
            let (mut bins, mut sum, mut zeros) = (vec![0u32; BINS], 0.0, 0);
            let mut row = vec![0.0; cols];
            for (offset, cost) in part[0].0.iter().enumerate() {
                map.weights().widen((index * ROWS + offset) * cols, &mut row);
                let cost = *cost as f32;
                for (weight, input) in row.iter().zip(&inputs) {
                    let importance = weight * weight * input * cost;
                    sum += f64::from(importance);
                    bins[bin(importance)] += 1;
                    zeros += u64::from(*weight == 0.0);
                }
            }
            part[0].1 = Some((bins, sum, zeros));
        });
        let elements = (map.outputs() * cols) as u64;
        let mut all = Importances { elements, zeros: 0, sum: 0.0, bins: vec![0; BINS] };
        for (bins, sum, zeros) in parts.into_iter().filter_map(|(_, part)| part) {
            all.sum += sum;
            all.zeros += zeros;
            all.bins.iter_mut().zip(bins).for_each(|(all, here)| *all += u64::from(here));
        }
        all
    }

    /// Number of weights in the bins before `bin`.
    fn below(&self, bin: usize) -> u64 {
        self.bins[..bin].iter().sum()
    }
}

/// Zeros of each target, which add up to `sparsity` of all elements. The sparsity of each target is within
/// [`REACH`] of it, unless the target has more zeros already: those count towards the sum.
fn share(targets: &[Importances], sparsity: Sparsity) -> Vec<u64> {
    let zeros = sparsity.count(targets.iter().map(|target| target.elements).sum());
    let share = f64::from(sparsity);
    let reach = REACH.min(share).min(1.0 - share);
    // Cumulative sums are rounded, so that rounding errors do not add up.
    let mut floors = exact_parts(targets, share - reach);
    let mut ceilings = exact_parts(targets, share + reach);
    for ((floor, ceiling), target) in floors.iter_mut().zip(&mut ceilings).zip(targets) {
        (*floor, *ceiling) = ((*floor).max(target.zeros), (*ceiling).max(target.zeros));
    }
    if floors.iter().sum::<u64>() > zeros {
        // Some targets have so many zeros already that others stay below their reach.
        floors = targets.iter().map(|target| target.zeros).collect();
    }
    if floors.iter().sum::<u64>() >= zeros {
        return floors;
    }
    let at = |threshold: usize| -> Vec<u64> {
        let limits = floors.iter().zip(&ceilings);
        let counts = targets.iter().zip(limits);
        counts.map(|(target, (low, high))| target.below(threshold).clamp(*low, *high)).collect()
    };
    let thresholds: Vec<usize> = (0..=BINS).collect();
    let first = thresholds.partition_point(|at_bin| at(*at_bin).iter().sum::<u64>() <= zeros);
    // Weights below the last bin are pruned, and in the last bin the same fraction of every target's weights.
    let (below, until) = (at(first.saturating_sub(1)), at(first.min(BINS)));
    let left = zeros - below.iter().sum::<u64>();
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

/// This share of each target's elements, rounded so that the sum is the share of all elements.
fn exact_parts(targets: &[Importances], share: f64) -> Vec<u64> {
    let (mut so_far, mut spent) = (0, 0);
    let part = |target: &Importances| {
        so_far += target.elements;
        let until = (share * so_far as f64).round() as u64;
        let here = until - spent;
        spent = until;
        here
    };
    targets.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights of importance `scale` · 1, 2, 3, …, `elements` of them.
    fn importances(elements: u64, scale: f32) -> Importances {
        let mut bins = vec![0; BINS];
        (1..=elements).for_each(|i| bins[bin(scale * i as f32)] += 1);
        Importances { elements, zeros: 0, sum: 0.0, bins }
    }

    #[test]
    fn counts_add_up_and_stay_within_reach() {
        let all = [
            importances(1000, 1.0),
            importances(500, 1e-3),
            importances(777, 1e3),
            importances(10, 1.5),
        ];
        for sparsity in [0.0, 0.13, 0.5, 0.77, 0.95, 1.0] {
            let counts = share(&all, Sparsity::try_from(sparsity).expect("a share"));
            let expected = (2287.0 * sparsity).round() as u64;
            assert_eq!(counts.iter().sum::<u64>(), expected, "{sparsity}: {counts:?}");
            for (count, target) in counts.iter().zip(&all) {
                let off = (*count as f64 / target.elements as f64 - sparsity).abs();
                assert!(*count <= target.elements && off <= REACH + 0.06, "{sparsity}: {counts:?}");
            }
        }
        let half = share(&all, Sparsity::try_from(0.5).expect("a share"));
        assert_eq!(half[1], 350, "the least important loses most: {half:?}");
        assert_eq!(half[2], 233, "the most important loses least: {half:?}");
    }

    #[test]
    fn targets_that_are_sparse_before_leave_fewer_zeros_to_the_others() {
        let mut all = [importances(1000, 1.0), importances(1000, 1.0), importances(1000, 1.0)];
        all[0].bins = vec![0; BINS];
        (all[0].bins[0], all[0].zeros) = (1000, 1000);
        for sparsity in [0.0, 0.1, 0.3, 0.34, 0.4, 0.5, 0.9, 1.0] {
            let counts = share(&all, Sparsity::try_from(sparsity).expect("a share"));
            let wanted = (3000.0 * sparsity).round() as u64;
            assert_eq!(counts.iter().sum::<u64>(), wanted.max(1000), "{sparsity}: {counts:?}");
            assert_eq!(counts[0], 1000, "{sparsity}");
        }
    }
}
