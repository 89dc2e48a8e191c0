/*!
A linear map: `y = x Wᵀ + b`, with weights as they are stored.

In: rows of activations `[rows, inputs]`. Out: `[rows, outputs]`. Weights stay in their dtype; the form
that the instructions want is made a block at a time, or, for AMX, at the first product and kept beside
them. Blocks have the same bounds for any number of threads. One row alone is a product of its own
kind: [`crate::matvec`].
*/

use std::borrow::Cow;

use crate::compute::{Compute, Instructions};
use crate::matvec;
use crate::small::{Sum, product};
use crate::sparse::Sparse;
use crate::weights::{Dense, Weights};

/// A linear map.
#[derive(Debug, Clone)]
pub struct Linear {
    outputs: usize,
    inputs: usize,
    weights: Weights,
    bias: Option<Vec<f32>>,
    /// BF16 weights as AMX wants them, once a product has asked for them.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    packed: std::sync::OnceLock<Vec<crate::terms::Tile>>,
}

impl Linear {
    /// A map of `inputs` to `outputs` features; `bias` has one element per output.
    ///
    /// # Panics
    /// If weights or bias are not as many as the shape says, or the shape is empty.
    pub fn new(
        outputs: usize,
        inputs: usize,
        weights: impl Into<Weights>,
        bias: Option<Vec<f32>>,
    ) -> Linear {
        let weights = weights.into();
        assert!(outputs > 0 && inputs > 0, "an empty map");
        let fits = match &weights {
            Weights::Dense(weights) => weights.len() == outputs * inputs,
            Weights::Sparse(weights) => [weights.outputs(), weights.inputs()] == [outputs, inputs],
        };
        assert!(fits, "weights of a map [{outputs}, {inputs}]");
        assert!(
            bias.as_ref().is_none_or(|bias| bias.len() == outputs),
            "bias of {outputs} outputs"
        );
        Linear {
            outputs,
            inputs,
            weights,
            bias,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            packed: std::sync::OnceLock::new(),
        }
    }

    /// Features that come out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The same map with other weights.
    ///
    /// # Panics
    /// If they are not as many.
    pub fn with_weights(&self, weights: impl Into<Weights>) -> Linear {
        Linear::new(self.outputs, self.inputs, weights, self.bias.clone())
    }

    /// Its weights `[outputs, inputs]`, those of nought among them.
    pub fn weights(&self) -> Cow<'_, Dense> {
        match &self.weights {
            Weights::Dense(weights) => Cow::Borrowed(weights),
            Weights::Sparse(weights) => Cow::Owned(weights.to_dense()),
        }
    }

    /// Writes the weights of an output, `[inputs]`, as float32.
    ///
    /// # Panics
    /// If there is no such output, or `to` is not as long.
    pub fn row(&self, output: usize, to: &mut [f32]) {
        assert!(output < self.outputs && to.len() == self.inputs);
        self.weights.widen(self.inputs, output, to);
    }

    /// Bytes that its weights take.
    pub fn weights_bytes(&self) -> usize {
        self.weights.size_bytes()
    }

    /// Features that go in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The map that takes gradients of results to gradients of inputs: Wᵀ, without a bias.
    pub fn transposed(&self) -> Linear {
        let size = [self.outputs, self.inputs];
        let weights = match &*self.weights() {
            Dense::Bf16(weights) => Dense::Bf16(transpose(weights, size)),
            Dense::F16(weights) => Dense::F16(transpose(weights, size)),
            Dense::F32(weights) => Dense::F32(transpose(weights, size)),
        };
        Linear::new(self.inputs, self.outputs, weights, None)
    }

    /// Brings the weights into the form that products want, where `compute` keeps it. The first product
    /// does it otherwise; where products run side by side, each of them might.
    pub fn prepare(&self, compute: &Compute) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if compute.keeps_copies() && self.is_for_tiles(compute) && self.packed.get().is_none() {
            // Another thread may have been faster; its tiles are the same.
            let _ = self.packed.set(tiles::pack(compute, self));
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        let _ = compute;
    }

    /// Whether products with many rows run on tiles.
    fn is_for_tiles(&self, compute: &Compute) -> bool {
        let bf16 = matches!(self.weights.values(), Dense::Bf16(_));
        bf16 && compute.instructions() == Instructions::Amx
    }

    /// Writes the map's value for each row of `x` `[rows, inputs]` to `y` `[rows, outputs]`.
    ///
    /// # Panics
    /// If the slices are not whole rows, or not as many.
    pub fn forward(&self, compute: &Compute, x: &[f32], y: &mut [f32]) {
        forward_all(compute, x, &mut [(self, y)]);
    }
}

