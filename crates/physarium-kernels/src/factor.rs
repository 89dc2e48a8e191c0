/*!
The inverse of a Cholesky factor, in float64.

In: a symmetric matrix. Out: L⁻ᵀ, upper triangular, where the matrix is L Lᵀ, rounded to float32. Blocks of [`EDGE`] columns are factored
one after the other; all other work is products with the sums of [`crate::blocked`]. So the order of every sum depends
on the width only.

Source: Golub and Van Loan 2013, Matrix Computations, §4.2 (outer product form, blocked).
*/

use crate::blocked::{Factor, Target, Update, product};
use crate::compute::Compute;

/// Rows and columns of a block.
const EDGE: usize = 128;

/// Rows of a matrix from some column on, in float64.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f64],
    stride: usize,
}

impl<'a> Rows<'a> {
    fn from(matrix: &'a [f64], stride: usize, [row, col]: [usize; 2]) -> Rows<'a> {
        Rows { data: &matrix[row * stride + col..], stride }
    }

    fn check(&self, rows: usize, cols: usize) {
        assert!(rows == 0 || (rows - 1) * self.stride + cols <= self.data.len(), "a short factor");
    }
}

/// `out −= left · rightᵀ`; `shape`: rows, depth, columns; `out`: rows `stride` apart.
fn subtract(
    compute: &Compute,
    [rows, depth, cols]: [usize; 3],
    [left, right]: [Rows<'_>; 2],
    (out, stride): (&mut [f64], usize),
) {
    left.check(rows, depth);
    right.check(cols, depth);
    assert!(rows == 0 || (rows - 1) * stride + cols <= out.len(), "a short result");
    let factors = [
        Factor::rows(left.data.as_ptr(), left.stride),
        Factor::transposed(right.data.as_ptr(), right.stride),
    ];
    let out = Target { begin: out.as_mut_ptr(), stride, update: Update::Subtract };
    // SAFETY: the slices hold all elements, as asserted; sizes are those of a matrix in memory, so nothing wraps.
    unsafe { product(compute.vectors(), [rows, depth, cols], factors, out) }
}

/// L⁻ᵀ `[width, width]`, rounded to float32, where `matrix` `[width, width]` is L Lᵀ with L lower triangular. Only the lower half of
/// `matrix` is used. `None` if there is no such L with a positive, finite diagonal; also, perhaps,
/// once the work is [stopped](Compute::stopping_when).
///
/// # Panics
/// If `matrix` is not square.
pub fn inverse_factor(compute: &Compute, mut matrix: Vec<f64>, width: usize) -> Option<Vec<f32>> {
    assert_eq!(Some(matrix.len()), width.checked_mul(width), "a square matrix");
    let inverses = factor(compute, &mut matrix, width)?;
    Some(invert(compute, &matrix, &inverses, width))
}

/// Replaces the lower half of the matrix by L. Returns the inverses of its blocks on the diagonal.
fn factor(compute: &Compute, matrix: &mut [f64], width: usize) -> Option<Vec<Vec<f64>>> {
    let mut inverses = Vec::new();
    for first in (0..width).step_by(EDGE) {
        let edge = EDGE.min(width - first);
        let end = first + edge;
        factor_block(&mut matrix[first * width + first..], width, edge)?;
        let inverse = inverse_block(&matrix[first * width + first..], width, edge);
        // The columns below the block, times the block's L⁻ᵀ.
        let (_, below) = matrix.split_at_mut(end * width);
        compute.each_chunk(below, EDGE * width, |_, rows| {
            let count = rows.len() / width;
            let mut solved = vec![0.0; count * edge];
            let left = Rows::from(rows, width, [0, first]);
            let right = Rows { data: &inverse, stride: edge };
            subtract(compute, [count, edge, edge], [left, right], (&mut solved, edge));
            for (row, solved) in rows.chunks_exact_mut(width).zip(solved.chunks_exact(edge)) {
                row[first..end].iter_mut().zip(solved).for_each(|(to, from)| *to = -from);
            }
        });
        // Then what they add to the rest of the matrix is taken away.
        let panel: Vec<f64> =
            below.chunks_exact(width).flat_map(|row| &row[first..end]).copied().collect();
        compute.each_chunk(below, EDGE * width, |block, rows| {
            let count = rows.len() / width;
            let cols = block * EDGE + count;
            let left = Rows::from(&panel, edge, [block * EDGE, 0]);
            let right = Rows { data: &panel, stride: edge };
            subtract(compute, [count, edge, cols], [left, right], (&mut rows[end..], width));
        });
        inverses.push(inverse);
    }
    Some(inverses)
}

/// L⁻ᵀ of a factored matrix, whose rows are solved for in blocks that do not depend on each other.
fn invert(compute: &Compute, lower: &[f64], inverses: &[Vec<f64>], width: usize) -> Vec<f32> {
    let mut inverse = vec![0.0; lower.len()];
    compute.each_chunk(&mut inverse, EDGE * width, |block, rounded| {
        let mut rows = vec![0.0; rounded.len()];
        let (first, count) = (block * EDGE, rows.len() / width);
        for (row, to) in rows.chunks_exact_mut(width).enumerate() {
            for (col, to) in to[first..first + count].iter_mut().enumerate() {
                *to = inverses[block][col * count + row];
            }
        }
        for at in (first + EDGE..width).step_by(EDGE) {
            let edge = EDGE.min(width - at);
            let mut unmet = vec![0.0; count * edge];
            let left = Rows::from(&rows, width, [0, first]);
            let right = Rows::from(lower, width, [at, first]);
            subtract(compute, [count, at - first, edge], [left, right], (&mut unmet, edge));
            let mut negative = vec![0.0; count * edge];
            let left = Rows { data: &unmet, stride: edge };
            let right = Rows { data: &inverses[at / EDGE], stride: edge };
            subtract(compute, [count, edge, edge], [left, right], (&mut negative, edge));
            for (row, from) in rows.chunks_exact_mut(width).zip(negative.chunks_exact(edge)) {
                row[at..at + edge].iter_mut().zip(from).for_each(|(to, from)| *to = -from);
            }
        }
        rounded.iter_mut().zip(rows).for_each(|(to, from)| *to = from as f32);
    });
    inverse
}

/// Replaces the lower half of the first block of `matrix`, whose rows are `stride` apart, by its Cholesky factor.
pub(crate) fn factor_block(matrix: &mut [f64], stride: usize, edge: usize) -> Option<()> {
    for row in 0..edge {
        for col in 0..=row {
            let mut rest = matrix[row * stride + col];
            for k in 0..col {
                rest -= matrix[row * stride + k] * matrix[col * stride + k];
            }
            matrix[row * stride + col] = if col < row {
                rest / matrix[col * stride + col]
            } else if rest > 0.0 && rest.is_finite() {
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    Some(())
}

/// The inverse `[edge, edge]` of the lower triangular block at the beginning of `lower`.
pub(crate) fn inverse_block(lower: &[f64], stride: usize, edge: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; edge * edge];
    for row in 0..edge {
        let diagonal = lower[row * stride + row];
        for col in 0..row {
            let mut sum = 0.0;
            for k in col..row {
                sum += lower[row * stride + k] * inverse[k * edge + col];
            }
            inverse[row * edge + col] = -sum / diagonal;
        }
        inverse[row * edge + row] = 1.0 / diagonal;
    }
    inverse
}
