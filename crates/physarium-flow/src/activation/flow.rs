/*!
Activation flow: each row of a projection is a network of tubes that has to reproduce the row's output.

Tube i carries the flow qᵢ; its conductance Dᵢ grows with the flow and shrinks without it:

```text
flow         (G + λ (D + ε)⁻¹) q = b          the least costly flow that makes the output
adaptation   Dᵢ = (|qᵢ| / τ)²
```

G is the Gram matrix scaled to a unit diagonal, b what the dense model asks for, τ the flow of the tube at
the requested sparsity. λ grows and ε shrinks until tubes are open or closed. Then the survivors share the
flow anew (a refit).

All rows are solved by conjugate gradients, a few steps at a time, begun at the flow before. This is
iteratively reweighted least squares, which Straszak and Vishnoi (2016, arXiv 1601.02712) show to be the
dynamics of Physarum.
*/

use physarium_kernels::{Compute, Left, Precision, Right, Symmetric, multiply};

use super::keep::Keep;
use super::problem::{Problem, Solution};

/// Parameters of the activation flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationFlow {
    /// Steps of the dynamics.
    pub iterations: usize,
    /// Steps of conjugate gradients in each.
    pub gradients: usize,
    /// Steps of conjugate gradients that refit the survivors.
    pub refit: usize,
}

impl Default for ActivationFlow {
    fn default() -> Self {
        ActivationFlow { iterations: 30, gradients: 4, refit: 15 }
    }
}

/// Rows that a task solves together.
const ROWS: usize = 192;

/// The matrix and the aim, scaled.
struct Scaled {
    cols: usize,
    /// Unit diagonal `[cols, cols]`.
    gram: Symmetric,
    /// What inputs are divided by.
    scale: Vec<f32>,
    /// What the dense model asks for `[rows, cols]`.
    demand: Vec<f32>,
}

/// Prunes a projection by the dynamics above.
///
/// # Panics
/// If slices do not fit together.
pub fn activation_flow(
    compute: &Compute,
    problem: &Problem<'_>,
    keep: Keep,
    parameters: &ActivationFlow,
) -> Solution {
    problem.check();
    let cols = problem.cols;
    let scaled = Scaled::new(compute, problem);
    // The flow of the dense weights.
    let mut flow: Vec<f32> = problem.weights.to_vec();
    for row in flow.chunks_exact_mut(cols) {
        row.iter_mut().zip(&scaled.scale).for_each(|(q, scale)| *q *= scale);
    }
    let zeros = match keep {
        Keep::AllBut(zeros) => zeros,
        Keep::Pattern { keep, group } => flow.len() / group * (group - keep),
    };
    let mut open = vec![0.0; flow.len()];
    if zeros > 0 {
        for t in 1..=parameters.iterations {
            let progress = t as f32 / parameters.iterations as f32;
            let price = progress.max(0.02);
            let floor = 10f32.powf(-3.0 * progress);
            open.copy_from_slice(&flow);
            adapt(&mut open, keep, zeros, cols);
            scaled.steps(compute, &mut flow, &open, price, floor, parameters.gradients);
        }
        let magnitudes: Vec<f32> = flow.iter().map(|q| q.abs()).collect();
        let mask = keep.mask(&magnitudes, cols);
        for ((q, open), kept) in flow.iter_mut().zip(&mut open).zip(mask) {
            *open = f32::from(u8::from(kept));
            *q *= *open;
        }
        scaled.refit(compute, &mut flow, &open, parameters.refit);
    }
    for row in flow.chunks_exact_mut(cols) {
        row.iter_mut().zip(&scaled.scale).for_each(|(q, scale)| *q /= scale);
    }
    let weights = if zeros == 0 { problem.weights.to_vec() } else { flow };
    Solution { weights, dead_inputs: problem.dead_inputs() }
}

/// Turns flows into conductances: 1 where the line is drawn.
fn adapt(open: &mut [f32], keep: Keep, zeros: usize, cols: usize) {
    match keep {
        Keep::AllBut(_) => {
            // A sample tells the line well enough: the mask is drawn exactly in the end.
            let stride = (open.len() / 65_536).max(1);
            let mut sample: Vec<f32> = open.iter().step_by(stride).map(|p| p.abs()).collect();
            let at = (zeros as f64 / open.len() as f64 * sample.len() as f64) as usize;
            let at = at.min(sample.len() - 1);
            let line = *sample.select_nth_unstable_by(at, f32::total_cmp).1;
            let inverse = 1.0 / line.max(f32::MIN_POSITIVE);
            open.iter_mut().for_each(|p| *p = (*p * inverse).powi(2).min(1e12));
        }
        Keep::Pattern { keep, group } => {
            let mut sorted = vec![0.0; group];
            for row in open.chunks_exact_mut(cols) {
                for tubes in row.chunks_mut(group) {
                    let sorted = &mut sorted[..tubes.len()];
                    sorted.iter_mut().zip(&*tubes).for_each(|(s, p)| *s = p.abs());
                    sorted.sort_unstable_by(f32::total_cmp);
                    let last_dead = sorted.len().saturating_sub(keep + 1);
                    let first_kept = (last_dead + 1).min(sorted.len() - 1);
                    let line = (sorted[last_dead] * sorted[first_kept]).sqrt();
                    let inverse = 1.0 / line.max(f32::MIN_POSITIVE);
                    tubes.iter_mut().for_each(|p| *p = (*p * inverse).powi(2).min(1e12));
                }
            }
        }
    }
}

/// What is solved for a block of rows, all `[rows, cols]`.
struct System<'a> {
    /// What is added to the diagonal.
    cost: &'a [f32],
    /// The preconditioner: close to the inverse of the diagonal.
    inverse: &'a [f32],
    /// Of the products in each step.
    precision: Precision,
}

