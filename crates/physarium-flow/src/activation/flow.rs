/*!
Activation flow: each row of a projection is a network of tubes that has to reproduce the row's output.

Tube i carries the flow qᵢ; its conductance Dᵢ grows with the flow and shrinks without it:

```text
flow         (G + λ (D + ε)⁻¹) q = b          the least costly flow that makes the output
adaptation   Dᵢ = (|qᵢ| / τ)²
```

G is the Gram matrix scaled to a unit diagonal, b what the dense model asks for, τ the flow of the tube at
the requested sparsity. Rows whose outputs the model feels more carry more flow by the square root of
that, so τ cuts where the model loses least. λ grows and ε shrinks until tubes are open or closed. Then the survivors share the
flow anew (a refit).

All rows are solved by conjugate gradients, a few steps at a time, begun at the flow before. This is
iteratively reweighted least squares, which Straszak and Vishnoi (2016, arXiv 1601.02712) show to be the
dynamics of Physarum.
*/

use physarium_kernels::{Compute, Left, Precision, Right, Symmetric, multiply};
use pulp::Arch;

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

/// Steps after which b − G q is computed in full again; between, it is carried along.
const REMAINDERS: usize = 5;
/// Rows that a task solves together.
const ROWS: usize = 192;

/// The matrix and the aim, scaled.
struct Scaled {
    cols: usize,
    /// Unit diagonal `[cols, cols]`.
    gram: Symmetric,
    /// What inputs are divided by.
    scale: Vec<f32>,
    /// What outputs are multiplied by: an error of one costs as much as of any other then.
    felt: Vec<f32>,
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
    let mut flow = scaled.flow_of(problem.weights);
    let zeros = match keep {
        Keep::AllBut(zeros) => zeros,
        Keep::Pattern { keep, group } => flow.len() / group * (group - keep),
    };
    let (mut open, mut rest) = (vec![0.0; flow.len()], vec![0.0; flow.len()]);
    if zeros > 0 {
        for t in 1..=parameters.iterations {
            let progress = t as f32 / parameters.iterations as f32;
            let price = progress.max(0.02);
            let floor = 10f32.powf(-3.0 * progress);
            open.copy_from_slice(&flow);
            adapt(&mut open, keep, zeros, cols);
            if t % REMAINDERS == 1 {
                scaled.remainders(compute, &flow, &mut rest);
            }
            let cost = |conductance: f32| price / (conductance + floor);
            scaled.steps(compute, [&mut flow, &mut rest], &open, cost, parameters.gradients);
        }
        let magnitudes: Vec<f32> = flow.iter().map(|q| q.abs()).collect();
        let mask = keep.mask(&magnitudes, cols);
        for ((q, open), kept) in flow.iter_mut().zip(&mut open).zip(mask) {
            *open = f32::from(u8::from(kept));
            *q *= *open;
        }
        for begin in (0..parameters.refit).step_by(REMAINDERS) {
            scaled.remainders(compute, &flow, &mut rest);
            let steps = REMAINDERS.min(parameters.refit - begin);
            // A closed tube costs so much that it stays closed.
            let cost = |open: f32| if open == 0.0 { f32::INFINITY } else { 0.0 };
            scaled.steps(compute, [&mut flow, &mut rest], &open, cost, steps);
        }
    }
    let weights = if zeros == 0 { problem.weights.to_vec() } else { scaled.weights_of(flow) };
    Solution { weights, dead_inputs: problem.dead_inputs() }
}

