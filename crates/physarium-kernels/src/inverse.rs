/*!
The inverse of a symmetric positive definite matrix, in place.

In: a matrix in float32. Out: its inverse, symmetric to the last bit. The matrix is swept block by block: a block of
[`EDGE`] rows and columns is inverted in float64, and what it explains of the rest is subtracted by products with the
sums of [`crate::blocked`], or on AMX with 16 bits of each factor. So the order of every sum depends on the width only.

Source: Goodnight 1979, A Tutorial on the SWEEP Operator (The American Statistician 33), in blocks.
*/

use crate::blocked::{Factor, Target, Update, product};
use crate::compute::Compute;
use crate::factor::{factor_block, inverse_block};
use crate::mirror::{Half, mirror};
use crate::products::Columns;

/// Rows and columns of a block.
const EDGE: usize = 256;

/// Replaces `matrix` `[width, width]`, symmetric and positive definite, by its inverse. Only its lower half is read.
/// `None` if it is not positive definite, or holds NaN or infinities; then, and once the work is
/// [stopped](Compute::stopping_when), what it holds is meaningless.
///
/// # Panics
/// If `matrix` is not square.
pub fn invert(compute: &Compute, matrix: &mut [f32], width: usize) -> Option<()> {
    assert_eq!(Some(matrix.len()), width.checked_mul(width), "a square matrix");
    for first in (0..width).step_by(EDGE) {
        if compute.is_stopped() {
            return None;
        }
        sweep(compute, matrix, width, first)?;
    }
    compute.each_chunk(matrix, width.max(1), |row, matrix| {
        matrix[..=row].iter_mut().for_each(|value| *value = -*value);
    });
    mirror(compute, matrix, width, Half::Lower);
    Some(())
}

/// Sweeps the block of rows and columns from `first` on: A becomes A − C B⁻¹ Cᵀ outside them, C B⁻¹ in the columns, and
/// −B⁻¹ in the block, where B was the block and C the columns.
fn sweep(compute: &Compute, matrix: &mut [f32], width: usize, first: usize) -> Option<()> {
    let edge = EDGE.min(width - first);
    let inverse = invert_block(&matrix[first * width + first..], width, edge)?;
    let columns = columns(matrix, width, [first, edge]);
    let mut explained = vec![0.0f32; columns.len()];
    compute.each_chunk(&mut explained, EDGE * edge, |block, out| {
        let rows = out.len() / edge;
        let left = &columns[block * EDGE * edge..][..rows * edge];
        // SAFETY: the factors are whole slices of `[rows, edge]` and `[edge, edge]`, the result of `[rows, edge]`.
        unsafe {
            let factors = [Factor::rows(left.as_ptr(), edge), Factor::rows(inverse.as_ptr(), edge)];
            let out = Target { begin: out.as_mut_ptr(), stride: edge, update: Update::Replace };
            product(compute.vectors(), [rows, edge, edge], factors, out);
        }
    });
    let prepared = Columns::new(compute, &columns, edge);
    compute.each_chunk(matrix, EDGE * width, |block, rows| {
        let (begin, count) = (block * EDGE, rows.len() / width);
        let own = &explained[begin * edge..][..count * edge];
        // SAFETY: `rows` holds as many rows, of which that many columns are accessed.
        unsafe { prepared.subtract(compute, own, begin + count, (rows.as_mut_ptr(), width)) };
        if begin == first {
            for (at, row) in rows.chunks_exact_mut(width).enumerate() {
                for (col, to) in row[..first].iter_mut().enumerate() {
                    *to = explained[col * edge + at];
                }
                let inverse = &inverse[at * edge..(at + 1) * edge];
                row[first..first + edge].iter_mut().zip(inverse).for_each(|(to, b)| *to = -b);
            }
        } else if begin > first {
            for (row, own) in rows.chunks_exact_mut(width).zip(own.chunks_exact(edge)) {
                row[first..first + edge].copy_from_slice(own);
            }
        }
    });
    Some(())
}

/// The columns `[width, edge]` from `first` on, zero in the rows of the block itself. Rows above it are read from the
/// lower half.
fn columns(matrix: &[f32], width: usize, [first, edge]: [usize; 2]) -> Vec<f32> {
    let mut columns = vec![0.0; width * edge];
    for at in 0..edge {
        for (col, value) in matrix[(first + at) * width..][..first].iter().enumerate() {
            columns[col * edge + at] = *value;
        }
    }
    for (row, to) in columns.chunks_exact_mut(edge).enumerate().skip(first + edge) {
        to.copy_from_slice(&matrix[row * width + first..][..edge]);
    }
    columns
}

/// The inverse `[edge, edge]` of the block at the beginning of `block`, whose rows are `stride` apart.
fn invert_block(block: &[f32], stride: usize, edge: usize) -> Option<Vec<f32>> {
    let mut lower: Vec<f64> =
        (0..edge * edge).map(|at| f64::from(block[at / edge * stride + at % edge])).collect();
    factor_block(&mut lower, edge, edge)?;
    let lower = inverse_block(&lower, edge, edge);
    let mut inverse = vec![0.0; edge * edge];
    for row in 0..edge {
        for col in 0..=row {
            let from = |k: usize| lower[k * edge + row] * lower[k * edge + col];
            let sum = (row..edge).map(from).sum::<f64>() as f32;
            (inverse[row * edge + col], inverse[col * edge + row]) = (sum, sum);
        }
    }
    Some(inverse)
}
