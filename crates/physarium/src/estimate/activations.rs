/*!
The time of an activation-aware run.

In: a decoder, a recipe and its windows. Out: seconds. One pass through the first layer is timed, and each kind of work
on matrices once, with random numbers and small sizes; the time of the run follows from the numbers of its operations.
Measured against whole runs in benchmarks/README.md.
*/

use std::time::{Duration, Instant};

use physarium_checkpoint::{Criterion, Recipe, TargetPlan};
use physarium_flow::activation::{
    ActivationFlow, FlowNetwork, InputRows, Inputs, Keep, Problem, Projection, Target, sparsegpt,
    wanda,
};
use physarium_model::{
    Compute, Config, Decoder, Gram, PrunedInputs, StageShape, Workspace, add_cross,
};

use crate::cancel::Cancel;
use crate::engine::{GRADIENT_TOKENS, SAMPLE_TOKENS};
use crate::error::Result;
use crate::random::SplitMix;
use crate::recipe::arithmetic::compute;
use crate::recipe::effort::parameters;

/// Tokens that are timed.
const TIMED_TOKENS: usize = 256;
/// Most inputs of the matrices that are timed.
const SAMPLE_WIDTH: usize = 1536;
/// Most inputs of the larger of two matrices whose inverses are timed.
const INVERSE_WIDTH: usize = 4608;
/// Inputs of the smaller one, as a part of those of the larger one.
const SMALLER_INVERSE: usize = 3;
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
    pub pruned_inputs: PrunedInputs,
    pub cancel: &'a Cancel,
}

/// What a second of a run's work says about all of it.
pub(crate) struct Measured {
    /// Seconds of a token in a layer.
    token: f64,
    sums: Sums,
    rates: Rates,
}

impl Measured {
    /// Measures.
    ///
    /// # Errors
    /// `Model` for a layer that cannot be read; `Checkpoint` if the run is cancelled.
    pub fn of(run: &CalibratedRun<'_>) -> Result<Measured> {
        let compute =
            compute(run.threads, run.recipe.arithmetic)?.stopping_when(run.cancel.asked());
        let token = seconds_per_token(run, &compute.coarse())?;
        let tokens: usize = run.windows.iter().map(Vec::len).sum();
        let sample = Sample::new(run.decoder.config(), tokens);
        let sums = match run.recipe.needs().gram {
            true => sample.sums(&compute),
            // Squares take no time worth counting.
            false => Sums { gram: 0.0, cross: 0.0 },
        };
        let rates = sample.solver(&compute, run.recipe.method.criterion());
        run.cancel.check()?;
        Ok(Measured { token, sums, rates })
    }

