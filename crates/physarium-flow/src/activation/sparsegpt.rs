/*!
SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774), algorithm 1 of the paper.

In: a [`Problem`], of which `gram` is used. Out: a [`Solution`], or `None` if the damped Gram matrix has no
Cholesky factor.

Columns are processed from left to right in blocks of 128. When a weight is pruned, the columns to its right
are updated to compensate, using the rows of the upper Cholesky factor of the inverse of the damped Gram
matrix. The mask of a block is chosen when the block is reached, by w² ÷ the squared diagonal of the factor,
over all rows of the block together; for a pattern, group by group within each row.
*/

use std::ops::Range;

use faer::linalg::solvers::Llt;
use faer::{Mat, Side};
use physarium_kernels::Compute;

use super::keep::Keep;
use super::problem::{Problem, Solution};

/// Number of columns in a block.
const BLOCK: usize = 128;
/// Number of rows that one task processes.
const ROWS: usize = 32;

/// Prunes a projection. The target outputs are those of the weights on the same inputs:
/// `problem.cross_gram` is not used.
///
/// Returns `None` if the damped Gram matrix has no Cholesky factor.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn sparsegpt(compute: &Compute, problem: &Problem<'_>, keep: Keep) -> Option<Solution> {
    problem.check();
    let (rows, cols) = (problem.rows(), problem.cols);
    let factor = inverse_factor(problem)?;
    let mut weights = problem.weights.to_vec();
    // A dead input contributes nothing: its weights are pruned first, as in the authors' code.
    let dead: Vec<bool> = problem.diagonal().map(|power| power == 0.0).collect();
    for row in weights.chunks_exact_mut(cols) {
        row.iter_mut().zip(&dead).filter(|(_, dead)| **dead).for_each(|(w, _)| *w = 0.0);
    }
    let mut pruned = 0;
    // Whole groups: one that two blocks shared would be decided twice.
    let width = match keep {
        Keep::AllBut(_) => BLOCK,
        Keep::Pattern { group, .. } => {
            assert!(group <= BLOCK, "groups of {group}, at most {BLOCK}");
            BLOCK / group * group
        }
    };
    for begin in (0..cols).step_by(width) {
        let columns = begin..(begin + width).min(cols);
        let block = Block { factor: &factor, cols, columns: columns.clone() };
        match keep {
            Keep::AllBut(zeros) => {
                // The same fraction of each block, except for the remainder.
                let until = (zeros as u128 * columns.end as u128 / cols as u128) as usize;
                let here = (until - pruned).min(rows * columns.len());
                pruned = until;
                let mask = Keep::AllBut(here).mask(&block.scores(&weights), columns.len());
                each_row(compute, &mut weights, cols, |index, row| {
                    let mask = &mask[index * columns.len()..][..columns.len()];
                    block.prune(row, |_, column| mask[column - columns.start]);
                });
            }
            Keep::Pattern { group, .. } => each_row(compute, &mut weights, cols, |_, row| {
                block.prune(row, block.by_group(keep, group));
            }),
        }
    }
    Some(Solution { weights, dead_inputs: problem.dead_inputs() })
}

/// Calls `task` with the index and the weights of each row, on all threads.
fn each_row(
    compute: &Compute,
    weights: &mut [f32],
    cols: usize,
    task: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    compute.each_chunk(weights, ROWS * cols, |chunk, rows| {
        for (at, row) in rows.chunks_exact_mut(cols).enumerate() {
            task(chunk * ROWS + at, row);
        }
    });
}

/// A block of columns, with the factor U `[cols, cols]` that its errors are spread by.
struct Block<'a> {
    factor: &'a [f32],
    cols: usize,
    columns: Range<usize>,
}

impl Block<'_> {
    /// w² ÷ the squared diagonal of the factor, for one weight of a row.
    fn score(&self, row: &[f32], column: usize) -> f32 {
        (row[column] / self.factor[column * self.cols + column]).powi(2)
    }

    /// The scores of the block `[rows, columns]`.
    fn scores(&self, weights: &[f32]) -> Vec<f32> {
        let rows = weights.chunks_exact(self.cols);
        rows.flat_map(|row| self.columns.clone().map(|column| self.score(row, column))).collect()
    }

    /// Whether a weight of a row is kept, for a pattern: each group is decided when its first column is reached.
    fn by_group(&self, keep: Keep, group: usize) -> impl FnMut(&[f32], usize) -> bool {
        let mut mask: Vec<bool> = Vec::new();
        move |row, column| {
            if column % group == 0 {
                let end = (column + group).min(self.cols);
                let scores: Vec<f32> = (column..end).map(|c| self.score(row, c)).collect();
                mask = keep.mask(&scores, end - column);
            }
            mask[column % group]
        }
    }

    /// Prunes the columns of the block in one row; all columns to the right are updated to compensate.
    /// `keeps` is given the row as it is when a column is reached, and the column.
    fn prune(&self, row: &mut [f32], mut keeps: impl FnMut(&[f32], usize) -> bool) {
        let Block { factor, cols, ref columns } = *self;
        let mut errors = [0.0f32; BLOCK];
        for i in columns.clone() {
            let kept = keeps(row, i);
            let error = if kept { 0.0 } else { row[i] / factor[i * cols + i] };
            if !kept {
                // The columns of the block are updated at once, those beyond it below.
                let factor = &factor[i * cols + i..i * cols + columns.end];
                row[i..columns.end].iter_mut().zip(factor).for_each(|(w, u)| *w -= error * u);
                row[i] = 0.0;
            }
            errors[i - columns.start] = error;
        }
        for i in columns.clone() {
            let error = errors[i - columns.start];
            if error != 0.0 {
                let factor = &factor[i * cols + columns.end..(i + 1) * cols];
                row[columns.end..].iter_mut().zip(factor).for_each(|(w, u)| *w -= error * u);
            }
        }
    }
}

/// U `[cols, cols]`, upper triangular, with UᵀU the inverse of the damped Gram matrix.
///
/// With the order of inputs reversed, G = L Lᵀ; reversed again, G = R Rᵀ with R upper triangular, and
/// U = R⁻¹. `None` if there is no such L.
fn inverse_factor(problem: &Problem<'_>) -> Option<Vec<f32>> {
    let cols = problem.cols;
    let damping = problem.damping();
    let reversed = Mat::from_fn(cols, cols, |i, j| {
        let (i, j) = (cols - 1 - i, cols - 1 - j);
        let power = f64::from(problem.gram[i * cols + j]);
        match i == j {
            // A dead input is decoupled from all others.
            true if power == 0.0 => 1.0 + damping,
            true => power + damping,
            false => power,
        }
    });
    let factor = Llt::new(reversed.as_ref(), Side::Lower).ok()?;
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
