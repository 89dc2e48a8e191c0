/*!
Products with one symmetric matrix, repeated as in an iterative solver, and quadratic forms.

In: rows `[rows, width]`. Out: their products with the matrix, `[rows, width]`, or the sum of their quadratic forms.
*/

use std::borrow::Cow;

use super::linear::Linear;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::on_tiles::symmetric::SymmetricTiles;
use crate::arithmetic::{Arithmetic, Precision};
use crate::blocked::{
    Factor, Layout, PerTask, Placed, SPARSE_COLUMNS, Target, Update, is_sparse, product,
    sparse_product,
};
use crate::compute::Compute;
use crate::matvec::VectorKind;
use crate::vector::dot;
use crate::weights::{Dense, Weights};

/// Columns of the matrix, and rows, of a task of a quadratic form.
const COLUMNS: usize = 128;
const ROWS: usize = 256;
/// Rows of a task that leaves out zeros.
const SPARSE_ROWS: usize = 192;

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
            Elements::F32(map) => {
                let zeros = || rows.iter().filter(|value| **value == 0.0).count();
                // A single row has another order of sums, whether it has zeros or not.
                match rows.len() > self.width && is_sparse(self.width, rows.len(), zeros) {
                    true => leave_out_zeros(compute, map, rows, out),
                    false => map.forward(compute, rows, out),
                }
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Elements::Tiles(tiles) => tiles.multiply(compute, rows, precision, out),
        }
    }

    /// Σ x G xᵀ over the rows x of `rows` `[rows, width]`, where G is the matrix, in half the time of a product: each pair of
    /// inputs is multiplied once. The order of the sums depends on the shape only.
    ///
    /// # Panics
    /// If `rows` are not whole rows.
    pub fn quadratic_form(&self, compute: &Compute, rows: &[f32], precision: Precision) -> f64 {
        let width = self.width;
        assert!(rows.len().is_multiple_of(width), "not whole rows");
        let matrix = match &self.elements {
            Elements::F32(map) => elements(map),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Elements::Tiles(tiles) => {
                let mut products = vec![0.0; rows.len()];
                tiles.multiply(compute, rows, precision, &mut products);
                return dot(rows, &products);
            }
        };
        let bands = rows.len().div_ceil(ROWS * width);
        let mut sums = vec![0.0; width.div_ceil(COLUMNS) * bands];
        let tasks = sums.len();
        compute.each_chunk(&mut sums, 1, |task, sum| {
            // The last columns, with the most work, come first.
            let (block, band) = ((tasks - 1 - task) / bands, task % bands);
            let first = block * COLUMNS;
            let rows = rows.chunks(ROWS * width).nth(band).expect("a band of rows");
            sum[0] = form_of_block(compute.vectors(), [matrix, rows], width, first);
        });
        sums.iter().sum()
    }
}

/// The elements of a matrix in float32.
fn elements(map: &Linear) -> &[f32] {
    match &*map.weights {
        Weights::Dense(Dense::F32(elements)) => elements,
        _ => unreachable!("a symmetric matrix is float32"),
    }
}

/// Writes the products of `rows` with the matrix, without terms of zero elements of the rows.
fn leave_out_zeros(compute: &Compute, map: &Linear, rows: &[f32], out: &mut [f32]) {
    let width = map.inputs;
    let matrix = elements(map);
    let bands = rows.len().div_ceil(SPARSE_ROWS * width);
    let (begin, update) = (out.as_mut_ptr(), Update::Replace);
    let out = PerTask(Target { begin, stride: width, update });
    compute.each(bands * width.div_ceil(SPARSE_COLUMNS), |task| {
        let (band, col) = (task % bands, task / bands * SPARSE_COLUMNS);
        let rows = rows.chunks(SPARSE_ROWS * width).nth(band).expect("a band of rows");
        let left = |[row, term]: [usize; 2], to: &mut [f32]| {
            to.copy_from_slice(&rows[row * width + term..][..to.len()]);
        };
        let cols = SPARSE_COLUMNS.min(width - col);
        // SAFETY: the matrix has `width` rows of `width` elements, of which `cols` begin at `col`; so do the rows of the result, of
        // which no other task writes these.
        unsafe {
            let right = Factor::rows(matrix.as_ptr().add(col), width);
            let Target { begin, stride, .. } = out.get();
            let begin = begin.add(band * SPARSE_ROWS * stride + col);
            let out = Placed { begin, stride, layout: Layout::Rows };
            let shape = [rows.len() / width, width, cols];
            sparse_product(compute.vectors(), shape, (left, right), out);
        }
    });
}

/// The part of the quadratic form of `rows` that has columns of the block that begins at `first`, and no later ones.
fn form_of_block(
    vectors: VectorKind,
    [matrix, rows]: [&[f32]; 2],
    width: usize,
    first: usize,
) -> f64 {
    let edge = COLUMNS.min(width - first);
    let count = rows.len() / width;
    let mut products = vec![0.0; count * edge];
    let add_terms = |products: &mut [f32], begin: usize, terms: usize| {
        let shape = [count, terms, edge];
        let columns = &matrix[first * width + begin..][..(edge - 1) * width + terms];
        let factors = [
            Factor::rows(rows[begin..].as_ptr(), width),
            Factor::transposed(columns.as_ptr(), width),
        ];
        let out = Target { begin: products.as_mut_ptr(), stride: edge, update: Update::Add };
        // SAFETY: `rows` are `count` whole rows, of which `terms` elements from `begin` on are read; `columns` has as many of
        // each of `edge` columns, which are rows too; the result is a slice of `[count, edge]`.
        unsafe { product(vectors, shape, factors, out) };
    };
    if first > 0 {
        add_terms(&mut products, 0, first);
        // For the terms on the other side of the diagonal.
        products.iter_mut().for_each(|product| *product *= 2.0);
    }
    add_terms(&mut products, first, edge);
    let rows = rows.chunks_exact(width).map(|row| &row[first..first + edge]);
    rows.zip(products.chunks_exact(edge)).map(|(row, product)| dot(row, product)).sum()
}
