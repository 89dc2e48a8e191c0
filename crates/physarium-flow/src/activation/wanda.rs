/*!
Wanda (Sun et al. 2023, arXiv 2306.11695): prunes the weights with the smallest |w| ‖x‖ of each row.

In: weights `[rows, cols]` and the mean square of each input `[cols]`. Out: a [`Solution`] whose remaining weights are
unchanged.
*/

use physarium_kernels::Compute;

use super::keep::Keep;
use super::order::{Order, Part, divide};
use super::problem::{Solution, Unsolved, unless_stopped};

/// Number of rows that one task prunes.
const ROWS: usize = 32;

/// Zeroes the weights `[rows, cols]` with the smallest |w| ‖x‖ of each row, or of each group of a pattern. Each row gets the
/// same number of zeros; what a row had too many before, the others get fewer. `squares`: the mean square of each input
/// `[cols]`, in any unit.
///
/// # Errors
/// `Stopped` if `compute` is, which is asked for each block of rows.
///
/// # Panics
/// If the weights are not whole rows of as many columns as there are squares.
pub fn wanda(
    compute: &Compute,
    weights: &[f32],
    squares: &[f32],
    keep: Keep,
) -> Result<Solution, Unsolved> {
    let (cols, before) = (squares.len(), weights);
    assert!(cols > 0 && before.len().is_multiple_of(cols), "weights: not rows of {cols}");
    let dead: Vec<bool> = squares.iter().map(|square| *square == 0.0).collect();
    let dead_inputs = dead.iter().filter(|dead| **dead).count();
    let order = Order::new(before, dead);
    let norms: Vec<f32> = squares.iter().map(|square| square.sqrt()).collect();
    let mut weights = before.to_vec();
    let shares = match keep {
        Keep::AllBut(zeros) => {
            let zeros_before = |row: &[f32]| row.iter().filter(|weight| **weight == 0.0).count();
            let rows = before.chunks_exact(cols);
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
    Ok(Solution { weights, dead_inputs })
}
