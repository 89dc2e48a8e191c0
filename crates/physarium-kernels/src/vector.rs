/*!
Operations on rows of float32: norms, softmax, activation functions, log-likelihoods.

In: rows `[rows, width]` or one row. Out: rows of the same shape, or a number per row.

Each function is compiled for several vector instruction sets and selected at run time. Sums have a fixed
number of lanes, multiply-adds are fused on every processor or on none, and no function of the platform's library is
called except those that are correctly rounded (square root, fused multiply-add), so results have the same bits on any
processor.
*/

use pulp::NullaryFnOnce;

use crate::instructions::dispatch;

/// Number of lanes of a sum.
const LANES: usize = 16;
/// Number of elements that are summed in float32 before the sum continues in float64.
const RUN: usize = 1024;

/// eˣ with an error of at most 2 units in the last place; zero below -87, infinite above 88.7.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// The first ten bits of ln 2.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    // x = n ln 2 + r, |r| ≤ ln 2 / 2; ln 2 is split in two parts so that r is exact.
    let clamped = x.clamp(-88.0, 89.0);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-LN_2_HIGH, clamped));
    let tail = 1.987_569_1e-4_f32;
    let tail = tail.mul_add(r, 1.398_199_9e-3);
    let tail = tail.mul_add(r, 8.333_452e-3);
    let tail = tail.mul_add(r, 4.166_579_6e-2);
    let tail = tail.mul_add(r, 1.666_666_5e-1);
    let tail = tail.mul_add(r, 0.5);
    let fraction = tail.mul_add(r * r, r) + 1.0;
    // Two factors, so that each stays a normal number at both ends of the range.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    let value = fraction * power(half) * power(n.wrapping_sub(half));
    let value = if x < -87.0 { 0.0 } else { value };
    if x.is_nan() { x } else { value }
}

/// ln x with an error of at most 2⁻²² of its size, or of one near x = 1, for normal positive numbers.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    // x = 2ⁿ m, √½ ≤ m < √2; ln m = 2 artanh(s), s = (m − 1) / (m + 1), |s| < 0.172.
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF) as i32;
    let n = (shifted >> 23) as f32;
    let m = f32::from_bits(((shifted & 0x007f_ffff) as u32).wrapping_add(ROOT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let tail = (1.0 / 9.0_f32).mul_add(square, 1.0 / 7.0);
    let tail = tail.mul_add(square, 1.0 / 5.0);
    let tail = tail.mul_add(square, 1.0 / 3.0);
    let twice = s + s;
    n.mul_add(std::f32::consts::LN_2, (twice * square).mul_add(tail, twice))
}

/// The sum of `term` over pairs of elements of `x` and `y` at the same index.
#[inline(always)]
fn sum(x: &[f32], y: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    let mut total = 0.0;
    for (x, y) in x.chunks(RUN).zip(y.chunks(RUN)) {
        let ((whole, rest), (other, other_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        let mut lanes = [0.0f32; LANES];
        for (x, y) in whole.iter().zip(other) {
            for lane in 0..LANES {
                lanes[lane] += term(x[lane], y[lane]);
            }
        }
        total += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
        total += rest.iter().zip(other_rest).map(|(x, y)| f64::from(term(*x, *y))).sum::<f64>();
    }
    total
}

/// The largest element; NaN if any element is NaN.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| larger(a, *b))
}

/// Root-mean-square norm (Zhang and Sennrich 2019) of each row of `x` `[rows, weight.len()]`, written to `out`.
///
/// # Panics
/// If `x` and `out` do not have the same length, or are not whole rows.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    struct Norm<'a>(&'a [f32], &'a [f32], f32, &'a mut [f32]);
    impl NullaryFnOnce for Norm<'_> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            let Norm(x, weight, epsilon, out) = self;
            let width = weight.len();
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                let squares = sum(x, x, |x, _| x * x);
                let scale = 1.0 / ((squares / width as f64) as f32 + epsilon).sqrt();
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    *out = weight * (x * scale);
                }
            }
        }
    }
    assert!(x.len() == out.len() && x.len().is_multiple_of(weight.len()));
    dispatch(Norm(x, weight, epsilon, out));
}

/// Gradients of an operation on rows, `[rows, width]` both.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Gradient with respect to the outputs; read.
    pub outputs: &'a [f32],
    /// Gradient with respect to the inputs; written.
    pub inputs: &'a mut [f32],
}

