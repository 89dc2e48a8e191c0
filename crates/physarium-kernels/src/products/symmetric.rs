/*!
Products with one symmetric matrix, repeated as in an iterative solver.

In: rows `[rows, width]`. Out: their products with the matrix, `[rows, width]`.
*/

use std::borrow::Cow;

use super::linear::Linear;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::on_tiles::symmetric::SymmetricTiles;
use crate::arithmetic::{Arithmetic, Precision};
use crate::compute::Compute;
use crate::weights::Dense;

/// A symmetric matrix `[width, width]`.
#[derive(Debug, Clone)]
pub struct Symmetric {
    width: usize,
    elements: Elements,
}

#[derive(Debug, Clone)]
enum Elements {
    F32(Box<Linear>),
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Tiles(SymmetricTiles),
}

impl Symmetric {
    /// The matrix with these elements, `[width, width]`; they must be symmetric. They are copied if they have to be kept and
    /// are only lent.
    ///
    /// # Panics
    /// If the number of elements is not `width` squared.
    pub fn new<'a>(
        compute: &Compute,
        elements: impl Into<Cow<'a, [f32]>>,
        width: usize,
    ) -> Symmetric {
        let elements = elements.into();
        assert_eq!(Some(elements.len()), width.checked_mul(width), "a square matrix");
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if compute.arithmetic() == Arithmetic::Bf16x2 {
            let tiles = SymmetricTiles::new(compute, &elements, width);
            return Symmetric { width, elements: Elements::Tiles(tiles) };
        }
        let map = Linear::new(width, width, Dense::F32(elements.into_owned()), None);
        Symmetric { width, elements: Elements::F32(Box::new(map)) }
    }

    /// Writes the product of `rows` `[rows, width]` and the matrix to `out` `[rows, width]`. A coarse product takes both with
    /// 8 bits where that is faster.
    ///
    /// # Panics
    /// If the slices are not whole rows, or do not have the same number of rows.
    pub fn multiply(&self, compute: &Compute, rows: &[f32], precision: Precision, out: &mut [f32]) {
        assert!(rows.len().is_multiple_of(self.width), "not whole rows");
        assert_eq!(rows.len(), out.len(), "as many rows of products");
        match &self.elements {
            Elements::F32(map) => map.forward(compute, rows, out),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Elements::Tiles(tiles) => tiles.multiply(compute, rows, precision, out),
        }
    }
}
