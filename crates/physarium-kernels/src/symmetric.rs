/*!
A symmetric matrix that rows are multiplied by again and again, as an iterative solver does.

In: rows `[rows, width]`. Out: their products with the matrix `[rows, width]`.
*/

use crate::compute::Compute;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::compute::Instructions;
use crate::linear::{Linear, forward_sum};
use crate::small::Sum;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::terms::split;
use crate::weights::Dense;

/// How exact a product is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 16 bits of each factor or more, sums in float32.
    Full,
    /// The matrix may count with 8 bits of its elements, where that is faster: enough for a step of an
    /// iteration that looks at the remainder in full later.
    Coarse,
}

/// A symmetric matrix `[width, width]`.
#[derive(Debug, Clone)]
pub struct Symmetric {
    width: usize,
    /// Maps whose sum is the product; the first alone is the coarse one.
    terms: Vec<Linear>,
}

impl Symmetric {
    /// Takes the elements `[width, width]`, of which those below the diagonal are those above it.
    ///
    /// # Panics
    /// If they are not a square.
    pub fn new(compute: &Compute, elements: Vec<f32>, width: usize) -> Symmetric {
        assert_eq!(elements.len(), width * width, "a square matrix");
        let map = |weights| Linear::new(width, width, weights, None);
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if compute.instructions() == Instructions::Amx {
            let (mut high, mut low) = (vec![0; elements.len()], vec![0; elements.len()]);
            split(&elements, &mut high, &mut low);
            let terms = vec![map(Dense::Bf16(high)), map(Dense::Bf16(low))];
            terms.iter().for_each(|term| term.prepare(compute));
            return Symmetric { width, terms };
        }
        let _ = compute;
        Symmetric { width, terms: vec![map(Dense::F32(elements))] }
    }

    /// Writes the product of `rows` `[rows, width]` and the matrix to `out` `[rows, width]`.
    ///
    /// # Panics
    /// If the slices are not whole rows, or not as many.
    pub fn multiply(&self, compute: &Compute, rows: &[f32], precision: Precision, out: &mut [f32]) {
        assert!(rows.len().is_multiple_of(self.width), "not whole rows");
        let terms = match precision {
            Precision::Full => &self.terms[..],
            Precision::Coarse => &self.terms[..1],
        };
        for (index, term) in terms.iter().enumerate() {
            let sum = if index == 0 { Sum::Set } else { Sum::Add };
            forward_sum(compute, rows, &mut [(term, out)], sum);
        }
    }
}