/// Gradient of [`rms_norm`] with respect to its inputs `x` `[rows, weight.len()]`.
///
/// # Panics
/// If the slices do not have the same length, or are not whole rows.
pub fn rms_norm_gradient(x: &[f32], weight: &[f32], epsilon: f32, gradients: Gradients<'_>) {
    struct Gradient<'a>(&'a [f32], &'a [f32], f32, &'a [f32], &'a mut [f32]);
    impl NullaryFnOnce for Gradient<'_> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            let Gradient(x, weight, epsilon, dy, dx) = self;
            let width = weight.len();
            let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
            for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
                let squares = sum(x, x, |x, _| x * x);
                let scale = 1.0 / ((squares / width as f64) as f32 + epsilon).sqrt();
                for ((dx, dy), weight) in dx.iter_mut().zip(dy).zip(weight) {
                    *dx = dy * weight;
                }
                let along = sum(x, dx, |x, dx| x * dx) / width as f64;
                let along = along as f32 * scale * scale;
                dx.iter_mut().zip(x).for_each(|(dx, x)| *dx = scale * (*dx - x * along));
            }
        }
    }
    let Gradients { outputs: dy, inputs: dx } = gradients;
    assert!(x.len() == dy.len() && x.len() == dx.len() && x.len().is_multiple_of(weight.len()));
    dispatch(Gradient(x, weight, epsilon, dy, dx));
}

/// Adds `y` to `x`.
///
/// # Panics
/// If the slices do not have the same length.
pub fn add(x: &mut [f32], y: &[f32]) {
    struct Add<'a>(&'a mut [f32], &'a [f32]);
    impl NullaryFnOnce for Add<'_> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            self.0.iter_mut().zip(self.1).for_each(|(x, y)| *x += y);
        }
    }
    assert_eq!(x.len(), y.len());
    dispatch(Add(x, y));
}

/// Σ aᵢ bᵢ in float64, one term after the other.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Adds the square of each element of `x` `[rows, sums.len()]` to the sum of its feature.
///
/// # Panics
/// If `x` is not whole rows.
pub fn add_squares(x: &[f32], sums: &mut [f64]) {
    assert!(x.len().is_multiple_of(sums.len()));
    for row in x.chunks_exact(sums.len()) {
        row.iter().zip(&mut *sums).for_each(|(x, sum)| *sum += f64::from(*x) * f64::from(*x));
    }
}

/// Replaces `scores` by the numerators of the softmax of `scale` · `scores`; returns the denominator.
///
/// The caller divides the result of the attention by it, which is cheaper than dividing all weights.
pub fn softmax_numerators(scores: &mut [f32], scale: f32) -> f64 {
    struct Softmax<'a>(&'a mut [f32], f32);
    impl NullaryFnOnce for Softmax<'_> {
        type Output = f64;
        #[inline(always)]
        fn call(self) -> f64 {
            let Softmax(scores, scale) = self;
            let top = largest(scores);
            let mut total = 0.0;
            for run in scores.chunks_mut(RUN) {
                let (whole, rest) = run.as_chunks_mut::<LANES>();
                let mut lanes = [0.0f32; LANES];
                for chunk in whole {
                    for lane in 0..LANES {
                        chunk[lane] = exp((chunk[lane] - top) * scale);
                        lanes[lane] += chunk[lane];
                    }
                }
                total += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
                for score in rest {
                    *score = exp((*score - top) * scale);
                    total += f64::from(*score);
                }
            }
            total
        }
    }
    dispatch(Softmax(scores, scale))
}

/// Multiplies `x` by `factor`.
pub fn scale(x: &mut [f32], factor: f32) {
    struct Scale<'a>(&'a mut [f32], f32);
    impl NullaryFnOnce for Scale<'_> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            self.0.iter_mut().for_each(|x| *x *= self.1);
        }
    }
    dispatch(Scale(x, factor));
}

/// Rotates pairs of elements of a head by their angles (RoPE, Su et al. 2021), in the layout of the
/// transformers library: the partner of element `i` is element `i + cos.len()`.
///
/// # Panics
/// If `cos` and `sin` do not both have half the length of `head`.
pub fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    struct Rotate<'a>(&'a mut [f32], &'a [f32], &'a [f32]);
    impl NullaryFnOnce for Rotate<'_> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            let Rotate(head, cos, sin) = self;
            let (first, second) = head.split_at_mut(cos.len());
            let angles = cos.iter().zip(sin);
            for ((first, second), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
                let (a, b) = (*first, *second);
                *first = a * cos - b * sin;
                *second = b * cos + a * sin;
            }
        }
    }
    assert!(head.len() == 2 * cos.len() && cos.len() == sin.len());
    dispatch(Rotate(head, cos, sin));
}

/// The normaliser of the distribution that a row of logits defines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogSum {
    /// The largest logit.
    pub top: f32,
    /// ln Σ exp(logit − top).
    pub ln_sum: f64,
}

