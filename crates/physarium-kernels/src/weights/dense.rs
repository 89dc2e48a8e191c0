//! A dense matrix in the dtype that it is stored in.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Weights `[outputs, inputs]`, row-major, in the dtype that they are stored in.
#[derive(Debug, Clone, PartialEq)]
pub enum Dense {
    /// bfloat16, as bits.
    Bf16(Vec<u16>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// IEEE single precision.
    F32(Vec<f32>),
}

impl Dense {
    /// Number of weights.
    pub fn len(&self) -> usize {
        match self {
            Dense::Bf16(weights) => weights.len(),
            Dense::F16(weights) => weights.len(),
            Dense::F32(weights) => weights.len(),
        }
    }

    /// Bytes per weight.
    pub(crate) fn element_bytes(&self) -> usize {
        match self {
            Dense::Bf16(_) | Dense::F16(_) => 2,
            Dense::F32(_) => 4,
        }
    }

    /// Whether there are no weights.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of zeros of any sign among some weights.
    pub(crate) fn zeros(&self, here: Range<usize>) -> usize {
        // Half precision is zero if no bit but that of the sign is set.
        let halves = |bits: &[u16]| bits.iter().filter(|bits| **bits & 0x7fff == 0).count();
        match self {
            Dense::Bf16(weights) => halves(&weights[here]),
            Dense::F16(weights) => halves(weights[here].reinterpret_cast()),
            Dense::F32(weights) => weights[here].iter().filter(|weight| **weight == 0.0).count(),
        }
    }

    /// Copies the weights from position `begin` on to `to`, converted to float32 exactly.
    ///
    /// # Panics
    /// If fewer than `to.len()` weights begin there.
    pub fn widen(&self, begin: usize, to: &mut [f32]) {
        let here = begin..begin + to.len();
        match self {
            Dense::Bf16(weights) => widen_bf16(&weights[here], to),
            Dense::F16(weights) => weights[here].convert_to_f32_slice(to),
            Dense::F32(weights) => to.copy_from_slice(&weights[here]),
        }
    }
}

fn widen_bf16(from: &[u16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(*from) << 16);
    }
}