/// `[rows, cols]` to `[cols, rows]`, in squares that stay in a cache.
fn transpose<T: Copy + Default>(from: &[T], [rows, cols]: [usize; 2]) -> Vec<T> {
    const EDGE: usize = 32;
    let mut to = vec![T::default(); from.len()];
    for first in (0..rows).step_by(EDGE) {
        for begin in (0..cols).step_by(EDGE) {
            for row in first..(first + EDGE).min(rows) {
                for col in begin..(begin + EDGE).min(cols) {
                    to[col * rows + row] = from[row * cols + col];
                }
            }
        }
    }
    to
}

/// Several maps of the same rows: `x` is prepared once. Each result is the one of
/// [`Linear::forward`].
///
/// # Panics
/// As [`Linear::forward`].
pub fn forward_all(compute: &Compute, x: &[f32], maps: &mut [(&Linear, &mut [f32])]) {
    forward_sum(compute, x, maps, Sum::Set);
}

/// As [`forward_all`]; `sum` says what becomes of what the results hold before.
pub(crate) fn forward_sum(
    compute: &Compute,
    x: &[f32],
    maps: &mut [(&Linear, &mut [f32])],
    sum: Sum,
) {
    let Some(inputs) = maps.first().map(|(map, _)| map.inputs) else { return };
    assert!(x.len().is_multiple_of(inputs), "activations are not whole rows");
    let rows = x.len() / inputs;
    if rows == 0 {
        return;
    }
    if rows == 1 && sum == Sum::Set {
        return one_row(compute, x, maps);
    }
    let mut blocks = Vec::new();
    for (map, y) in maps.iter_mut() {
        assert_eq!(map.inputs, inputs, "maps of the same rows");
        assert_eq!(y.len(), rows * map.outputs, "result of {rows} rows");
        let y = Result { begin: y.as_mut_ptr(), stride: map.outputs };
        let size = block_outputs(map.outputs);
        blocks.extend((0..map.outputs).step_by(size).map(|begin| Block {
            map,
            y,
            outputs: begin..(begin + size).min(map.outputs),
        }));
    }
    let on_tiles = maps.iter().all(|(map, _)| map.is_for_tiles(compute));
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if on_tiles {
        return tiles::run(compute, x, inputs, &blocks, sum);
    }
    debug_assert!(!on_tiles);
    compute.each(blocks.len(), |index| blocks[index].portable(x, rows, sum));
}

/// Maps of one row, each weight of which is read once.
fn one_row(compute: &Compute, x: &[f32], maps: &mut [(&Linear, &mut [f32])]) {
    /// Bytes of weights that a task reads at least, and at most.
    const TASK: [usize; 2] = [1 << 16, 1 << 18];
    let bytes: usize = maps.iter().map(|(map, _)| map.weights.size_bytes()).sum();
    let task = (bytes / (4 * compute.threads())).clamp(TASK[0], TASK[1]);
    let weights = maps.iter().map(|(map, _)| &map.weights);
    let x = matvec::Arranged::new(compute.vectors(), x, weights);
    let mut tasks = Vec::new();
    for (map, y) in maps.iter_mut() {
        assert_eq!(map.inputs, x.inputs(), "maps of the same rows");
        assert_eq!(y.len(), map.outputs, "result of one row");
        let row = map.weights.size_bytes().div_ceil(map.outputs).max(1);
        let rows = (task / row).next_multiple_of(matvec::ROWS);
        let parts = y.chunks_mut(rows).enumerate();
        tasks.extend(parts.map(|(index, y)| (&**map, index * rows, y)));
    }
    compute.each_chunk(&mut tasks, 1, |_, tasks| {
        for (map, first, y) in tasks {
            let product = matvec::Product { weights: &map.weights, inputs: map.inputs, x: &x };
            let rows = *first..*first + y.len();
            product.rows(compute.vectors(), rows.clone(), y);
            if let Some(bias) = &map.bias {
                y.iter_mut().zip(&bias[rows]).for_each(|(y, bias)| *y += bias);
            }
        }
    });
}

/// Where a map's results go; blocks write to different columns.
#[derive(Clone, Copy)]
struct Result {
    begin: *mut f32,
    stride: usize,
}

/// Some outputs of a map.
struct Block<'a> {
    map: &'a Linear,
    y: Result,
    outputs: std::ops::Range<usize>,
}

// SAFETY: each block writes to its own columns of `y`, which is borrowed mutably by `forward_all`
// until all blocks are done.
unsafe impl Sync for Block<'_> {}

/// Outputs of a block: enough blocks for a few threads, none too large for a cache.
fn block_outputs(outputs: usize) -> usize {
    const BAND: usize = 32;
    (outputs / 8).next_multiple_of(BAND).clamp(BAND, 8 * BAND)
}