impl LogSum {
    /// Computes it from a row of logits; NaN if any logit is NaN.
    pub fn of(logits: &[f32]) -> LogSum {
        struct Sum<'a>(&'a [f32]);
        impl NullaryFnOnce for Sum<'_> {
            type Output = LogSum;
            #[inline(always)]
            fn call(self) -> LogSum {
                let top = largest(self.0);
                let ln_sum = libm::log(sum(self.0, self.0, |logit, _| exp(logit - top)));
                LogSum { top, ln_sum }
            }
        }
        dispatch(Sum(logits))
    }

    /// Negative log-likelihood of the token with this logit, in nats.
    pub fn nll(&self, logit: f32) -> f64 {
        self.ln_sum - (f64::from(logit) - f64::from(self.top))
    }
}

/// Kullback–Leibler divergence of the distribution with logits `other` from that with logits `base`, in nats:
/// Σ p ln(p / q), with p from `base` and q from `other`.
///
/// # Panics
/// If the slices do not have the same length.
pub fn kl(base: &[f32], other: &[f32]) -> f64 {
    struct Divergence<'a>(&'a [f32], &'a [f32], f32, f32);
    impl NullaryFnOnce for Divergence<'_> {
        type Output = f64;
        #[inline(always)]
        fn call(self) -> f64 {
            let Divergence(base, other, top, other_top) = self;
            sum(base, other, |p, q| {
                let (p, q) = (p - top, q - other_top);
                let weight = exp(p);
                // If p is zero, the term is zero for any q; 0 · ∞ would be NaN.
                if weight == 0.0 { 0.0 } else { weight * (p - q) }
            })
        }
    }
    assert_eq!(base.len(), other.len());
    let (p, q) = (LogSum::of(base), LogSum::of(other));
    dispatch(Divergence(base, other, p.top, q.top)) / libm::exp(p.ln_sum) + q.ln_sum - p.ln_sum
}

/// Index of the largest logit; of equal ones, the first.
pub fn argmax(logits: &[f32]) -> usize {
    struct Top<'a>(&'a [f32]);
    impl NullaryFnOnce for Top<'_> {
        type Output = usize;
        #[inline(always)]
        fn call(self) -> usize {
            let top = largest(self.0);
            self.0.iter().position(|logit| *logit == top).unwrap_or(0)
        }
    }
    dispatch(Top(logits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_has_a_small_relative_error() {
        for i in -8700..8870 {
            let x = i as f32 / 100.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 2.5e-7, "{x}: {found} {expected}");
        }
        assert_eq!((exp(0.0), exp(-1000.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(100.0).is_infinite() && exp(f32::NAN).is_nan());
    }

    #[test]
    fn ln_has_a_small_error() {
        for i in 1..40_000u32 {
            let x = f32::from_bits(f32::MIN_POSITIVE.to_bits() + i * 50_000);
            let (found, expected) = (f64::from(ln(x)), f64::from(x).ln());
            assert!(
                (found - expected).abs() < 2.5e-7 * expected.abs().max(1.0),
                "{x}: {found} {expected}"
            );
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn softmax_and_nll_agree_with_float64() {
        let logits: Vec<f32> = (0..5000u32).map(|i| ((i * 7919) % 1000) as f32 / 40.0).collect();
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        let row = LogSum::of(&logits);
        let mut parts = logits.clone();
        let whole = softmax_numerators(&mut parts, 1.0);
        scale(&mut parts, (1.0 / whole) as f32);
        for (logit, part) in logits.iter().zip(&parts) {
            let p = f64::from(*logit).exp() / total;
            assert!((row.nll(*logit) + p.ln()).abs() < 1e-6);
            assert!((f64::from(*part) / p - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn divergence_agrees_with_float64() {
        let p: Vec<f32> = (0..777).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        let q: Vec<f32> = (0..777).map(|i| (i as f32 * 0.41).cos() * 2.0 + 50.0).collect();
        let distribution = |logits: &[f32]| {
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            logits.iter().map(|x| f64::from(*x).exp() / total).collect::<Vec<f64>>()
        };
        let (a, b) = (distribution(&p), distribution(&q));
        let expected: f64 = a.iter().zip(&b).map(|(p, q)| p * (p / q).ln()).sum();
        assert!((kl(&p, &q) - expected).abs() < 1e-5, "{} {expected}", kl(&p, &q));
        assert!(kl(&p, &p).abs() < 1e-9);
    }

    #[test]
    fn nan_is_propagated() {
        let mut logits = vec![1.0; 40];
        logits[17] = f32::NAN;
        assert!(LogSum::of(&logits).nll(1.0).is_nan());
        let mut scores = logits.clone();
        assert!(softmax_numerators(&mut scores, 1.0).is_nan());
        assert!(scores.iter().all(|x| x.is_nan()));
    }
}