/// Square roots of what errors of outputs cost, around 1. No output is taken as free.
fn root_costs(problem: &Problem<'_>) -> Vec<f32> {
    /// Least cost, as a share of the mean.
    const LEAST: f64 = 1e-4;
    let Some(felt) = problem.felt else { return vec![1.0; problem.rows()] };
    let mean = felt.iter().map(|cost| f64::from(*cost)).sum::<f64>() / felt.len() as f64;
    if mean <= 0.0 {
        return vec![1.0; felt.len()];
    }
    felt.iter().map(|cost| (f64::from(*cost) / mean).max(LEAST).sqrt() as f32).collect()
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
        let felt = root_costs(problem);
        for (row, felt) in demand.chunks_exact_mut(cols).zip(&felt) {
            row.iter_mut().for_each(|b| *b *= felt);
        }
        Scaled { felt, cols, gram: Symmetric::new(compute, gram, cols), scale, demand }
    }

    /// The flow of weights.
    fn flow_of(&self, weights: &[f32]) -> Vec<f32> {
        let mut flow = weights.to_vec();
        for (row, felt) in flow.chunks_exact_mut(self.cols).zip(&self.felt) {
            row.iter_mut().zip(&self.scale).for_each(|(q, scale)| *q *= scale * felt);
        }
        flow
    }

    /// The weights of a flow.
    fn weights_of(&self, mut flow: Vec<f32>) -> Vec<f32> {
        for (row, felt) in flow.chunks_exact_mut(self.cols).zip(&self.felt) {
            row.iter_mut().zip(&self.scale).for_each(|(q, scale)| *q /= scale * felt);
        }
        flow
    }

    /// `rest = demand − G flow`, in full.
    fn remainders(&self, compute: &Compute, flow: &[f32], rest: &mut [f32]) {
        compute.each_chunk(rest, ROWS * self.cols, |block, rest| {
            let here = block * ROWS * self.cols..block * ROWS * self.cols + rest.len();
            self.gram.multiply(compute, &flow[here.clone()], Precision::Full, rest);
            rest.iter_mut().zip(&self.demand[here]).for_each(|(rest, b)| *rest = b - *rest);
        });
    }

    /// Steps of conjugate gradients towards (G + cost) q = b, with the Jacobi preconditioner. What costs
    /// infinitely much stays as it is. `[flow, rest]`: q and b − G q.
    fn steps(
        &self,
        compute: &Compute,
        [flow, rest]: [&mut [f32]; 2],
        conductance: &[f32],
        cost: impl Fn(f32) -> f32 + Sync,
        steps: usize,
    ) {
        let block = ROWS * self.cols;
        let mut blocks: Vec<_> = flow
            .chunks_mut(block)
            .zip(rest.chunks_mut(block))
            .zip(conductance.chunks(block))
            .collect();
        compute.each_chunk(&mut blocks, 1, |_, block| {
            let ((flow, rest), conductance) = &mut block[0];
            let mut cost: Vec<f32> = conductance.iter().map(|d| cost(*d)).collect();
            let inverse: Vec<f32> = cost.iter().map(|cost| 1.0 / (1.0 + cost)).collect();
            // What is closed takes no part: 0 · ∞ would be NaN.
            cost.iter_mut().filter(|cost| cost.is_infinite()).for_each(|cost| *cost = 0.0);
            self.descend(compute, [flow, rest], &cost, &inverse, steps);
        });
    }

    /// Conjugate gradients for a block of rows, each with its own step lengths.
    fn descend(
        &self,
        compute: &Compute,
        [flow, rest]: [&mut [f32]; 2],
        cost: &[f32],
        inverse: &[f32],
        steps: usize,
    ) {
        let cols = self.cols;
        let mut direction = vec![0.0; flow.len()];
        let mut norms = vec![0.0; flow.len() / cols];
        let arch = Arch::new();
        let mut through = vec![0.0; flow.len()];
        for step in 0..=steps {
            for (row, norm) in norms.iter_mut().enumerate() {
                let here = row * cols..(row + 1) * cols;
                let row = Row {
                    flow: &mut flow[here.clone()],
                    rest: &mut rest[here.clone()],
                    direction: &mut direction[here.clone()],
                    through: &mut through[here.clone()],
                    cost: &cost[here.clone()],
                    inverse: &inverse[here],
                };
                let norm_before = (step > 0).then_some(*norm);
                *norm = arch.dispatch(|| row.step(norm_before));
            }
            if step < steps {
                self.gram.multiply(compute, &direction, Precision::Coarse, &mut through);
            }
        }
    }
}

/// A row of a block of conjugate gradients.
struct Row<'a> {
    flow: &'a mut [f32],
    rest: &'a mut [f32],
    direction: &'a mut [f32],
    /// G · direction.
    through: &'a mut [f32],
    cost: &'a [f32],
    inverse: &'a [f32],
}

impl Row<'_> {
    /// Goes along the direction, and turns it. `norm`: that of the residual before, or `None` where there is
    /// no direction yet. Returns that of the residual now; nought where there is nowhere left to go.
    #[inline(always)]
    fn step(self, norm: Option<f64>) -> f64 {
        let Row { flow, rest, direction, through, cost, inverse } = self;
        if let Some(norm) = norm {
            let curvature = sum(direction, through, |p, gp, _| p * gp, cost)
                + sum(direction, direction, |p, _, cost| p * p * cost, cost);
            if curvature.is_nan() || curvature <= 0.0 || norm <= 0.0 {
                return 0.0;
            }
            let length = (norm / curvature) as f32;
            let along = direction.iter().zip(&*through);
            for ((q, rest), (p, gp)) in flow.iter_mut().zip(&mut *rest).zip(along) {
                *q += length * p;
                *rest -= length * gp;
            }
        }
        // The residual takes the place of what went through.
        for ((r, rest), (cost, q)) in through.iter_mut().zip(rest).zip(cost.iter().zip(&*flow)) {
            *r = *rest - cost * q;
        }
        let next = sum(through, through, |r, _, inverse| r * r * inverse, inverse);
        let turn = norm.map_or(0.0, |norm| (next / norm) as f32);
        for ((p, r), inverse) in direction.iter_mut().zip(through).zip(inverse) {
            *p = *r * inverse + turn * *p;
        }
        next
    }
}

/// Σ term(aᵢ, bᵢ, cᵢ), in lanes of float32 and runs of float64.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32, f32) -> f32, c: &[f32]) -> f64 {
    const LANES: usize = 16;
    const RUN: usize = 1024;
    let mut total = 0.0;
    for ((a, b), c) in a.chunks(RUN).zip(b.chunks(RUN)).zip(c.chunks(RUN)) {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let (c, c_rest) = c.as_chunks::<LANES>();
        let mut lanes = [0.0f32; LANES];
        for ((a, b), c) in a.iter().zip(b).zip(c) {
            for lane in 0..LANES {
                lanes[lane] += term(a[lane], b[lane], c[lane]);
            }
        }
        let rest = a_rest.iter().zip(b_rest).zip(c_rest);
        let rest: f32 = rest.map(|((a, b), c)| term(*a, *b, *c)).sum();
        total += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + f64::from(rest);
    }
    total
}
