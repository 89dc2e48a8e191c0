/*!
Activation flow: each row of a projection is a network of tubes that has to reproduce the row's output.

In: a [`Problem`]. Out: a [`Solution`] whose remaining weights are updated to compensate.

Tube i carries the flow qᵢ; its conductance Dᵢ grows with the flow and shrinks without it:

```text
flow         (G + λ (D + ε)⁻¹) q = b          the cheapest flow that produces the target output
adaptation   Dᵢ = (|qᵢ| / τ)²
```

G is the Gram matrix scaled to a unit diagonal, b the demand that the target outputs make, τ the flow of the
tube at the threshold of the requested sparsity. A row carries more flow by the square root of its output's
cost, so that τ cuts where the model loses least. λ grows and ε shrinks until tubes are open or closed. Then
the flow of the remaining tubes is solved for again, at no cost (the refit).

All rows are solved by conjugate gradients, a few steps in each iteration, starting at the previous flow. This
is iteratively reweighted least squares, which Straszak and Vishnoi (2016, arXiv 1601.02712) show to be the
dynamics of Physarum.
*/

use physarium_kernels::Compute;

use super::conjugate_gradients::Iterate;
use super::keep::Keep;
use super::order::Order;
use super::problem::{Problem, Solution, Unsolved, not_zero, unless_stopped};
use super::scaled::Scaled;

/// Parameters of the activation flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationFlow {
    /// Number of iterations of the dynamics.
    pub iterations: usize,
    /// Steps of conjugate gradients in each iteration.
    pub gradient_steps: usize,
    /// Steps of conjugate gradients that refit the remaining weights.
    pub refit_steps: usize,
}

impl Default for ActivationFlow {
    fn default() -> Self {
        ActivationFlow { iterations: 30, gradient_steps: 4, refit_steps: 15 }
    }
}

impl ActivationFlow {
    /// Number of products with the Gram matrix.
    pub fn products(&self) -> usize {
        let recomputed = self.iterations.div_ceil(RECOMPUTE) + self.refit_steps.div_ceil(RECOMPUTE);
        self.iterations * self.gradient_steps + self.refit_steps + recomputed
    }
}

/// Iterations, and refit steps, after which b − G q is recomputed; in between it is updated incrementally.
const RECOMPUTE: usize = 5;

/// Prunes a projection by the activation flow.
///
/// # Errors
/// `Stopped` if `compute` is; it is asked in each step.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn activation_flow(
    compute: &Compute,
    problem: &Problem<'_>,
    keep: Keep,
    parameters: &ActivationFlow,
) -> Result<Solution, Unsolved> {
    problem.check();
    let cols = problem.cols;
    let scaled = Scaled::new(compute, problem);
    let mut flow = scaled.flow_of(problem.weights);
    let order = Order::new(problem);
    let zeros = match keep {
        Keep::AllBut(zeros) => zeros,
        Keep::Pattern { keep, group } => {
            problem.rows() * (cols / group * (group - keep) + (cols % group).saturating_sub(keep))
        }
    };
    let (mut conductance, mut unmet) = (vec![0.0; flow.len()], vec![0.0; flow.len()]);
    if zeros > 0 {
        let solver = scaled.solver(compute, parameters.gradient_steps);
        for t in 1..=parameters.iterations {
            unless_stopped(compute)?;
            let progress = t as f32 / parameters.iterations as f32;
            let penalty = progress.max(0.02);
            let floor = libm::powf(10.0, -3.0 * progress);
            conductance.copy_from_slice(&flow);
            adapt(&mut conductance, keep, zeros, cols);
            if t % RECOMPUTE == 1 {
                scaled.unmet_demand(compute, &flow, &mut unmet);
            }
            let iterate = Iterate { flow: &mut flow, unmet: &mut unmet };
            solver.run(iterate, &conductance, |conductance| penalty / (conductance + floor));
        }
        let mask = closing(&flow, keep, &order, cols);
        for ((q, conductance), kept) in flow.iter_mut().zip(&mut conductance).zip(mask) {
            *conductance = f32::from(u8::from(kept));
            *q *= *conductance;
        }
        for begin in (0..parameters.refit_steps).step_by(RECOMPUTE) {
            unless_stopped(compute)?;
            scaled.unmet_demand(compute, &flow, &mut unmet);
            let steps = RECOMPUTE.min(parameters.refit_steps - begin);
            // An infinite cost keeps a closed tube closed.
            let cost = |conductance: f32| if conductance == 0.0 { f32::INFINITY } else { 0.0 };
            let iterate = Iterate { flow: &mut flow, unmet: &mut unmet };
            scaled.solver(compute, steps).run(iterate, &conductance, cost);
        }
    }
    let weights = match zeros {
        0 => problem.weights.to_vec(),
        _ => open_tubes(scaled.weights_of(flow), &conductance, problem, &order),
    };
    unless_stopped(compute)?;
    Ok(Solution { weights, dead_inputs: problem.dead_inputs() })
}