    /// Time of the whole run.
    pub fn whole(&self, run: &CalibratedRun<'_>) -> Duration {
        let dense_stream = run.recipe.needs().dense_stream;
        let config = run.decoder.config();
        // The run ends with the last layer that has a target.
        let last = run.plan.targets().filter_map(|target| target.views[0].site.layer).max();
        let layers = last.map_or(0.0, |layer| layer as f64 + 1.0);
        let tokens: usize = run.windows.iter().map(Vec::len).sum();
        // The inputs of o and down are most of a layer.
        let pruned = match run.pruned_inputs {
            PrunedInputs::Kept => 1.0,
            PrunedInputs::ComputedTwice => 1.7,
        };
        let streams = if dense_stream { 1.0 + pruned } else { pruned };
        let mut seconds = layers * self.pass(tokens as f64 * streams);
        if run.recipe.needs().gradients {
            seconds += self.gradients(config.layers(), tokens);
        }
        for stage in config.stages() {
            seconds +=
                layers * (self.sums(&stage, dense_stream, tokens) + self.inverse(stage.inputs()));
        }
        for (_, view) in run.plan.matrices() {
            seconds += self.solution(view.rows as f64, view.cols as f64);
        }
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Seconds that tokens take through a layer.
    pub fn pass(&self, tokens: f64) -> f64 {
        tokens * self.token
    }

    /// Seconds of the pass over gradients.
    pub fn gradients(&self, layers: usize, tokens: usize) -> f64 {
        GRADIENT_PASSES * layers as f64 * self.pass(tokens.min(GRADIENT_TOKENS) as f64)
    }

    /// Seconds of the sums over tokens at a stage.
    pub fn sums(&self, stage: &StageShape, dense_stream: bool, tokens: usize) -> f64 {
        let inputs = stage.inputs() as f64;
        // What the sums of the dense stream have for each input.
        let others = match dense_stream {
            true if stage.kind.adds_to_stream() => stage.maps[0].outputs as f64,
            true => inputs,
            false => 0.0,
        };
        tokens as f64 * inputs * (inputs * self.sums.gram + others * self.sums.cross)
    }

    /// Seconds of what the targets of a stage share.
    pub fn inverse(&self, inputs: usize) -> f64 {
        let inputs = inputs as f64;
        inputs.powi(2) * (self.rates.inverse.square + self.rates.inverse.cube * inputs)
    }

    /// Seconds of the solution of a target.
    pub fn solution(&self, rows: f64, cols: f64) -> f64 {
        let Rates { weight, product, factor, .. } = self.rates;
        rows * cols * (product * cols + weight) + factor * cols.powi(3)
    }
}

/// Seconds that one token takes through the first layer.
fn seconds_per_token(run: &CalibratedRun<'_>, compute: &Compute) -> Result<f64> {
    let window = run.windows.first().map_or(&[][..], Vec::as_slice);
    let window = &window[..window.len().min(TIMED_TOKENS)];
    let layer = run.decoder.layer(0)?;
    layer.prepare(compute);
    let workspace = Workspace::new(compute, run.decoder.config(), window.len().max(1));
    let mut hidden = run.decoder.embedding()?.of(window)?;
    let seconds = timed(|| layer.forward(&workspace, &mut hidden));
    Ok(seconds / window.len().max(1) as f64)
}

/// Random numbers to time work on matrices with.
struct Sample {
    width: usize,
    /// Inputs of the larger matrix whose inverse is timed.
    inverse_width: usize,
    /// Calibration tokens of the run.
    tokens: usize,
    /// `[TIMED_TOKENS, width]`.
    inputs: Vec<f32>,
}

/// Seconds of a solver for each unit of work.
struct Rates {
    /// For each weight.
    weight: f64,
    /// For each row and pair of inputs.
    product: f64,
    /// For each triple of inputs of a target.
    factor: f64,
    /// Of a stage, whose targets share it.
    inverse: Inverse,
}

/// Seconds of the inverses of a Gram matrix, one for each level of the flow. Up to thousands of inputs the square is most of them.
#[derive(Default)]
struct Inverse {
    /// For each pair of inputs.
    square: f64,
    /// For each triple of inputs.
    cube: f64,
}

impl Inverse {
    /// From the seconds for two numbers of inputs, of which the first is smaller.
    fn through([small, large]: [(usize, f64); 2]) -> Inverse {
        let ([from, to], [first, second]) = (
            [small.0 as f64, large.0 as f64],
            [small, large].map(|(inputs, seconds)| seconds / (inputs as f64).powi(2)),
        );
        let cube = ((second - first) / (to - from)).clamp(0.0, second / to);
        Inverse { square: second - cube * to, cube }
    }
}

/// Seconds of the sums over tokens, for each token and element of the sum.
struct Sums {
    /// Of a Gram matrix.
    gram: f64,
    /// Of the products with activations of the dense model.
    cross: f64,
}

impl Sample {
    fn new(config: &Config, tokens: usize) -> Sample {
        let width = config.hidden.min(SAMPLE_WIDTH);
        let widest = config.stages().iter().map(StageShape::inputs).max().unwrap_or(width);
        let inverse_width = widest.min(INVERSE_WIDTH);
        Sample { width, inverse_width, tokens, inputs: random(TIMED_TOKENS * width) }
    }

    /// Seconds that the sums over tokens take.
    fn sums(&self, compute: &Compute) -> Sums {
        let mut gram = Gram::new(self.width);
        let mut cross = vec![0.0; self.width * self.width];
        gram.add(compute, &self.inputs);
        let work = (TIMED_TOKENS * self.width * self.width) as f64;
        let inputs = &self.inputs[..];
        Sums {
            gram: timed(|| gram.add(compute, inputs)) / work,
            cross: timed(|| add_cross(compute, [inputs; 2], TIMED_TOKENS, &mut cross)) / work,
        }
    }

