/*!
Conjugate gradients for many right-hand sides at once, one for each row of a projection.

In: the flow q and the unmet demand b − G q of each row, a diagonal cost for each element. Out: q after some
steps towards (G + cost) q = b, and b − G q for it. The Jacobi preconditioner is used; the diagonal of G is 1.

Rows are processed in blocks of [`ROWS`]: a step is one product with G and one pass over each row.
*/

use physarium_kernels::{Compute, Precision, Symmetric, dispatch};

/// Number of rows that one task solves together.
pub(super) const ROWS: usize = 192;

/// The matrix G, and what the steps run on.
pub(super) struct ConjugateGradients<'a> {
    pub(super) compute: &'a Compute,
    /// G `[cols, cols]`, with a unit diagonal.
    pub(super) gram: &'a Symmetric,
    pub(super) cols: usize,
    /// Number of steps.
    pub(super) steps: usize,
}

/// The state of the iteration, carried along from call to call: both `[rows, cols]`.
pub(super) struct Iterate<'a> {
    /// q.
    pub(super) flow: &'a mut [f32],
    /// The demand that the flow does not meet: b − G q.
    pub(super) unmet: &'a mut [f32],
}

/// The diagonal terms of a block of rows.
struct Diagonal {
    cost: Vec<f32>,
    /// 1 ÷ (1 + cost): the inverse of the diagonal of G + cost; zero where the cost is infinite.
    inverse: Vec<f32>,
}

impl Diagonal {
    fn new(conductance: &[f32], cost: impl Fn(f32) -> f32) -> Diagonal {
        let mut cost: Vec<f32> = conductance.iter().map(|d| cost(*d)).collect();
        let inverse: Vec<f32> = cost.iter().map(|cost| 1.0 / (1.0 + cost)).collect();
        // Elements of infinite cost take no part; 0 · ∞ would be NaN.
        cost.iter_mut().filter(|cost| cost.is_infinite()).for_each(|cost| *cost = 0.0);
        Diagonal { cost, inverse }
    }
}

impl ConjugateGradients<'_> {
    /// Takes steps towards (G + cost(conductance)) q = b. An element of infinite cost keeps its value.
    pub(super) fn run(
        &self,
        iterate: Iterate<'_>,
        conductance: &[f32],
        cost: impl Fn(f32) -> f32 + Sync,
    ) {
        let block = ROWS * self.cols;
        let mut blocks: Vec<_> = iterate
            .flow
            .chunks_mut(block)
            .zip(iterate.unmet.chunks_mut(block))
            .zip(conductance.chunks(block))
            .collect();
        self.compute.each_chunk(&mut blocks, 1, |_, block| {
            let ((flow, unmet), conductance) = &mut block[0];
            self.solve(Iterate { flow, unmet }, &Diagonal::new(conductance, &cost));
        });
    }

    /// The steps for a block of rows, each with its own step lengths.
    fn solve(&self, Iterate { flow, unmet }: Iterate<'_>, diagonal: &Diagonal) {
        let cols = self.cols;
        let mut direction = vec![0.0; flow.len()];
        let mut norms = vec![0.0; flow.len() / cols];
        let mut product = vec![0.0; flow.len()];
        for step in 0..=self.steps {
            if self.compute.is_stopped() {
                return;
            }
            for (row, norm) in norms.iter_mut().enumerate() {
                let here = row * cols..(row + 1) * cols;
                let row = Row {
                    flow: &mut flow[here.clone()],
                    unmet: &mut unmet[here.clone()],
                    direction: &mut direction[here.clone()],
                    product: &mut product[here.clone()],
                    cost: &diagonal.cost[here.clone()],
                    inverse: &diagonal.inverse[here],
                };
                let previous_norm = (step > 0).then_some(*norm);
                *norm = dispatch(|| row.step(previous_norm));
            }
            if step < self.steps {
                self.gram.multiply(self.compute, &direction, Precision::Coarse, &mut product);
            }
        }
    }
}

/// One row of a block.
struct Row<'a> {
    flow: &'a mut [f32],
    unmet: &'a mut [f32],
    direction: &'a mut [f32],
    /// G · direction; after a step, the residual.
    product: &'a mut [f32],
    cost: &'a [f32],
    inverse: &'a [f32],
}

impl Row<'_> {
    /// Moves along the direction and computes the next one. `norm`: that of the previous residual, or `None`
    /// in the first step, which has no direction yet. Returns the norm of the residual; zero once the row has
    /// converged.
    #[inline(always)]
    fn step(self, norm: Option<f64>) -> f64 {
        let Row { flow, unmet, direction, product, cost, inverse } = self;
        if let Some(norm) = norm {
            let curvature = sum([&*direction, &*product, cost], |p, gp, _| p * gp)
                + sum([&*direction, &*direction, cost], |p, _, cost| p * p * cost);
            if curvature.is_nan() || curvature <= 0.0 || norm <= 0.0 {
                return 0.0;
            }
            let length = (norm / curvature) as f32;
            let along = direction.iter().zip(&*product);
            for ((q, unmet), (p, gp)) in flow.iter_mut().zip(&mut *unmet).zip(along) {
                *q += length * p;
                *unmet -= length * gp;
            }
        }
        // The product is not needed any more: the residual takes its memory.
        let residual = product;
        for ((r, unmet), (cost, q)) in residual.iter_mut().zip(unmet).zip(cost.iter().zip(&*flow)) {
            *r = *unmet - cost * q;
        }
        let next = sum([&*residual, &*residual, inverse], |r, _, inverse| r * r * inverse);
        let turn = norm.map_or(0.0, |norm| (next / norm) as f32);
        for ((p, r), inverse) in direction.iter_mut().zip(&*residual).zip(inverse) {
            *p = *r * inverse + turn * *p;
        }
        next
    }
}

/// Σ term(aᵢ, bᵢ, cᵢ): in float32 lanes within runs, in float64 over the runs.
#[inline(always)]
fn sum([a, b, c]: [&[f32]; 3], term: impl Fn(f32, f32, f32) -> f32) -> f64 {
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
