/*!
SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774), algorithm 1 of the paper.

In: a [`Problem`]. Out: a [`Solution`], unless the damped Gram matrix has no Cholesky factor.

Columns are processed from left to right in blocks of 128. When a weight is pruned, the columns to its right
are updated to compensate, using the rows of the upper Cholesky factor of the inverse of the damped Gram
matrix. The mask of a block is chosen when the block is reached, by w² ÷ the squared diagonal of the factor,
over all rows of the block together; for a pattern, group by group within each row. Weights that cost nothing are
pruned first: those that are zero already, and those whose inputs are always zero.
*/

use std::ops::Range;

use physarium_kernels::{Compute, inverse_factor};

use super::keep::Keep;
use super::order::{Order, Part, divide};
use super::problem::{Problem, Solution, Unsolved, not_zero, unless_stopped};

/// Number of columns in a block.
const BLOCK: usize = 128;
/// Fraction of the mean diagonal of the Gram matrix that is added to its diagonal (as in the authors' code).
const DAMPING: f64 = 0.01;
/// Number of rows that one task processes.
const ROWS: usize = 32;

/// Prunes a projection.
///
/// # Errors
/// `NotPositiveDefinite` if the damped Gram matrix has no Cholesky factor; `Stopped` if `compute` is, which is asked
/// for each panel of the factor and for each block of columns and of rows.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn sparsegpt(
    compute: &Compute,
    problem: &Problem<'_>,
    keep: Keep,
) -> Result<Solution, Unsolved> {
    problem.check();
    let order = Order::of(problem);
    let weights = match keep {
        Keep::AllBut(zeros) => {
            let free = (0..problem.weights.len()).filter(|at| order.is_free(*at)).count();
            if zeros <= free {
                prune_free(problem, &order, zeros)
            } else {
                let factor = spreading(compute, problem)?;
                prune_blocks(compute, problem, Ordered { factor: &factor, order: &order }, zeros)
            }
        }
        Keep::Pattern { group, .. } => {
            let factor = spreading(compute, problem)?;
            let pattern = Pattern { keep, group };
            prune_groups(compute, problem, Ordered { factor: &factor, order: &order }, pattern)
        }
    };
    unless_stopped(compute)?;
    Ok(Solution { weights, dead_inputs: problem.inputs.dead() })
}

/// Prunes only weights that cost nothing: no other weight has to compensate.
fn prune_free(problem: &Problem<'_>, order: &Order<'_>, zeros: usize) -> Vec<f32> {
    let mut weights = problem.weights.to_vec();
    let ranks: Vec<i32> = problem
        .weights
        .iter()
        .enumerate()
        .map(|(at, w)| order.rank(at, *w, f32::INFINITY))
        .collect();
    let mask = Keep::AllBut(zeros.max(order.zeros())).mask(&ranks, problem.cols());
    weights.iter_mut().zip(mask).filter(|(_, kept)| !kept).for_each(|(w, _)| *w = 0.0);
    weights
}

/// Prunes block by block. A block gets the same fraction of zeros as any other, but no fewer than it has weights that
/// cost nothing.
fn prune_blocks(
    compute: &Compute,
    problem: &Problem<'_>,
    Ordered { factor, order }: Ordered<'_>,
    zeros: usize,
) -> Vec<f32> {
    let (rows, cols) = (problem.rows(), problem.cols());
    let blocks: Vec<Block<'_>> = blocks(factor, cols, BLOCK).collect();
    let parts: Vec<Part> = blocks.iter().map(|block| block.part(rows, order)).collect();
    let mut weights = problem.weights.to_vec();
    for (block, here) in blocks.iter().zip(divide(zeros, &parts)) {
        if compute.is_stopped() {
            break;
        }
        let width = block.columns.len();
        let mask = Keep::AllBut(here).mask(&block.ranks(&weights, order), width);
        each_row(compute, &mut weights, cols, |index, row| {
            let mask = &mask[index * width..][..width];
            let before = &problem.weights[index * cols..][..cols];
            block.prune(row, before, |_, column| mask[column - block.columns.start]);
        });
    }
    weights
}

/// Prunes to a pattern.
fn prune_groups(
    compute: &Compute,
    problem: &Problem<'_>,
    Ordered { factor, order }: Ordered<'_>,
    pattern: Pattern,
) -> Vec<f32> {
    let (cols, group) = (problem.cols(), pattern.group);
    assert!(group <= BLOCK, "groups of {group}, at most {BLOCK}");
    let mut weights = problem.weights.to_vec();
    // Whole groups: one that two blocks shared would be decided twice.
    for block in blocks(factor, cols, BLOCK / group * group) {
        each_row(compute, &mut weights, cols, |index, row| {
            let before = &problem.weights[index * cols..][..cols];
            block.prune(row, before, block.by_group(pattern, order, index * cols));
        });
    }
    weights
}

