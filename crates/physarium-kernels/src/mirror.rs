//! Completing a symmetric matrix of which one half is known.

use crate::blocked::{PerTask, Target, Update};
use crate::compute::Compute;

/// A half of a square matrix, on one side of the diagonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Upper,
    Lower,
}

/// Copies the half `from` of `matrix` `[width, width]` to the other one, on all threads.
///
/// # Panics
/// If `matrix` is not square.
pub(crate) fn mirror(compute: &Compute, matrix: &mut [f32], width: usize, from: Half) {
    /// Edge of the squares that fit in a cache.
    const EDGE: usize = 32;
    assert_eq!(Some(matrix.len()), width.checked_mul(width), "a square matrix");
    let (begin, update) = (matrix.as_mut_ptr(), Update::Replace);
    let matrix = PerTask(Target { begin, stride: width, update });
    compute.each(width.div_ceil(EDGE), |band| {
        let begin = matrix.get().begin;
        let rows = band * EDGE..((band + 1) * EDGE).min(width);
        for first in (0..rows.end).step_by(EDGE) {
            for row in rows.clone() {
                for col in first..(first + EDGE).min(row) {
                    let (upper, lower) = (col * width + row, row * width + col);
                    let (from, to) = match from {
                        Half::Upper => (upper, lower),
                        Half::Lower => (lower, upper),
                    };
                    // SAFETY: both are within the matrix. One half is only read, and each element of the other
                    // is written by one task.
                    unsafe { *begin.add(to) = *begin.add(from) };
                }
            }
        }
    });
}