/// Marks the tubes that stay open. Where the weights have as many zeros as asked for, those are the tubes that close.
fn closing(flow: &[f32], keep: Keep, order: &Order<'_>, cols: usize) -> Vec<bool> {
    match keep {
        Keep::AllBut(zeros) if zeros <= order.zeros() => {
            (0..flow.len()).map(|at| !order.is_zero(at)).collect()
        }
        _ => {
            let ranks = flow.iter().enumerate().map(|(at, q)| order.rank(at, *q, *q));
            keep.mask(&ranks.collect::<Vec<_>>(), cols)
        }
    }
}

/// The refitted weights. No open tube's weight becomes zero, and those of dead inputs, about which the text says
/// nothing, are what they were.
fn open_tubes(
    mut weights: Vec<f32>,
    conductance: &[f32],
    problem: &Problem<'_>,
    order: &Order<'_>,
) -> Vec<f32> {
    let open = conductance.iter().map(|conductance| *conductance != 0.0);
    for ((at, weight), _) in weights.iter_mut().enumerate().zip(open).filter(|(_, open)| *open) {
        if order.is_dead(at) {
            *weight = problem.weights[at];
        } else if !order.is_zero(at) {
            *weight = not_zero(*weight);
        }
    }
    weights
}

/// Turns flows `[rows, cols]` into conductances: 1 at the threshold.
fn adapt(tubes: &mut [f32], keep: Keep, zeros: usize, cols: usize) {
    match keep {
        Keep::AllBut(_) => {
            // The threshold of a sample is close enough here: the final mask has the exact one.
            let stride = (tubes.len() / 65_536).max(1);
            let mut sample: Vec<f32> = tubes.iter().step_by(stride).map(|p| p.abs()).collect();
            let at = (zeros as f64 / tubes.len() as f64 * sample.len() as f64) as usize;
            let at = at.min(sample.len() - 1);
            let threshold = *sample.select_nth_unstable_by(at, f32::total_cmp).1;
            conduct(tubes, threshold);
        }
        Keep::Pattern { keep, group } => {
            let mut sorted = vec![0.0; group];
            for row in tubes.chunks_exact_mut(cols) {
                for tubes in row.chunks_mut(group) {
                    let sorted = &mut sorted[..tubes.len()];
                    sorted.iter_mut().zip(&*tubes).for_each(|(s, p)| *s = p.abs());
                    sorted.sort_unstable_by(f32::total_cmp);
                    let last_pruned = sorted.len().saturating_sub(keep + 1);
                    let first_kept = (last_pruned + 1).min(sorted.len() - 1);
                    conduct(tubes, (sorted[last_pruned] * sorted[first_kept]).sqrt());
                }
            }
        }
    }
}

/// D = (|q| / τ)², bounded so that it stays finite. `tubes`: q, then D.
fn conduct(tubes: &mut [f32], threshold: f32) {
    let inverse = 1.0 / threshold.max(f32::MIN_POSITIVE);
    tubes.iter_mut().for_each(|p| *p = (*p * inverse * (*p * inverse)).min(1e12));
}
