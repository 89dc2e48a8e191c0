//! A register tile: rows by vectors of columns, summed over one run of the depth.

use super::operands::{Target, Update};
use super::vector::Vector;

/// The sums of a tile of `R` rows and `C` vectors of columns over `depth` terms.
///
/// `left`: `[depth, rows]`, of which the first `R` are used. `right`: `[depth, C · LANES]`, terms `step` apart.
///
/// # Safety
/// The processor supports the instructions, and both panels can be read.
#[inline(always)]
pub(super) unsafe fn sums<V: Vector, const R: usize, const C: usize>(
    depth: usize,
    (mut left, rows): (*const V::Number, usize),
    (mut right, step): (*const V::Number, usize),
) -> [[V; C]; R] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [[V::zero(); C]; R];
        for _ in 0..depth {
            let mut columns = [V::zero(); C];
            for (index, column) in columns.iter_mut().enumerate() {
                *column = V::load(right.add(index * V::LANES));
            }
            // Not closures: they would be compiled without the instructions of the caller.
            for (row, sums) in sums.iter_mut().enumerate() {
                let number = V::splat(*left.add(row));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = sum.fused(number, column);
                }
            }
            left = left.add(rows);
            right = right.wrapping_add(step);
        }
        sums
    }
}

/// Brings the first `rows` rows and `cols` columns of the sums into the result.
///
/// # Safety
/// The processor supports the instructions. `out` has as many rows and columns.
#[inline(always)]
pub(super) unsafe fn update<V: Vector, const R: usize, const C: usize>(
    sums: &[[V; C]; R],
    [rows, cols]: [usize; 2],
    out: Target<V::Number>,
) {
    for (row, sums) in sums.iter().enumerate() {
        if row >= rows {
            break;
        }
        // SAFETY: guaranteed by the caller; a vector consists of its numbers.
        unsafe {
            let to = out.begin.add(row * out.stride);
            if cols >= C * V::LANES {
                for (index, sum) in sums.iter().enumerate() {
                    let to = to.add(index * V::LANES);
                    let result = match out.update {
                        Update::Replace => *sum,
                        Update::Add => V::load(to).add(*sum),
                        Update::Subtract => V::load(to).sub(*sum),
                    };
                    result.store(to);
                }
            } else {
                let sums = std::slice::from_raw_parts(sums.as_ptr().cast::<V::Number>(), cols);
                let to = std::slice::from_raw_parts_mut(to, cols);
                for (to, sum) in to.iter_mut().zip(sums) {
                    *to = match out.update {
                        Update::Replace => *sum,
                        Update::Add => *to + *sum,
                        Update::Subtract => *to - *sum,
                    };
                }
            }
        }
    }
}
