/*!
The time of an activation-aware run.

In: a decoder, a recipe and its windows. Out: seconds. One pass through the first layer is timed, and each kind of work
on matrices once, with random numbers and small sizes; the time of the run follows from the numbers of its operations.
Measured against whole runs in benchmarks/README.md.
*/

use std::time::{Duration, Instant};

use physarium_checkpoint::{Criterion, Recipe, TargetPlan};
use physarium_flow::activation::{
    ActivationFlow, Keep, Problem, activation_flow, sparsegpt, wanda,
};
use physarium_model::{Compute, Decoder, Gram, Workspace, add_cross};

use crate::cancel::Cancel;
use crate::engine::GRADIENT_TOKENS;
use crate::error::Result;
use crate::random::SplitMix;
use crate::recipe::arithmetic::compute;

/// Tokens of the sample that is timed.
const SAMPLE_TOKENS: usize = 256;
/// Most inputs of the matrices that are timed.
const SAMPLE_WIDTH: usize = 1536;
/// Rows of the matrices that are timed; a multiple of the solver's blocks on every thread.
const SAMPLE_ROWS: usize = 384;
/// Passes through a layer that the forward and the backward pass of the gradients take together.
const GRADIENT_PASSES: f64 = 4.0;

/// A run to estimate.
pub(crate) struct CalibratedRun<'a> {
    pub decoder: &'a Decoder,
    pub plan: &'a TargetPlan,
    pub recipe: &'a Recipe,
    pub windows: &'a [Vec<u32>],
    pub threads: usize,
    pub cancel: &'a Cancel,
}

/// Time of a run.
///
/// # Errors
/// `Model` for a layer that cannot be read; `Checkpoint` if the run is cancelled.
pub(crate) fn of_activations(run: &CalibratedRun<'_>) -> Result<Duration> {
    let compute = compute(run.threads, run.recipe.arithmetic)?.stopping_when(run.cancel.asked());
    let needs = run.recipe.needs();
    let config = run.decoder.config();
    let layers = config.layers() as f64;
    let tokens: usize = run.windows.iter().map(Vec::len).sum();
    // The pruned stream computes the inputs of o and down twice, which is most of a layer.
    let streams = if needs.dense_stream { 3.0 } else { 2.0 };
    let gradients = if needs.gradients { GRADIENT_PASSES } else { 0.0 };
    let gradient_tokens = tokens.min(GRADIENT_TOKENS) as f64;
    let passes = tokens as f64 * streams + gradient_tokens * gradients;
    let mut seconds = layers * passes * seconds_per_token(run, &compute)?;
    let sample = Sample::new(config.hidden.min(SAMPLE_WIDTH));
    let squares: f64 = config.stages().iter().map(|stage| (stage.inputs() as f64).powi(2)).sum();
    seconds += layers * tokens as f64 * squares * sample.gram(&compute, needs.dense_stream);
    let rates = sample.solver(&compute, run.recipe.method.criterion());
    for (_, view) in run.plan.matrices() {
        let (rows, cols) = (view.rows as f64, view.cols as f64);
        seconds +=
            rows * cols * (rates.product * cols + rates.weight) + rates.factor * cols.powi(3);
    }
    run.cancel.check()?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Seconds that one token takes through the first layer.
fn seconds_per_token(run: &CalibratedRun<'_>, compute: &Compute) -> Result<f64> {
    let window = run.windows.first().map_or(&[][..], Vec::as_slice);
    let window = &window[..window.len().min(SAMPLE_TOKENS)];
    let layer = run.decoder.layer(0)?;
    layer.prepare(compute);
    let workspace = Workspace::new(compute, run.decoder.config(), window.len().max(1));
    let mut hidden = run.decoder.embed(window)?;
    // The first pass warms up caches and threads.
    layer.forward(&workspace, &mut hidden);
    let seconds = timed(|| layer.forward(&workspace, &mut hidden));
    Ok(seconds / window.len().max(1) as f64)
}

/// Random numbers to time work on matrices with.
struct Sample {
    width: usize,
    /// `[SAMPLE_TOKENS, width]`.
    inputs: Vec<f32>,
}

/// Seconds of a solver for each unit of work.
struct Rates {
    /// For each weight.
    weight: f64,
    /// For each row and pair of inputs.
    product: f64,
    /// For each triple of inputs.
    factor: f64,
}

impl Sample {
    fn new(width: usize) -> Sample {
        Sample { width, inputs: random(SAMPLE_TOKENS * width) }
    }

    /// Seconds for each token and pair of inputs that Gram matrices take.
    fn gram(&self, compute: &Compute, cross: bool) -> f64 {
        let mut gram = Gram::new(compute, self.width);
        let mut cross_gram = vec![0.0; self.width * self.width];
        gram.add(compute, &self.inputs);
        let seconds = timed(|| {
            gram.add(compute, &self.inputs);
            if cross {
                add_cross(compute, &self.inputs, &self.inputs, &mut cross_gram);
            }
        });
        seconds / (SAMPLE_TOKENS * self.width * self.width) as f64
    }

    /// The rates of a method, with its measurement of the error.
    fn solver(&self, compute: &Compute, criterion: Criterion) -> Rates {
        let mut gram = Gram::new(compute, self.width);
        gram.add(compute, &self.inputs);
        let gram = gram.finish(1.0 / SAMPLE_TOKENS as f32);
        let weights = random(SAMPLE_ROWS * self.width);
        let problem = |rows: usize| Problem {
            weights: &weights[..rows * self.width],
            cols: self.width,
            gram: &gram,
            cross_gram: None,
            output_costs: None,
        };
        let keep = |rows: usize| Keep::AllBut(rows * self.width / 2);
        let width = self.width as f64;
        let work = SAMPLE_ROWS as f64 * width.powi(2);
        let error = timed(|| {
            problem(SAMPLE_ROWS).output_error(compute, &weights);
        });
        let mut rates = Rates { weight: 0.0, product: error / work, factor: 0.0 };
        match criterion {
            Criterion::ActivationFlow(_) => {
                let of = |flow: &ActivationFlow| {
                    let seconds = timed(|| {
                        let all = SAMPLE_ROWS;
                        drop(activation_flow(compute, &problem(all), keep(all), flow));
                    });
                    (seconds, flow.products() as f64)
                };
                let all = ActivationFlow::default();
                // Two short runs, so that what does not grow with the iterations is not counted for each.
                let (few, products) = of(&ActivationFlow { iterations: 1, refit_steps: 1, ..all });
                let (more, further) = of(&ActivationFlow { iterations: 5, refit_steps: 5, ..all });
                let each = (more - few).max(0.0) / (further - products);
                rates.product += (few + each * (all.products() as f64 - products)) / work;
            }
            Criterion::SparseGpt(_) => {
                let of = |rows| timed(|| drop(sparsegpt(compute, &problem(rows), keep(rows))));
                let (one, all) = (of(1), of(SAMPLE_ROWS));
                rates.product += (all - one).max(0.0) / work;
                rates.factor = one / width.powi(3);
            }
            _ => {
                let seconds =
                    timed(|| drop(wanda(compute, &problem(SAMPLE_ROWS), keep(SAMPLE_ROWS))));
                rates.weight = seconds / weights.len() as f64;
            }
        }
        rates
    }
}

/// Seconds that some work takes.
fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

/// Numbers between −1 and 1.
fn random(count: usize) -> Vec<f32> {
    let mut random = SplitMix::new(1);
    (0..count).map(|_| (2.0 * random.unit() - 1.0) as f32).collect()
}
