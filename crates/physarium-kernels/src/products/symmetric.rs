/*!
Products with one symmetric matrix, repeated as in an iterative solver.

In: rows `[rows, width]`. Out: their products with the matrix, `[rows, width]`.
*/

use super::forward::forward_update;
use super::linear::Linear;
use crate::arithmetic::Arithmetic;
use crate::blocked::Update;
use crate::compute::Compute;
use crate::tiles::split;
use crate::weights::Dense;

/// The precision of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// At least 16 bits of each factor, sums in float32.
    Full,
    /// Where that is faster, only 8 bits of the matrix elements are used. This is enough for a step of an
    /// iteration that recomputes its residual in full precision later.
    Coarse,
}

/// A symmetric matrix `[width, width]`.
#[derive(Debug, Clone)]
pub struct Symmetric {
    width: usize,
    /// Maps whose sum is the product; the first alone is the coarse product.
    terms: Vec<Linear>,
}

impl Symmetric {
    /// The matrix with these elements, `[width, width]`; they must be symmetric.
    ///
    /// # Panics
    /// If the number of elements is not `width` squared.
    pub fn new(compute: &Compute, elements: Vec<f32>, width: usize) -> Symmetric {
        assert_eq!(Some(elements.len()), width.checked_mul(width), "a square matrix");
        let map = |weights| Linear::new(width, width, weights, None);
        if compute.arithmetic() == Arithmetic::Bf16x2 {
            let (mut high, mut low) = (vec![0; elements.len()], vec![0; elements.len()]);
            split(&elements, &mut high, &mut low);
            drop(elements);
            let terms = vec![map(Dense::Bf16(high)), map(Dense::Bf16(low))];
            terms.iter().for_each(|term| term.prepare(compute));
            return Symmetric { width, terms };
        }
        Symmetric { width, terms: vec![map(Dense::F32(elements))] }
    }

    /// Writes the product of `rows` `[rows, width]` and the matrix to `out` `[rows, width]`.
    ///
    /// # Panics
    /// If the slices are not whole rows, or do not have the same number of rows.
    pub fn multiply(&self, compute: &Compute, rows: &[f32], precision: Precision, out: &mut [f32]) {
        assert!(rows.len().is_multiple_of(self.width), "not whole rows");
        let terms = match precision {
            Precision::Full => &self.terms[..],
            Precision::Coarse => &self.terms[..1],
        };
        for (index, term) in terms.iter().enumerate() {
            let update = if index == 0 { Update::Replace } else { Update::Add };
            forward_update(compute, rows, &mut [(term, out)], update);
        }
    }
}
