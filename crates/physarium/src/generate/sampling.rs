//! Choice of the next token from logits.

use physarium_model::vector;

use crate::error::{Error, Result};
use crate::random::SplitMix;

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits. At 0 the most likely token is always chosen.
    pub temperature: f64,
    /// Only the most likely tokens that together have this probability are candidates (nucleus sampling, Holtzman et
    /// al. 2020); 1 for all tokens.
    pub top_p: f64,
    /// Seed of the random choice.
    pub seed: u64,
}

impl Default for Sampling {
    /// The most likely token.
    fn default() -> Self {
        Sampling { temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

/// Chooses tokens.
pub(crate) struct Sampler {
    sampling: Sampling,
    random: SplitMix,
}

impl Sampler {
    /// # Errors
    /// `Usage` for parameters out of range, and for those of sampling at temperature 0.
    pub(crate) fn new(sampling: Sampling) -> Result<Sampler> {
        let Sampling { temperature, top_p, seed } = sampling;
        if !temperature.is_finite() || temperature < 0.0 {
            return Err(Error::Usage(format!("--temperature {temperature}: expected 0 or more")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            let what = format!("--top-p {top_p}: expected more than 0, at most 1");
            return Err(Error::Usage(what));
        }
        if temperature == 0.0 && sampling != Sampling::default() {
            let option = if top_p == 1.0 { "--seed" } else { "--top-p" };
            let what = format!("{option} has no effect without --temperature above 0");
            return Err(Error::Usage(what));
        }
        Ok(Sampler { sampling, random: SplitMix::new(seed) })
    }

    /// The next token, by its logits.
    pub(crate) fn choose(&mut self, logits: &[f32]) -> u32 {
        if self.sampling.temperature == 0.0 {
            return vector::argmax(logits) as u32;
        }
        let top = f64::from(logits[vector::argmax(logits)]);
        let weight = |logit: &f32| libm::exp((f64::from(*logit) - top) / self.sampling.temperature);
        let mut weights: Vec<(f64, u32)> =
            logits.iter().map(weight).zip(0u32..).filter(|(weight, _)| *weight > 0.0).collect();
        let mut total: f64 = weights.iter().map(|(weight, _)| weight).sum();
        if self.sampling.top_p < 1.0 {
            // The most likely tokens first; equally likely ones in the order of their ids.
            weights.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let wanted = self.sampling.top_p * total;
            let mut sum = 0.0;
            let reaches = |(weight, _): &(f64, u32)| {
                sum += weight;
                sum >= wanted
            };
            let count = weights.iter().position(reaches).map_or(weights.len(), |at| at + 1);
            weights.truncate(count);
            total = weights.iter().map(|(weight, _)| weight).sum();
        }
        let mut left = self.random.unit() * total;
        for (weight, token) in &weights {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        // Rounding can leave a small rest; NaN logits leave no candidate.
        weights.last().map_or(0, |(_, token)| *token)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    fn counts(sampling: Sampling, draws: usize) -> [usize; 3] {
        let logits = [1.0f32, 2.0, 0.0].map(|share| (share + 1.0).ln());
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = [0; 3];
        (0..draws).for_each(|_| counts[sampler.choose(&logits) as usize] += 1);
        counts
    }

    #[test]
    fn tokens_are_chosen_with_their_probabilities() {
        let all = Sampling { temperature: 1.0, top_p: 1.0, seed: 1 };
        let [two, three, one] = counts(all, 60_000);
        assert!(two.abs_diff(20_000) < 600 && three.abs_diff(30_000) < 600);
        assert!(one.abs_diff(10_000) < 600);
        // The two most likely tokens have a probability of five sixths.
        let [two, three, one] = counts(Sampling { top_p: 0.8, ..all }, 50_000);
        assert!(one == 0 && two.abs_diff(20_000) < 600 && three.abs_diff(30_000) < 600);
        assert_eq!(counts(Sampling { top_p: 0.4, ..all }, 100), [0, 100, 0]);
        assert_eq!(counts(Sampling::default(), 100), [0, 100, 0]);
        // Half the temperature squares each probability.
        let [two, three, one] = counts(Sampling { temperature: 0.5, ..all }, 14_000);
        assert!(two.abs_diff(4000) < 300 && three.abs_diff(9000) < 300 && one.abs_diff(1000) < 200);
    }

    #[test]
    fn a_seed_fixes_the_sequence() {
        let draw = |seed| counts(Sampling { temperature: 1.0, top_p: 0.9, seed }, 1000);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for (temperature, top_p) in [(-1.0, 1.0), (f64::NAN, 1.0), (1.0, 0.0), (1.0, 1.1)] {
            assert!(Sampler::new(Sampling { temperature, top_p, seed: 0 }).is_err());
        }
    }

    #[test]
    fn options_of_sampling_are_refused_at_temperature_0() {
        let refused = |top_p, seed| {
            let sampler = Sampler::new(Sampling { temperature: 0.0, top_p, seed });
            sampler.err().unwrap().to_string()
        };
        assert!(refused(0.5, 0).starts_with("--top-p has no effect"));
        assert!(refused(1.0, 7).starts_with("--seed has no effect"));
    }
}
