/*!
Parameters of the activation flow, and their values from step to step.
*/

use physarium_kernels::Precision;

/// Steps of the refit after which b − G q is recomputed; in between it is updated incrementally.
pub(super) const RECOMPUTE: usize = 5;

/// Parameters of the activation flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationFlow {
    /// Number of pressure steps; each is one product with a `[cols, cols]` matrix.
    pub steps: usize,
    /// ρ in the first and in the last steps: how firmly tubes hold their flow.
    pub coupling: [f32; 2],
    /// Number of values of ρ, geometrically spaced; each takes one inverse.
    pub levels: usize,
    /// β in the first and in the last step; between them it grows geometrically.
    pub exponent: [f32; 2],
    /// Steps of conjugate gradients that refit the remaining weights.
    pub refit_steps: usize,
    /// How far a projection goes from its own outputs to its target's, from 0 to 1. The difference is an error that earlier
    /// projections made; what the calibration text says about it holds less for other texts than the outputs themselves do.
    pub target_share: f32,
    /// Fraction of the mean power of the inputs that is added to the power of each. What is fitted to little power is what this text
    /// happens to have.
    pub damping: f64,
}

impl Default for ActivationFlow {
    /// More steps lower the error on the calibration text, but hardly on other texts.
    fn default() -> Self {
        ActivationFlow {
            steps: 6,
            coupling: [0.5; 2],
            levels: 1,
            exponent: [2.0, 32.0],
            refit_steps: 6,
            target_share: 0.6,
            damping: 0.02,
        }
    }
}

impl ActivationFlow {
    /// Number of products with a `[cols, cols]` matrix.
    pub fn products(&self) -> usize {
        self.steps + self.refit_steps + self.refit_steps.div_ceil(RECOMPUTE)
    }

    /// ρ of each level.
    pub(super) fn couplings(&self) -> Vec<f32> {
        (0..self.levels).map(|level| between(self.coupling, level, self.levels)).collect()
    }

    /// The precision of a step's product. The later steps correct what rounding does to the flow in the earlier ones.
    pub(super) fn precision(&self, step: usize) -> Precision {
        if step < self.steps / 2 { Precision::Coarse } else { Precision::Full }
    }

    /// The level of a step.
    pub(super) fn level(&self, step: usize) -> usize {
        step * self.levels / self.steps
    }
}

/// The value at `index` of `count` geometrically spaced ones.
pub(super) fn between([first, last]: [f32; 2], index: usize, count: usize) -> f32 {
    if count < 2 {
        return first;
    }
    first * libm::powf(last / first, index as f32 / (count - 1) as f32)
}