/// What decides which weights are pruned.
#[derive(Clone, Copy)]
struct Ordered<'a> {
    factor: &'a [f32],
    order: &'a Order<'a>,
}

/// A [`Keep::Pattern`], with its group.
#[derive(Clone, Copy)]
struct Pattern {
    keep: Keep,
    group: usize,
}

/// The blocks of a projection, from left to right.
fn blocks(factor: &[f32], cols: usize, width: usize) -> impl Iterator<Item = Block<'_>> {
    (0..cols).step_by(width).map(move |begin| {
        let columns = begin..(begin + width).min(cols);
        Block { factor, cols, columns }
    })
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
        square(row[column] / self.factor[column * self.cols + column])
    }

    /// The ranks of the block's weights `[rows, columns]`.
    fn ranks(&self, weights: &[f32], order: &Order<'_>) -> Vec<i32> {
        let rows = weights.chunks_exact(self.cols).enumerate();
        let rank = |index: usize, row: &[f32], column: usize| {
            order.rank(index * self.cols + column, row[column], self.score(row, column))
        };
        rows.flat_map(|(index, row)| self.columns.clone().map(move |c| rank(index, row, c)))
            .collect()
    }

    /// The block's number of weights, and how many of them cost nothing.
    fn part(&self, rows: usize, order: &Order<'_>) -> Part {
        let is_free = |row: usize, column: usize| order.is_free(row * self.cols + column);
        let free = |row| self.columns.clone().filter(|column| is_free(row, *column)).count();
        Part { size: rows * self.columns.len(), least: (0..rows).map(free).sum() }
    }

    /// Whether a weight of the row at position `begin` is kept, for a pattern: each group is decided when its first
    /// column is reached.
    fn by_group(
        &self,
        Pattern { keep, group }: Pattern,
        order: &Order<'_>,
        begin: usize,
    ) -> impl FnMut(&[f32], usize) -> bool {
        let mut mask: Vec<bool> = Vec::new();
        move |row, column| {
            if column % group == 0 {
                let end = (column + group).min(self.cols);
                let rank = |c| order.rank(begin + c, row[c], self.score(row, c));
                mask = keep.mask(&(column..end).map(rank).collect::<Vec<_>>(), end - column);
            }
            mask[column % group]
        }
    }

    /// Prunes the columns of the block in one row; all columns to the right are updated to compensate.
    /// `keeps` is given the row as it is when a column is reached, and the column. A weight that is kept does not become
    /// zero if it was not zero `before`.
    fn prune(&self, row: &mut [f32], before: &[f32], mut keeps: impl FnMut(&[f32], usize) -> bool) {
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
            } else if before[i] != 0.0 {
                row[i] = not_zero(row[i]);
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

fn square(value: f32) -> f32 {
    value * value
}

/// U `[cols, cols]`, upper triangular, with UᵀU the inverse of the damped Gram matrix.
///
/// With the order of inputs reversed, G = L Lᵀ; reversed again, G = R Rᵀ with R upper triangular, and
/// U = R⁻¹.
fn spreading(compute: &Compute, problem: &Problem<'_>) -> Result<Vec<f32>, Unsolved> {
    let cols = problem.cols();
    let damping = problem.inputs.damping(DAMPING);
    let mut reversed: Vec<f64> = problem.inputs.gram.iter().rev().map(|g| f64::from(*g)).collect();
    for power in reversed.iter_mut().step_by(cols + 1) {
        // A dead input is decoupled from all others.
        *power = if *power == 0.0 { 1.0 } else { *power } + damping;
    }
    let inverse = inverse_factor(compute, reversed, cols);
    unless_stopped(compute)?;
    let inverse = inverse.ok_or(Unsolved::NotPositiveDefinite)?;
    // L⁻ᵀ; reversed and transposed it is U.
    let mut upper = vec![0.0; cols * cols];
    compute.each_chunk(&mut upper, cols, |i, row| {
        for (j, to) in row.iter_mut().enumerate().skip(i) {
            *to = inverse[(cols - 1 - j) * cols + cols - 1 - i];
        }
    });
    unless_stopped(compute)?;
    Ok(upper)
}
