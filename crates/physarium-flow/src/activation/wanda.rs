/*!
Wanda (Sun et al. 2023, arXiv 2306.11695): prunes the weights with the smallest |w| ‖x‖ of each row.

In: a [`Problem`], of which `gram` is used. Out: a [`Solution`] whose remaining weights are unchanged.
*/

use super::keep::Keep;
use super::problem::{Problem, Solution};

/// Zeroes the weights with the smallest |w| ‖x‖ of each row, or of each group of a pattern.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn wanda(problem: &Problem<'_>, keep: Keep) -> Solution {
    problem.check();
    let norms: Vec<f32> = problem.diagonal().map(f32::sqrt).collect();
    let rows = problem.rows();
    let mut weights = problem.weights.to_vec();
    let mut pruned = 0;
    for (row, weights) in weights.chunks_exact_mut(problem.cols).enumerate() {
        let scores: Vec<f32> = weights.iter().zip(&norms).map(|(w, x)| w.abs() * x).collect();
        let keep = match keep {
            Keep::AllBut(zeros) => {
                // The same number in each row, except for the remainder.
                let until = (zeros as u128 * (row as u128 + 1) / rows as u128) as usize;
                let here = until - pruned;
                pruned = until;
                Keep::AllBut(here)
            }
            pattern => pattern,
        };
        for (weight, kept) in weights.iter_mut().zip(keep.mask(&scores, problem.cols)) {
            if !kept {
                *weight = 0.0;
            }
        }
    }
    Solution { weights, dead_inputs: problem.dead_inputs() }
}
