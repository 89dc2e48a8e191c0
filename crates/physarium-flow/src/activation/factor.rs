/*!
The factor by which SparseGPT spreads its errors: a Cholesky factor and its inverse, panel by panel.

In: the Gram matrix of a [`Problem`]. Out: U `[cols, cols]`, upper triangular, with UᵀU the inverse of the damped matrix.
A panel is a run of columns from the diagonal down. Panels are independent tasks of a step, each computed by one thread, so
the result does not depend on the number of threads, and the work can stop between them.
*/

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::Llt;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, Mat, Par, Side};
use physarium_kernels::Compute;

use super::problem::{Problem, Unsolved};

/// Columns of a panel.
const PANEL: usize = 256;

/// The factor U, row-major.
///
/// With the order of inputs reversed, G = L Lᵀ; reversed again, G = R Rᵀ with R upper triangular, and U = R⁻¹.
pub(super) fn inverse_factor(
    compute: &Compute,
    problem: &Problem<'_>,
) -> Result<Vec<f32>, Unsolved> {
    let cols = problem.cols;
    let mut panels = damped_panels(compute, problem);
    factorize(compute, &mut panels)?;
    let mut inverse: Vec<Vec<f32>> = vec![Vec::new(); panels.len()];
    compute.each_chunk(&mut inverse, 1, |index, of_panel| {
        of_panel[0] = inverse_panel(compute, &panels[index..]);
    });
    drop(panels);
    let mut upper = vec![0.0; cols * cols];
    compute.each_chunk(&mut upper, cols, |i, row| {
        let at = cols - 1 - i;
        for (index, panel) in inverse.iter().enumerate().take(at / PANEL + 1) {
            let begin = index * PANEL;
            let width = PANEL.min(cols - begin);
            let from = &panel[(at - begin) * width..][..width.min(at + 1 - begin)];
            for (offset, value) in from.iter().enumerate() {
                row[cols - 1 - begin - offset] = *value;
            }
        }
    });
    if compute.is_stopped() { Err(Unsolved::Stopped) } else { Ok(upper) }
}

/// The damped Gram matrix with the order of inputs reversed: the panels of its lower half.
fn damped_panels(compute: &Compute, problem: &Problem<'_>) -> Vec<Mat<f64>> {
    let (cols, damping) = (problem.cols, problem.damping());
    let mut panels: Vec<Mat<f64>> = (0..cols.div_ceil(PANEL)).map(|_| Mat::new()).collect();
    compute.each_chunk(&mut panels, 1, |index, panel| {
        let begin = index * PANEL;
        panel[0] = Mat::from_fn(cols - begin, PANEL.min(cols - begin), |i, j| {
            let (i, j) = (cols - 1 - begin - i, cols - 1 - begin - j);
            let power = f64::from(problem.gram[i * cols + j]);
            match i == j {
                // A dead input is decoupled from all others.
                true if power == 0.0 => 1.0 + damping,
                true => power + damping,
                false => power,
            }
        });
    });
    panels
}

/// Replaces the panels of a matrix by those of its Cholesky factor L.
fn factorize(compute: &Compute, panels: &mut [Mat<f64>]) -> Result<(), Unsolved> {
    for index in 0..panels.len() {
        if compute.is_stopped() {
            return Err(Unsolved::Stopped);
        }
        let (done, rest) = panels.split_at_mut(index + 1);
        let panel = &mut done[index];
        let width = panel.ncols();
        let (mut square, mut below) = panel.as_mut().split_at_row_mut(width);
        let factor = Llt::new(square.as_ref(), Side::Lower);
        square.copy_from(factor.map_err(|_| Unsolved::NotPositiveDefinite)?.L());
        solve_lower_triangular_in_place(square.as_ref(), below.as_mut().transpose_mut(), Par::Seq);
        let below = below.as_ref();
        compute.each_chunk(rest, 1, |index, panels| {
            // There is none after the last.
            for panel in panels {
                let (first, width) = (index * PANEL, panel.ncols());
                let left = below.get(first.., ..);
                let right = below.get(first..first + width, ..).transpose();
                matmul(panel.as_mut(), Accum::Add, left, right, -1.0, Par::Seq);
            }
        });
    }
    Ok(())
}

/// The first panel of L⁻¹, row-major, from the panels of L.
fn inverse_panel(compute: &Compute, panels: &[Mat<f64>]) -> Vec<f32> {
    let (rows, width) = (panels[0].nrows(), panels[0].ncols());
    let mut inverse = Mat::<f64>::identity(rows, width);
    for (index, panel) in panels.iter().enumerate() {
        if compute.is_stopped() {
            return Vec::new();
        }
        let (square, below) = panel.as_ref().split_at_row(panel.ncols());
        let rest = inverse.as_mut().split_at_row_mut(index * PANEL).1;
        let (mut here, rest) = rest.split_at_row_mut(panel.ncols());
        solve_lower_triangular_in_place(square, here.as_mut(), Par::Seq);
        matmul(rest, Accum::Add, below, here.as_ref(), -1.0, Par::Seq);
    }
    (0..rows * width).map(|at| inverse[(at / width, at % width)] as f32).collect()
}
