/*!
The resident memory of an activation-aware method, counted before it runs.

In: a model's shape, windows, a recipe. Out: bytes. Each term is an allocation of the code that it names; a phase has
those that exist at the same time. What the process has already, the text's tokens and the tokenizer's remains, is measured.
A test compares the sum with the peak of runs; benchmarks/README.md does so for real models.
*/

use physarium_checkpoint::{Arithmetic, Criterion, Recipe};
use physarium_model::{BATCH_TOKENS, Config, MapShape, PrunedInputs, StageShape, window_groups};

use super::gradient_windows;
use super::squares::SAMPLE_TOKENS;
use crate::memory_limit::Streams;
use crate::peak;

/// Bytes of a number.
const F32: u64 = 4;
const BF16: u64 = 2;
const F64: u64 = 8;
/// Rows and columns to which weights are padded when they are packed for tiles.
const TILE: u64 = 32;
/// Rows of activations that are split for tiles at once, and rows whose logits the gradients take at once.
const ROWS: u64 = 256;
/// Outputs whose weights are widened at once, at least.
const WIDENED_OUTPUTS: u64 = 32;
/// Tokens whose Gram matrix is summed at once.
const GRAM_TOKENS: u64 = 2048;
/// Rows of a block of conjugate gradients, and columns of a block of SparseGPT's factor.
const BLOCK_ROWS: u64 = 192;
const FACTOR_EDGE: u64 = 128;
/// Columns of a block of the activation flow's inverse.
const INVERSE_EDGE: u64 = 256;
/// Tokens of the sample whose outputs are computed together (`flow/activation/problem.rs`).
const ERROR_TOKENS: u64 = 256;
/// Queries whose scores are computed together.
const QUERIES: u64 = 128;
/// Stacks, small buffers, the widened weights and packed blocks of products, of each thread.
const PER_THREAD: u64 = 6 << 20;
/// The records of the run, histograms of importances, and rounding up to large pages.
const REST: u64 = 48 << 20;

/// A run of an activation-aware method.
#[derive(Clone, Copy)]
pub(crate) struct Footprint<'a> {
    pub config: &'a Config,
    pub windows: &'a [Vec<u32>],
    pub recipe: &'a Recipe,
    pub threads: usize,
    /// Bytes of a weight.
    pub element_bytes: u64,
    /// Which products run on tiles of BF16 numbers.
    pub on_tiles: OnTiles,
}

/// Which products run on tiles of BF16 numbers, for which their factors are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnTiles {
    /// None.
    None,
    /// Those of activations with weights, and of activations with each other in Gram matrices (`bf16`).
    Activations,
    /// All (`bf16x2`).
    All,
}

impl OnTiles {
    /// Those of an arithmetic.
    pub(crate) fn of(arithmetic: Option<Arithmetic>) -> OnTiles {
        match arithmetic {
            None | Some(Arithmetic::F32) => OnTiles::None,
            Some(Arithmetic::Bf16) => OnTiles::Activations,
            Some(Arithmetic::Bf16x2) => OnTiles::All,
        }
    }

    /// Whether those of activations do.
    fn activations(self) -> bool {
        self != OnTiles::None
    }

    /// Whether those of the solver do: with its matrices, in three terms.
    fn solver(self) -> bool {
        self == OnTiles::All
    }
}

