/*!
Wanda (Sun et al. 2023, arXiv 2306.11695): prunes the weights with the smallest |w| ‖x‖ of each row.

In: a [`Problem`]. Out: a [`Solution`] whose remaining weights are unchanged.
*/

use physarium_kernels::Compute;

use super::keep::Keep;
use super::order::{Order, Part, divide};
use super::problem::{Problem, Solution, Unsolved, unless_stopped};

/// Number of rows that one task prunes.
const ROWS: usize = 32;

/// Zeroes the weights with the smallest |w| ‖x‖ of each row, or of each group of a pattern. Each row gets the same
/// number of zeros; what a row had too many before, the others get fewer.
///
/// # Errors
/// `Stopped` if `compute` is, which is asked for each block of rows.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn wanda(compute: &Compute, problem: &Problem<'_>, keep: Keep) -> Result<Solution, Unsolved> {
    problem.check();
    let (cols, order) = (problem.cols(), Order::of(problem));
    let norms: Vec<f32> = problem.inputs.diagonal().map(f32::sqrt).collect();
    let mut weights = problem.weights.to_vec();
    let shares = match keep {
        Keep::AllBut(zeros) => {
            let zeros_before = |row: &[f32]| row.iter().filter(|weight| **weight == 0.0).count();
            let rows = problem.weights.chunks_exact(cols);
            let part = |row| Part { size: cols, least: zeros_before(row) };
            divide(zeros, &rows.map(part).collect::<Vec<_>>())
        }
        Keep::Pattern { .. } => Vec::new(),
    };
    compute.each_chunk(&mut weights, ROWS * cols, |chunk, rows| {
        for (index, weights) in rows.chunks_exact_mut(cols).enumerate() {
            let row = chunk * ROWS + index;
            let columns = weights.iter().zip(&norms).enumerate();
            let ranks = columns.map(|(col, (w, x))| order.rank(row * cols + col, *w, w.abs() * x));
            let keep = shares.get(row).map_or(keep, |zeros| Keep::AllBut(*zeros));
            let mask = keep.mask(&ranks.collect::<Vec<_>>(), cols);
            weights.iter_mut().zip(mask).filter(|(_, kept)| !kept).for_each(|(w, _)| *w = 0.0);
        }
    });
    unless_stopped(compute)?;
    Ok(Solution { weights, dead_inputs: problem.inputs.dead() })
}
