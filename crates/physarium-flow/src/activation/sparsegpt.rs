/*!
SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774), as in the paper's algorithm 1.

Columns are settled from left to right in blocks of 128. What is pruned of a column is made up for by all
columns to its right, by the rows of the upper Cholesky factor of the damped Gram matrix's inverse. The mask
of a block is chosen when the block is reached, by w² ÷ the square of the factor's diagonal, over all rows of
the block together; for a pattern, group by group within each row.
*/

use faer::linalg::solvers::Llt;
use faer::{Mat, Side};
use physarium_kernels::Compute;

use super::keep::Keep;
use super::problem::{Problem, Solution};

/// Columns of a block.
const BLOCK: usize = 128;
/// Rows that a task works on.
const ROWS: usize = 32;

/// Prunes a projection. Aims at what the weights make of their own inputs; `problem.dense` is not used.
///
/// `None` when the damped Gram matrix has no Cholesky factor.
///
/// # Panics
/// If slices do not fit together.
pub fn sparsegpt(compute: &Compute, problem: &Problem<'_>, keep: Keep) -> Option<Solution> {
    problem.check();
    let (rows, cols) = (problem.rows(), problem.cols);
    let factor = inverse_factor(problem)?;
    let mut weights = problem.weights.to_vec();
    // A dead input carries nothing: its weights go first, as in the authors' code.
    let dead: Vec<bool> = problem.diagonal().map(|power| power == 0.0).collect();
    for row in weights.chunks_exact_mut(cols) {
        row.iter_mut().zip(&dead).filter(|(_, dead)| **dead).for_each(|(w, _)| *w = 0.0);
    }
    let mut spent = 0;
    for begin in (0..cols).step_by(BLOCK) {
        let end = (begin + BLOCK).min(cols);
        let mask = match keep {
            Keep::AllBut(zeros) => {
                // The same share in each block, but for the remainder.
                let until = (zeros as u128 * end as u128 / cols as u128) as usize;
                let here = (until - spent).min(rows * (end - begin));
                spent = until;
                let scores = block_scores(&weights, &factor, cols, begin..end);
                Some(Keep::AllBut(here).mask(&scores, end - begin))
            }
            Keep::Pattern { .. } => None,
        };
        let (factor, mask) = (&factor, &mask);
        compute.each_chunk(&mut weights, ROWS * cols, |task, rows| {
            for (at, row) in rows.chunks_exact_mut(cols).enumerate() {
                let mask = mask.as_ref().map(|mask| {
                    let row = task * ROWS + at;
                    &mask[row * (end - begin)..(row + 1) * (end - begin)]
                });
                settle(row, factor, begin..end, mask, keep);
            }
        });
    }
    Some(Solution { weights, dead_inputs: problem.dead_inputs() })
}

/// w² ÷ d² for the columns of a block, row by row.
fn block_scores(
    weights: &[f32],
    factor: &[f32],
    cols: usize,
    block: std::ops::Range<usize>,
) -> Vec<f32> {
    let rows = weights.chunks_exact(cols);
    rows.flat_map(|row| block.clone().map(|i| (row[i] / factor[i * cols + i]).powi(2))).collect()
}

/// Settles the columns of a block in one row; the errors go to all columns on the right.
fn settle(
    row: &mut [f32],
    factor: &[f32],
    block: std::ops::Range<usize>,
    mask: Option<&[bool]>,
    keep: Keep,
) {
    let cols = row.len();
    let mut group_mask: Vec<bool> = Vec::new();
    let mut errors = [0.0f32; BLOCK];
    for i in block.clone() {
        let kept = match (mask, keep) {
            (Some(mask), _) => mask[i - block.start],
            (None, Keep::Pattern { group, .. }) => {
                if i % group == 0 || group_mask.is_empty() {
                    let until = (i - i % group + group).min(cols);
                    let scores: Vec<f32> =
                        (i..until).map(|j| (row[j] / factor[j * cols + j]).powi(2)).collect();
                    group_mask = keep.mask(&scores, until - i);
                }
                group_mask[i % group]
            }
            (None, Keep::AllBut(_)) => unreachable!("a share has a mask"),
        };
        let diagonal = factor[i * cols + i];
        let error = if kept { 0.0 } else { row[i] / diagonal };
        if !kept {
            // Within the block at once, beyond it below.
            let factor = &factor[i * cols + i..i * cols + block.end];
            row[i..block.end].iter_mut().zip(factor).for_each(|(w, u)| *w -= error * u);
            row[i] = 0.0;
        }
        errors[i - block.start] = error;
    }
    for i in block.clone() {
        let error = errors[i - block.start];
        if error != 0.0 {
            let factor = &factor[i * cols + block.end..(i + 1) * cols];
            row[block.end..].iter_mut().zip(factor).for_each(|(w, u)| *w -= error * u);
        }
    }
}

/// U `[cols, cols]` with UᵀU the inverse of the damped Gram matrix, U upper triangular.
///
/// With the order of inputs turned round, G = L Lᵀ; turned back, G = R Rᵀ with R upper triangular, and
/// U = R⁻¹.
fn inverse_factor(problem: &Problem<'_>) -> Option<Vec<f32>> {
    let cols = problem.cols;
    let damping = problem.damping();
    let turned = Mat::from_fn(cols, cols, |i, j| {
        let (i, j) = (cols - 1 - i, cols - 1 - j);
        let power = f64::from(problem.gram[i * cols + j]);
        match i == j {
            // A dead input stands for itself alone.
            true if power == 0.0 => 1.0 + damping,
            true => power + damping,
            false => power,
        }
    });
    let factor = Llt::new(turned.as_ref(), Side::Lower).ok()?;
    let mut inverse = Mat::<f64>::identity(cols, cols);
    faer::linalg::triangular_solve::solve_lower_triangular_in_place(
        factor.L(),
        inverse.as_mut(),
        faer::get_global_parallelism(),
    );
    let mut upper = vec![0.0; cols * cols];
    for i in 0..cols {
        for j in i..cols {
            upper[i * cols + j] = inverse[(cols - 1 - i, cols - 1 - j)] as f32;
        }
    }
    Some(upper)
}