    /// The rates of a method, with its measurement of the error.
    fn solver(&self, compute: &Compute, criterion: Criterion) -> Rates {
        let weights = random(SAMPLE_ROWS * self.width);
        if let Criterion::Wanda(_) = criterion {
            return self.wanda(compute, &weights);
        }
        let gram = gram(compute, &self.inputs);
        let inputs = Inputs { cols: self.width, gram: &gram };
        let problem = |rows: usize| Problem { weights: &weights[..rows * self.width], inputs };
        let keep = |rows: usize| Keep::AllBut(rows * self.width / 2);
        let width = self.width as f64;
        let work = SAMPLE_ROWS as f64 * width.powi(2);
        let error = timed(|| {
            problem(SAMPLE_ROWS).output_errors(compute, &weights);
        });
        let inverse = Inverse::default();
        let mut rates = Rates { weight: 0.0, product: error / work, factor: 0.0, inverse };
        match criterion {
            Criterion::ActivationFlow { flow, .. } => {
                let flow = parameters(flow);
                let whole = |flow: ActivationFlow| {
                    let network = FlowNetwork::new(compute, gram.clone(), flow);
                    let network = network.expect("a positive definite sample");
                    let all = SAMPLE_ROWS;
                    let (weights, target) = (&weights[..], Target::Own);
                    let projection = Projection { weights, target, output_costs: None };
                    let solve = || drop(network.prune(compute, &projection, keep(all)));
                    (timed(solve), flow.products() as f64)
                };
                // Two short runs, so that what does not grow with the steps is not counted for each.
                let short = |steps| ActivationFlow { steps, levels: 1, refit_steps: 0, ..flow };
                let (few, products) = whole(short(2));
                let (more, further) = whole(short(6));
                let each = (more - few).max(0.0) / (further - products);
                rates.product += (few + each * (flow.products() as f64 - products)) / work;
                rates.inverse = self.inverse(compute, flow);
            }
            _ => {
                let of = |rows| timed(|| drop(sparsegpt(compute, &problem(rows), keep(rows))));
                let (one, all) = (of(1), of(SAMPLE_ROWS));
                rates.product += (all - one).max(0.0) / work;
                rates.factor = one / width.powi(3);
            }
        }
        rates
    }

    /// Seconds of the inverses that the targets of a stage share.
    fn inverse(&self, compute: &Compute, flow: ActivationFlow) -> Inverse {
        let widths = [self.inverse_width.div_ceil(SMALLER_INVERSE), self.inverse_width];
        Inverse::through(widths.map(|width| {
            let gram = gram(compute, &random(TIMED_TOKENS * width));
            (width, timed(|| drop(FlowNetwork::new(compute, gram.clone(), flow))))
        }))
    }

    /// The rates of Wanda, whose error is of a number of tokens.
    fn wanda(&self, compute: &Compute, weights: &[f32]) -> Rates {
        let (cols, squares) = (self.width, vec![1.0; self.width]);
        let solve = timed(|| {
            drop(wanda(compute, weights, &squares, Keep::AllBut(weights.len() / 2)));
        });
        let rows = InputRows { cols, rows: &self.inputs };
        let error = timed(|| {
            rows.output_errors(compute, [weights, weights]);
        });
        let samples = self.tokens.min(SAMPLE_TOKENS) as f64 / TIMED_TOKENS as f64;
        let weight = (solve + samples * error) / weights.len() as f64;
        Rates { weight, product: 0.0, factor: 0.0, inverse: Inverse::default() }
    }
}

/// The Gram matrix of `[TIMED_TOKENS, width]` inputs.
fn gram(compute: &Compute, inputs: &[f32]) -> Vec<f32> {
    let mut gram = Gram::new(inputs.len() / TIMED_TOKENS);
    gram.add(compute, inputs);
    gram.finish(compute, 1.0 / TIMED_TOKENS as f32)
}

/// Seconds that some work takes where caches and threads are warm: the least of three measurements.
fn timed(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64()
    };
    (0..3).map(once).fold(f64::INFINITY, f64::min)
}

/// Numbers between −1 and 1.
fn random(count: usize) -> Vec<f32> {
    let mut random = SplitMix::new(1);
    (0..count).map(|_| (2.0 * random.unit() - 1.0) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_goes_through_both_measurements_where_it_can() {
        let of = |small, large| Inverse::through([(100, small), (300, large)]);
        let both = of(0.02, 0.36);
        assert!((both.square - 1e-6).abs() < 1e-12 && (both.cube - 1e-8).abs() < 1e-14);
        // A smaller matrix that took relatively long, or no time: the larger one decides.
        let square = of(0.1, 0.36);
        assert!(square.cube == 0.0 && (square.square - 4e-6).abs() < 1e-12);
        let cube = of(0.0, 0.27);
        assert!(cube.square == 0.0 && (cube.cube - 1e-8).abs() < 1e-14);
    }
}