impl Footprint<'_> {
    /// Most bytes of residual streams at any time, but for the one that the pass over gradients changes.
    pub fn streams(&self) -> u64 {
        let gradients = match self.recipe.needs().gradients {
            true => self.gradient_stream() * self.config.layers() as u64,
            false => 0,
        };
        gradients.max(self.walked())
    }

    /// Bytes of the residual streams of all windows in the walk.
    fn walked(&self) -> u64 {
        self.both() * self.tokens() * self.config.hidden as u64 * F32
    }

    /// Bytes of the residual stream of all windows in the pass over gradients.
    fn gradient_stream(&self) -> u64 {
        let tokens: u64 = gradient_windows(self.windows).map(|window| window.len() as u64).sum();
        tokens * self.config.hidden as u64 * F32
    }

    /// Most resident bytes at any time.
    pub fn bytes(&self, streams: Streams, pruned_inputs: PrunedInputs) -> u64 {
        let needs = self.recipe.needs();
        let gradients = if needs.gradients { self.gradients(streams) } else { 0 };
        self.whole(gradients.max(self.solving(streams, pruned_inputs)))
    }

    /// Most resident bytes of a process with these arrays.
    fn whole(&self, arrays: u64) -> u64 {
        // What the allocator keeps between arrays that are freed: up to one part in six, measured (benchmarks/README.md).
        let kept = arrays / 6;
        let before = peak::resident_bytes().unwrap_or(0);
        let most = before + arrays + kept + REST + self.threads() * PER_THREAD;
        most.max(peak::peak_resident_bytes().unwrap_or(0))
    }

    /// The same of a unit of work that measures gradients.
    pub fn budget_unit(&self) -> u64 {
        self.whole(self.gradients(Streams::Memory(0)))
    }

    /// The same of a unit of work that carries these windows to a stage, and sums their statistics there.
    pub fn statistics_unit(&self, stage: &StageShape) -> u64 {
        let (shown, summing, sums) = self.summing(stage);
        // The sums, and the half of them that is written.
        let sums = sums + sums / 2;
        let split = self.concurrent() * (self.buffers() + self.split(self.widest()));
        self.whole(2 * self.walked() + 2 * self.layer() + sums + shown + summing + split)
    }

    /// The same of a unit of work that solves a target of a stage from the sums of all groups.
    pub fn solve_unit(&self, stage: &StageShape, map: &MapShape) -> u64 {
        let (_, _, sums) = self.summing(stage);
        let inverse = match self.inverses() {
            0 => 0,
            _ => self.making_network(stage.inputs() as u64),
        };
        let reading = sums + sums / 2;
        self.whole(self.layer() + sums + reading.max(self.solution(map)).max(inverse))
    }

    /// The pass over gradients (`physarium_model::GradientPass`).
    fn gradients(&self, streams: Streams) -> u64 {
        let config = self.config;
        let hidden = config.hidden as u64;
        // The stream before each layer, or a window of one; and the one that goes through the layers.
        let before = match streams {
            Streams::Memory(_) => self.gradient_stream() * config.layers() as u64,
            Streams::File(_) => self.batch() * hidden * F32,
        };
        let streams = before + self.gradient_stream();
        // The head and its transpose, each also packed; logits, and those split for tiles.
        let vocabulary = config.vocabulary as u64;
        let logits = ROWS.min(self.window()) * vocabulary * F32;
        // Without tiles, weights of the transpose are widened by each thread (`kernels/products/block.rs`).
        let widened = if self.on_tiles.activations() {
            0
        } else {
            self.threads() * WIDENED_OUTPUTS * vocabulary * F32
        };
        let head = 2 * self.weights(vocabulary, hidden) + logits + self.split(vocabulary) + widened;
        // The same for a layer, with the activations of the backward pass.
        let layer =
            2 * self.layer() + self.concurrent() * (self.backward() + self.split(self.widest()));
        streams + head.max(layer)
    }

    /// Activations of a window in the backward pass (`sensitivity/layer.rs`), and gradients of one head per thread.
    fn backward(&self) -> u64 {
        let Widths { hidden, mixed, keys, gated } = self.widths();
        let kept = 2 * hidden + mixed;
        // With a norm after o and down, the gradient before it is another array.
        let kept = kept + if self.config.output_norms { hidden } else { 0 };
        let mlp = 3 * gated + 3 * hidden;
        let attention = 6 * mixed + 7 * keys + 3 * hidden;
        let heads = self.threads() * 4 * QUERIES;
        self.window() * F32 * (kept + mlp.max(attention) + heads) + self.buffers()
    }

    /// The walk with its solutions (`physarium_model::Walk`, `LayerSolver`).
    fn solving(&self, streams: Streams, pruned_inputs: PrunedInputs) -> u64 {
        let needs = self.recipe.needs();
        let concurrent = self.concurrent();
        let residual = match streams {
            Streams::Memory(_) => self.walked(),
            // A batch of each stream (`model/streams.rs`).
            Streams::File(_) => self.both() * self.batch() * self.config.hidden as u64 * F32,
        };
        let split = match needs.gradients {
            // The buffer that the gradients' logits were split in is kept for later products.
            true => self.split(self.config.vocabulary as u64).max(self.split(self.widest())),
            false => self.split(self.widest()),
        } + (concurrent - 1) * self.split(self.widest());
        let stages = self.config.stages();
        let stage = |stage| self.stage(stage, pruned_inputs);
        let stage = stages.iter().map(stage).max().unwrap_or(0);
        residual + concurrent * self.buffers() + split + stage
    }

    /// Most that a stage has: while statistics are summed, while a target is solved, or while its outputs are added.
    fn stage(&self, stage: &StageShape, pruned_inputs: PrunedInputs) -> u64 {
        let inputs = stage.inputs() as u64;
        let (shown, summing, sums) = self.summing(stage);
        let kept = match pruned_inputs {
            PrunedInputs::Kept if stage.kind.adds_to_stream() => self.tokens() * inputs * F32,
            PrunedInputs::Kept | PrunedInputs::ComputedTwice => 0,
        };
        let solving = stage.maps.iter().map(|map| self.solution(map)).max().unwrap_or(0);
        let solving = match self.inverses() {
            0 => solving,
            _ => solving.max(self.making_network(inputs)),
        };
        // In the last stage, the layer and the stage's solutions; before it, most of the dense layer and of the pruned one.
        let solved: u64 =
            stage.maps.iter().map(|map| self.weights(map.outputs as u64, map.inputs as u64)).sum();
        let is_last = self.config.stages().last().is_some_and(|last| last.kind == stage.kind);
        let layers = if is_last { self.layer() + solved } else { 2 * self.layer() };
        // Beside the sums of a group, those of the groups before it.
        let before = if self.groups() > 1 { sums } else { 0 };
        layers + kept + sums + (before + shown + summing).max(solving)
    }

    /// What the sums of a stage need: activations of a batch, what they are packed into, and the sums.
    fn summing(&self, stage: &StageShape) -> (u64, u64, u64) {
        let (streams, inputs) = (self.both(), stage.inputs() as u64);
        let adds = stage.kind.adds_to_stream();
        let outputs = if adds { stage.maps[0].outputs as u64 } else { 0 };
        let of_dense = match streams {
            1 => 0,
            _ if adds => outputs,
            _ => inputs,
        };
        let shown = self.batch() * (streams * inputs + outputs) * F32;
        if !self.recipe.needs().gram {
            return (shown, 0, self.sample() * inputs * F32);
        }
        // Tiles of activations, of both factors, and those transposed by each thread (`kernels/products/on_tiles/gram.rs`).
        let packed = BF16 * self.batch().min(GRAM_TOKENS).next_multiple_of(TILE);
        let summing = match (self.on_tiles.activations(), streams) {
            (false, _) => 0,
            (true, 1) => packed * (inputs + self.threads() * ROWS),
            (true, _) => packed * (inputs + inputs.max(of_dense) + self.threads() * ROWS),
        };
        (shown, summing, (inputs + of_dense) * inputs * F32)
    }

    /// Tokens whose inputs are kept for the error of a method that sums squares only (`squares.rs`).
    fn sample(&self) -> u64 {
        self.tokens().min(SAMPLE_TOKENS as u64)
    }

    /// A matrix `[inputs, inputs]` with which rows are multiplied: float32, or two terms (`kernels/products/symmetric.rs`).
    fn symmetric(&self, inputs: u64) -> u64 {
        let padded = if self.on_tiles.solver() { inputs.next_multiple_of(TILE) } else { inputs };
        padded * padded * F32
    }

    /// The Gram matrix and the inverses of an activation flow (`FlowNetwork`), in place of the matrix of the statistics and
    /// beside it.
    fn network(&self, inputs: u64) -> u64 {
        self.inverses() * self.symmetric(inputs)
    }

    /// The same while it is made: the last inverse is made in the matrix of the statistics, others in a copy.
    fn making_network(&self, inputs: u64) -> u64 {
        let square = inputs * inputs * F32;
        let copy = if self.inverses() > 1 { square } else { 0 };
        // A block's columns and what they explain; on tiles, the former in three terms.
        let (tiles, split) = if self.on_tiles.solver() { (square, 3 * BF16) } else { (0, 0) };
        let columns = INVERSE_EDGE * (2 * F32 + split);
        self.network(inputs) + tiles + copy + inputs * columns
    }

    /// Inverses of an activation flow; none for other methods.
    fn inverses(&self) -> u64 {
        match self.recipe.method.criterion() {
            Criterion::ActivationFlow { flow, .. } => flow.map_or(1, |flow| u64::from(flow.levels)),
            _ => 0,
        }
    }

    /// The solution of one target beside the statistics (`StageSolver::solve`).
    fn solution(&self, map: &MapShape) -> u64 {
        let (rows, cols) = (map.outputs as u64, map.inputs as u64);
        let (all, square) = (rows * cols, cols * cols);
        let method = match self.recipe.method.criterion() {
            Criterion::SparseGpt(_) => {
                // The damped matrix in float64, its factor's inverse, and rows that are worked on
                // (`kernels/factor.rs`); then the inverse and its transpose.
                let worked_on = (self.threads() + 1) * cols * FACTOR_EDGE * F64;
                (square * (F64 + F32) + worked_on)
                    .max(2 * square * F32)
                    .max(square * F32 + all * F32 + rows * BLOCK_ROWS * F64)
            }
            Criterion::ActivationFlow { .. } => {
                let split = if self.on_tiles.solver() { 3 * BF16 } else { 0 };
                let each = self.threads() * BLOCK_ROWS * cols * (2 * F32 + split);
                // Demand and flow; ranks, those sorted, and a mask; then what is unmet.
                let most = each.max(all * (2 * F32 + 1)).max(all * (F32 + 1) + each);
                2 * all * F32 + most
            }
            _ => all * F32,
        };
        let (wide, rounded) = (all * F32, all * self.element_bytes);
        // What the error multiplies with: the network's own matrix, or a copy of the Gram matrix; or outputs of the sample.
        let matrix = match (self.recipe.needs().gram, self.inverses()) {
            (false, _) => ERROR_TOKENS * rows * F32,
            (true, 0) => self.symmetric(cols),
            (true, _) => 0,
        };
        let error = matrix + 3 * all * F32 + rounded;
        self.network(cols) + wide + method.max(error)
    }

    /// Buffers of a workspace that one window uses at a time.
    fn buffers(&self) -> u64 {
        let Widths { hidden, mixed, keys, gated } = self.widths();
        // Outputs of o and down, normalised, and what they are to be (`model/layers/output_norm.rs`).
        let outputs = if self.config.output_norms { 2 * hidden } else { 0 };
        self.window() * F32 * (2 * hidden + outputs + mixed + gated + 2 * keys + QUERIES)
    }

    /// Rows of activations split for tiles.
    fn split(&self, inputs: u64) -> u64 {
        if self.on_tiles.activations() { ROWS * inputs.next_multiple_of(TILE) * F32 } else { 0 }
    }

    /// Bytes of a layer's weights, with those packed for tiles.
    fn layer(&self) -> u64 {
        self.maps().map(|map| self.weights(map.outputs as u64, map.inputs as u64)).sum()
    }

    /// The same of one map.
    fn weights(&self, outputs: u64, inputs: u64) -> u64 {
        let packed = outputs.next_multiple_of(TILE) * inputs.next_multiple_of(TILE);
        let stored = outputs * inputs * self.element_bytes;
        stored + if self.on_tiles.activations() { packed * self.element_bytes } else { 0 }
    }

    fn maps(&self) -> impl Iterator<Item = MapShape> {
        self.config.stages().into_iter().flat_map(|stage| stage.maps)
    }

    fn widest(&self) -> u64 {
        self.maps().map(|map| map.inputs as u64).max().unwrap_or(0)
    }

    /// Tokens of the longest window.
    fn window(&self) -> u64 {
        self.windows.iter().map(|window| window.len() as u64).max().unwrap_or(0)
    }

    /// Tokens of all windows.
    fn tokens(&self) -> u64 {
        self.windows.iter().map(|window| window.len() as u64).sum()
    }

    /// Most tokens of a batch of windows.
    fn batch(&self) -> u64 {
        self.window().max(self.tokens().min(BATCH_TOKENS as u64))
    }

    /// Groups of windows whose sums are added.
    fn groups(&self) -> usize {
        let windows: Vec<&[u32]> = self.windows.iter().map(Vec::as_slice).collect();
        window_groups(&windows).len()
    }

    /// Windows that are computed in parallel.
    fn concurrent(&self) -> u64 {
        self.threads().min(self.batch() / self.window().max(1)).max(1)
    }

    /// Streams: the pruned one, and the dense one if the method uses it.
    fn both(&self) -> u64 {
        if self.recipe.needs().dense_stream { 2 } else { 1 }
    }

    fn threads(&self) -> u64 {
        self.threads as u64
    }

    fn widths(&self) -> Widths {
        let Config { hidden, intermediate, heads, kv_heads, head_dim, .. } = self.config;
        Widths {
            hidden: *hidden as u64,
            mixed: (heads * head_dim) as u64,
            keys: (kv_heads * head_dim) as u64,
            gated: *intermediate as u64,
        }
    }
}

/// Features of activations.
struct Widths {
    hidden: u64,
    /// Of queries, and of the outputs of attention.
    mixed: u64,
    /// Of keys, and of values.
    keys: u64,
    /// Of gates.
    gated: u64,
}