impl Block<'_> {
    /// The block by the `gemm` crate.
    fn portable(&self, x: &[f32], rows: usize, sum: Sum) {
        /// Weights widened at once: they stay in a cache.
        const WIDENED: usize = 1 << 19;
        let inputs = self.map.inputs;
        let at_once = (WIDENED / inputs).clamp(1, self.outputs.len());
        let mut widened = Vec::new();
        for begin in self.outputs.clone().step_by(at_once) {
            let cols = at_once.min(self.outputs.end - begin);
            let here = begin * inputs..(begin + cols) * inputs;
            let weights = match &self.map.weights {
                Weights::Dense(Dense::F32(weights)) => &weights[here],
                other => {
                    widened.resize(cols * inputs, 0.0);
                    other.widen(inputs, begin, &mut widened);
                    &widened[..]
                }
            };
            // SAFETY: `x` holds `rows` rows of `inputs`; `weights` `cols` rows of as many, read
            // transposed; the columns from `begin` on of `y` are this block's.
            unsafe {
                product(
                    [rows, inputs, cols],
                    (x.as_ptr(), inputs, 1),
                    (weights.as_ptr(), 1, inputs),
                    (self.y.begin.add(begin), self.y.stride),
                    sum,
                );
            }
        }
        self.add_bias(0..rows);
    }

    /// Adds the bias to the block's columns of `rows`.
    fn add_bias(&self, rows: std::ops::Range<usize>) {
        let Some(bias) = &self.map.bias else { return };
        let bias = &bias[self.outputs.clone()];
        for row in rows {
            // SAFETY: these columns are this block's alone, and `y` holds all rows.
            let row = unsafe {
                let begin = self.y.begin.add(row * self.y.stride + self.outputs.start);
                std::slice::from_raw_parts_mut(begin, bias.len())
            };
            row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles {
    //! The blocks on AMX.

    use std::ops::Range;

    use super::{Block, Dense, Linear, Sparse, Sum, Weights};
    use crate::amx::{Begin, Sums, Tiles, pack_band};
    use crate::compute::Compute;
    use crate::matvec;
    use crate::terms::{TERMS, TILE_DEPTH, TILE_ROWS, Tile, split_band};

    /// Rows of activations that are split at once, so that their terms stay in a cache.
    const ROWS: usize = 256;
    /// Steps over the inputs after which sums are put down, so that weights stay in a cache.
    const STEPS: usize = 24;
    /// Rows and columns of a block of sums.
    const EDGE: usize = 2 * TILE_ROWS;

    pub(super) fn run(compute: &Compute, x: &[f32], inputs: usize, blocks: &[Block<'_>], sum: Sum) {
        blocks.iter().for_each(|block| block.map.prepare(compute));
        let band = inputs.div_ceil(TILE_DEPTH) * TERMS;
        for (chunk, rows) in x.chunks(ROWS * inputs).enumerate() {
            let count = rows.len() / inputs;
            let bands = count.div_ceil(EDGE) * 2;
            compute.with_tiles(bands * band, |split| {
                compute.each_chunk(split, band, |index, tiles| {
                    let begin = (index * TILE_ROWS * inputs).min(rows.len());
                    let end = (begin + TILE_ROWS * inputs).min(rows.len());
                    split_band(&rows[begin..end], inputs, tiles);
                });
                let first = chunk * ROWS;
                let activations = Activations { split, band, rows: first..first + count };
                compute.each(blocks.len(), |index| match blocks[index].map.packed.get() {
                    // Blocks begin at a pair of bands.
                    Some(packed) => {
                        let begin = blocks[index].outputs.start / TILE_ROWS * (band / TERMS);
                        blocks[index].on_tiles(&activations, &packed[begin..], sum);
                    }
                    None => {
                        let Block { map, outputs, .. } = &blocks[index];
                        let len = outputs.len().div_ceil(EDGE) * 2 * (band / TERMS);
                        compute.with_tiles(len, |packed| {
                            for (index, packed) in packed.chunks_mut(band / TERMS).enumerate() {
                                let first = outputs.start + index * TILE_ROWS;
                                pack_band_of(compute, map, first, packed);
                            }
                            blocks[index].on_tiles(&activations, packed, sum);
                        });
                    }
                });
            });
        }
    }

    /// Weights in bands of 16 outputs, each a tile for every 32 inputs; an even number of bands.
    pub(super) fn pack(compute: &Compute, map: &Linear) -> Vec<Tile> {
        let band = map.inputs.div_ceil(TILE_DEPTH);
        let mut packed = vec![Tile::ZERO; map.outputs.div_ceil(EDGE) * 2 * band];
        compute.each_chunk(&mut packed, band, |index, packed| {
            pack_band_of(compute, map, index * TILE_ROWS, packed);
        });
        packed
    }

    /// The band of at most 16 outputs from `first` on.
    fn pack_band_of(compute: &Compute, map: &Linear, first: usize, packed: &mut [Tile]) {
        let (first, last) = (first.min(map.outputs), (first + TILE_ROWS).min(map.outputs));
        match &map.weights {
            Weights::Dense(Dense::Bf16(weights)) => {
                pack_band(&weights[first * map.inputs..last * map.inputs], map.inputs, packed);
            }
            Weights::Sparse(weights) => {
                let width = Sparse::words(map.inputs) * TILE_DEPTH;
                let mut rows = vec![0; (last - first) * width];
                for (offset, row) in rows.chunks_exact_mut(width).enumerate() {
                    matvec::expand_words(compute.vectors(), weights, first + offset, row);
                }
                pack_band(&rows, width, packed);
            }
            Weights::Dense(_) => unreachable!("only BF16 weights are for tiles"),
        }
    }

    /// Rows split into terms: bands of 16, each of `band` tiles.
    struct Activations<'a> {
        split: &'a [Tile],
        band: usize,
        rows: Range<usize>,
    }

    impl Activations<'_> {
        /// The steps `steps` of the two bands from row `row` of these rows on.
        fn bands(&self, row: usize, steps: &Range<usize>) -> [&[Tile]; 2] {
            [0, 1].map(|next| {
                let begin = (row / TILE_ROWS + next) * self.band;
                &self.split[begin + steps.start * TERMS..begin + steps.end * TERMS]
            })
        }
    }

    impl Block<'_> {
        /// `packed`: the bands of the block's outputs.
        fn on_tiles(&self, activations: &Activations<'_>, packed: &[Tile], sum: Sum) {
            let tiles = Tiles::configure();
            let band = self.map.inputs.div_ceil(TILE_DEPTH);
            for begin in (0..band).step_by(STEPS) {
                let steps = begin..(begin + STEPS).min(band);
                let start = match sum {
                    Sum::Set if begin == 0 => Begin::Nought,
                    _ => Begin::FromSums,
                };
                self.products(&tiles, activations, packed, &steps, start);
            }
            self.add_bias(activations.rows.clone());
        }

        /// Adds the products over the inputs of `steps` to the block's columns.
        fn products(
            &self,
            tiles: &Tiles,
            activations: &Activations<'_>,
            packed: &[Tile],
            steps: &Range<usize>,
            start: Begin,
        ) {
            let rows = activations.rows.len();
            let band = self.map.inputs.div_ceil(TILE_DEPTH);
            // A pair of bands of weights stays in the first cache while all rows pass by.
            for (pair, col) in (0..self.outputs.len()).step_by(EDGE).enumerate() {
                let weights = [2 * pair, 2 * pair + 1]
                    .map(|index| &packed[index * band + steps.start..index * band + steps.end]);
                for row in (0..rows).step_by(EDGE) {
                    let x = activations.bands(row, steps);
                    let sum = |sums: Sums<'_>| tiles.block(x, weights, sums, start);
                    self.at(activations.rows.start + row, rows - row, col, sum);
                }
            }
        }

        /// Lets `sum` work on the block of `y` at a row, of which `rows` more are there, and a column.
        fn at(&self, row: usize, rows: usize, col: usize, sum: impl FnOnce(Sums<'_>)) {
            let size = [EDGE.min(rows), EDGE.min(self.outputs.len() - col)];
            // SAFETY: that row and column are within `y`.
            let y = unsafe { self.y.begin.add(row * self.y.stride + self.outputs.start + col) };
            if size == [EDGE; 2] {
                // SAFETY: a whole block is within `y`, in columns that are this block's.
                sum(unsafe { Sums::new(y, self.y.stride) });
            } else {
                // SAFETY: `size` rows and columns are within `y`, and are this block's.
                unsafe { through_copy(y, self.y.stride, size, sum) };
            }
        }
    }

    /// Sums a block of fewer than 32 rows or columns in a whole one beside.
    ///
    /// # Safety
    /// `size` rows and columns at `y`, `stride` floats apart, are this thread's alone.
    unsafe fn through_copy(
        y: *mut f32,
        stride: usize,
        [rows, cols]: [usize; 2],
        sum: impl FnOnce(Sums<'_>),
    ) {
        let mut whole = [0.0; EDGE * EDGE];
        for row in 0..rows {
            // SAFETY: as the caller says.
            let from = unsafe { std::slice::from_raw_parts(y.add(row * stride), cols) };
            whole[row * EDGE..row * EDGE + cols].copy_from_slice(from);
        }
        // SAFETY: `whole` is 32 rows of 32.
        sum(unsafe { Sums::new(whole.as_mut_ptr(), EDGE) });
        for row in 0..rows {
            // SAFETY: as the caller says.
            let to = unsafe { std::slice::from_raw_parts_mut(y.add(row * stride), cols) };
            to.copy_from_slice(&whole[row * EDGE..row * EDGE + cols]);
        }
    }
}
