/*!
The activation functions of gated MLPs, and their gradients.

In: rows of float32. Out: rows of the same length. As in [`vector`](crate::vector), results have the same bits on any
processor.
*/

use pulp::NullaryFnOnce;

use crate::instructions::dispatch;
use crate::vector::exp;

/// The activation function of a gated MLP (Shazeer 2020, arXiv 2002.05202): x · σ(s(x)), σ(s) = 1 / (1 + e⁻ˢ).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// s(x) = x.
    Silu,
    /// s(x) = √(8/π) (x + 0.044715 x³): GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415) by its formula with tanh.
    GeluTanh,
}

/// √(8/π).
const GELU_SLOPE: f32 = 1.595_769;
/// The part of x³ in s(x).
const GELU_CUBE: f32 = 0.044_715;

impl Activation {
    /// `gate ← activation(gate) · up`.
    ///
    /// # Panics
    /// If the slices do not have the same length.
    pub fn times(self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        match self {
            Activation::Silu => dispatch(Times(gate, up, |x: f32| x)),
            Activation::GeluTanh => {
                dispatch(Times(gate, up, |x: f32| GELU_SLOPE * (x + GELU_CUBE * x * x * x)));
            }
        }
    }

    /// Gradient of [`Activation::times`]: given that of its outputs, `dy`, replaces its inputs `gate` and `up` by their
    /// gradients.
    ///
    /// # Panics
    /// If the slices do not have the same length.
    pub fn times_gradient(self, gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
        assert!(gate.len() == up.len() && gate.len() == dy.len());
        match self {
            Activation::Silu => dispatch(TimesGradient(gate, up, dy, |x: f32| (x, x))),
            Activation::GeluTanh => dispatch(TimesGradient(gate, up, dy, |x: f32| {
                let square = GELU_CUBE * x * x;
                (GELU_SLOPE * x * (1.0 + square), GELU_SLOPE * x * (1.0 + 3.0 * square))
            })),
        }
    }
}

/// The product of an activation with s(x) and another row.
struct Times<'a, S>(&'a mut [f32], &'a [f32], S);

impl<S: Fn(f32) -> f32> NullaryFnOnce for Times<'_, S> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        for (gate, up) in self.0.iter_mut().zip(self.1) {
            *gate = *gate / (1.0 + exp(-(self.2)(*gate))) * up;
        }
    }
}

/// The gradient of [`Times`] with s(x) and x s′(x).
struct TimesGradient<'a, S>(&'a mut [f32], &'a mut [f32], &'a [f32], S);

impl<S: Fn(f32) -> (f32, f32)> NullaryFnOnce for TimesGradient<'_, S> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        for ((gate, up), dy) in self.0.iter_mut().zip(self.1).zip(self.2) {
            let (x, (s, slope)) = (*gate, (self.3)(*gate));
            let sigmoid = 1.0 / (1.0 + exp(-s));
            *gate = dy * *up * sigmoid * (1.0 + slope * (1.0 - sigmoid));
            *up = dy * x * sigmoid;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_and_their_gradients_agree_with_float64() {
        let x: Vec<f32> = (-400..400).map(|i| i as f32 / 40.0).collect();
        let ups: Vec<f32> = x.iter().map(|x| (x * 1.7).cos()).collect();
        let gelu = |x: f64| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        };
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let cases: [(Activation, &dyn Fn(f64) -> f64); 2] =
            [(Activation::Silu, &silu), (Activation::GeluTanh, &gelu)];
        for (activation, expected) in cases {
            let mut found = x.clone();
            activation.times(&mut found, &ups);
            let (mut gates, mut others) = (x.clone(), ups.clone());
            activation.times_gradient(&mut gates, &mut others, &vec![1.0; x.len()]);
            for (at, (x, up)) in x.iter().zip(&ups).enumerate() {
                let (x, up) = (f64::from(*x), f64::from(*up));
                let close = |found: f32, wanted: f64| {
                    assert!(
                        (f64::from(found) - wanted).abs() < 2e-6 * (1.0 + wanted.abs()),
                        "{activation:?} {x}: {found}, not {wanted}"
                    );
                };
                let slope = (expected(x + 1e-5) - expected(x - 1e-5)) / 2e-5;
                close(found[at], expected(x) * up);
                close(gates[at], slope * up);
                close(others[at], expected(x));
            }
        }
    }
}