impl Scaled {
    fn new(compute: &Compute, problem: &Problem<'_>) -> Scaled {
        let cols = problem.cols;
        let damping = problem.damping();
        let scale: Vec<f32> =
            problem.diagonal().map(|power| (f64::from(power) + damping).sqrt() as f32).collect();
        let mut gram = problem.gram.to_vec();
        compute.each_chunk(&mut gram, cols, |i, row| {
            row[i] += damping as f32;
            for (g, other) in row.iter_mut().zip(&scale) {
                *g /= scale[i] * other;
            }
        });
        // b = w (X_denseᵀX + damping), in units of the scale.
        let aim = problem.dense.unwrap_or(problem.gram);
        let mut demand = vec![0.0; problem.weights.len()];
        compute.each_chunk(&mut demand, ROWS * cols, |block, demand| {
            let weights = &problem.weights[block * ROWS * cols..][..demand.len()];
            let shape = [demand.len() / cols, cols, cols];
            let aim = Right::AsIs { data: aim, stride: cols };
            multiply(shape, Left { data: weights, stride: cols }, aim, demand, cols);
            for (b, w) in demand.chunks_exact_mut(cols).zip(weights.chunks_exact(cols)) {
                for ((b, w), scale) in b.iter_mut().zip(w).zip(&scale) {
                    *b = (*b + damping as f32 * w) / scale;
                }
            }
        });
        Scaled { cols, gram: Symmetric::new(compute, gram, cols), scale, demand }
    }

    /// Steps towards (G + price (D + floor)⁻¹) q = b.
    fn steps(
        &self,
        compute: &Compute,
        flow: &mut [f32],
        conductance: &[f32],
        price: f32,
        floor: f32,
        steps: usize,
    ) {
        compute.each_chunk(flow, ROWS * self.cols, |block, flow| {
            let here = block * ROWS * self.cols..block * ROWS * self.cols + flow.len();
            let cost: Vec<f32> =
                conductance[here.clone()].iter().map(|d| price / (d + floor)).collect();
            let inverse: Vec<f32> = cost.iter().map(|cost| 1.0 / (1.0 + cost)).collect();
            let system = System { cost: &cost, inverse: &inverse, precision: Precision::Coarse };
            self.descend(compute, flow, &self.demand[here], &system, steps);
        });
    }

    /// Steps towards G q = b among the open tubes, `open` 1 where they are and 0 elsewhere.
    fn refit(&self, compute: &Compute, flow: &mut [f32], open: &[f32], steps: usize) {
        compute.each_chunk(flow, ROWS * self.cols, |block, flow| {
            let here = block * ROWS * self.cols..block * ROWS * self.cols + flow.len();
            let cost = vec![0.0; flow.len()];
            let demand = &self.demand[here.clone()];
            let system = System { cost: &cost, inverse: &open[here], precision: Precision::Full };
            self.descend(compute, flow, demand, &system, steps);
        });
    }

    /// Preconditioned conjugate gradients on (G + cost) q = b for a block of rows, each with its own
    /// step lengths. Where `inverse` is nought, q stays. The residual that it begins with is computed in
    /// full.
    fn descend(
        &self,
        compute: &Compute,
        flow: &mut [f32],
        demand: &[f32],
        system: &System<'_>,
        steps: usize,
    ) {
        let cols = self.cols;
        let System { cost, inverse, precision } = *system;
        let mut through = vec![0.0; flow.len()];
        self.gram.multiply(compute, flow, Precision::Full, &mut through);
        let mut residual: Vec<f32> = Vec::with_capacity(flow.len());
        for i in 0..flow.len() {
            residual.push(demand[i] - through[i] - cost[i] * flow[i]);
        }
        let mut direction: Vec<f32> = residual.iter().zip(inverse).map(|(r, m)| r * m).collect();
        let mut norms: Vec<f64> = residual
            .chunks_exact(cols)
            .zip(direction.chunks_exact(cols))
            .map(|(r, z)| dot(r, z))
            .collect();
        for _ in 0..steps {
            self.gram.multiply(compute, &direction, precision, &mut through);
            for (row, norm) in norms.iter_mut().enumerate() {
                let here = row * cols..(row + 1) * cols;
                let (cost, inverse) = (&cost[here.clone()], &inverse[here.clone()]);
                let (q, r) = (&mut flow[here.clone()], &mut residual[here.clone()]);
                let (p, ap) = (&mut direction[here.clone()], &mut through[here]);
                for ((ap, cost), p) in ap.iter_mut().zip(cost).zip(&*p) {
                    *ap += cost * p;
                }
                let curvature = dot(p, ap);
                if curvature.is_nan() || curvature <= 0.0 || *norm <= 0.0 {
                    continue;
                }
                let length = (*norm / curvature) as f32;
                for ((q, r), (p, ap)) in q.iter_mut().zip(&mut *r).zip(p.iter().zip(&*ap)) {
                    *q += length * p;
                    *r -= length * ap;
                }
                for ((z, r), inverse) in ap.iter_mut().zip(&*r).zip(inverse) {
                    *z = r * inverse;
                }
                let next = dot(r, ap);
                let turn = (next / *norm) as f32;
                *norm = next;
                for (p, z) in p.iter_mut().zip(&*ap) {
                    *p = z + turn * *p;
                }
            }
        }
    }
}

/// Σ aᵢ bᵢ, in lanes of float32 and runs of float64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.chunks(1024)
        .zip(b.chunks(1024))
        .map(|(a, b)| {
            let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
            let mut lanes = [0.0f32; 16];
            for (a, b) in a.iter().zip(b) {
                for lane in 0..16 {
                    lanes[lane] += a[lane] * b[lane];
                }
            }
            let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
            lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + f64::from(rest)
        })
        .sum()
}
