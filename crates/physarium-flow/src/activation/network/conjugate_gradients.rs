/*!
Conjugate gradients for many right-hand sides at once, one for each row of a projection.

In: the flow q and the unmet demand b − G q of each row, and which tubes are open. Out: q after some steps towards
G q = b on the open tubes, and b − G q for it. The diagonal of G is 1, so that no preconditioner is needed.

Rows are processed in blocks of [`ROWS`]: a step is one product with G and one pass over each row.
*/

use physarium_kernels::{Compute, Operation, Precision, Symmetric, dispatch};

use super::ROWS;

/// The matrix G, and what the steps run on.
pub(super) struct Refit<'a> {
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

impl Refit<'_> {
    /// Takes steps towards G q = b on the tubes that are open `[rows, cols]`. The others keep their flow.
    pub(super) fn run(&self, iterate: Iterate<'_>, open: &[bool]) {
        let block = ROWS * self.cols;
        let mut blocks: Vec<_> = iterate
            .flow
            .chunks_mut(block)
            .zip(iterate.unmet.chunks_mut(block))
            .zip(open.chunks(block))
            .collect();
        self.compute.each_chunk(&mut blocks, 1, |_, block| {
            let ((flow, unmet), open) = &mut block[0];
            self.solve(Iterate { flow, unmet }, open);
        });
    }

    /// The steps for a block of rows, each with its own step lengths.
    fn solve(&self, Iterate { flow, unmet }: Iterate<'_>, open: &[bool]) {
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
                    open: &open[here],
                    norm: (step > 0).then_some(*norm),
                };
                *norm = dispatch(row);
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
    open: &'a [bool],
    /// Norm of the previous residual; `None` in the first step, which has no direction yet.
    norm: Option<f64>,
}

impl Operation for Row<'_> {
    /// Norm of the residual; zero once the row has converged.
    type Output = f64;

    /// Moves along the direction and computes the next one.
    #[inline(always)]
    fn call(self) -> f64 {
        let Row { flow, unmet, direction, product, open, norm } = self;
        if let Some(norm) = norm {
            let curvature = sum(direction, product);
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
        for ((r, unmet), open) in residual.iter_mut().zip(unmet).zip(open) {
            *r = if *open { *unmet } else { 0.0 };
        }
        let next = sum(residual, residual);
        let turn = norm.map_or(0.0, |norm| (next / norm) as f32);
        direction.iter_mut().zip(&*residual).for_each(|(p, r)| *p = *r + turn * *p);
        next
    }
}

/// Σ aᵢ bᵢ: in float32 lanes within runs, in float64 over the runs.
#[inline(always)]
fn sum(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 16;
    const RUN: usize = 1024;
    let mut total = 0.0;
    for (a, b) in a.chunks(RUN).zip(b.chunks(RUN)) {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let mut lanes = [0.0f32; LANES];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        total += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + f64::from(rest);
    }
    total
}
