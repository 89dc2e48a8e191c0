//! A sparse matrix: one mask bit per weight, and the values of the weights whose bit is set.

use half::f16;

use super::dense::Dense;

/// Number of inputs that a mask word covers.
const WORD: usize = 32;

/// A matrix `[outputs, inputs]`: for each row, ⌈inputs / 32⌉ mask words, lowest bit first; then the
/// values of the weights whose bit is set, row by row.
///
/// A stored value may be zero. Weights whose bit is not set are +0.0.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse {
    inputs: usize,
    masks: Vec<u32>,
    /// Values, then [`Sparse::SPARE`] elements of padding, so that a whole vector can be read at any value.
    values: Dense,
    /// Index of the first value of each row, then the number of values: `[outputs + 1]`.
    starts: Vec<usize>,
}

/// Why masks and values do not form a matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SparseFault {
    /// The number of mask words does not match the shape.
    #[error("expected {expected} mask words, found {found}")]
    Masks {
        /// Words that the shape needs.
        expected: usize,
        /// Words given.
        found: usize,
    },
    /// A mask has bits set beyond the end of its row.
    #[error("the mask of row {row} has bits set beyond the end of the row")]
    BeyondRow {
        /// Index of the row.
        row: usize,
    },
    /// The number of values does not match the number of mask bits set.
    #[error("expected {expected} values for the mask bits set, found {found}")]
    Values {
        /// Number of mask bits set.
        expected: usize,
        /// Values given.
        found: usize,
    },
}

impl Sparse {
    /// Number of padding elements appended to the values. If their memory has capacity for them, it is not
    /// reallocated.
    pub const SPARE: usize = WORD;

    /// Number of mask words of a row of `inputs` weights.
    pub fn words(inputs: usize) -> usize {
        inputs.div_ceil(WORD)
    }

    /// A matrix of these masks and values, if they match each other, which products rely on.
    ///
    /// # Errors
    /// [`SparseFault`], if masks, values and shape do not match.
    ///
    /// # Panics
    /// If there are rows, but they have no inputs.
    pub fn new(
        [outputs, inputs]: [usize; 2],
        masks: Vec<u32>,
        mut values: Dense,
    ) -> Result<Sparse, SparseFault> {
        assert!(inputs > 0 || outputs == 0, "rows without inputs");
        let words = Sparse::words(inputs);
        if Some(masks.len()) != outputs.checked_mul(words) {
            let expected = outputs.saturating_mul(words);
            return Err(SparseFault::Masks { expected, found: masks.len() });
        }
        let beyond = match inputs % WORD {
            0 => 0,
            rest => u32::MAX << rest,
        };
        let mut starts = Vec::with_capacity(masks.len() / words.max(1) + 1);
        let mut start = 0;
        starts.push(0);
        for (row, masks) in masks.chunks_exact(words.max(1)).enumerate() {
            if masks.last().is_some_and(|last| last & beyond != 0) {
                return Err(SparseFault::BeyondRow { row });
            }
            start += masks.iter().map(|mask| mask.count_ones() as usize).sum::<usize>();
            starts.push(start);
        }
        if values.len() != start {
            return Err(SparseFault::Values { expected: start, found: values.len() });
        }
        match &mut values {
            Dense::Bf16(values) => values.resize(start + Sparse::SPARE, 0),
            Dense::F16(values) => values.resize(start + Sparse::SPARE, f16::ZERO),
            Dense::F32(values) => values.resize(start + Sparse::SPARE, 0.0),
        }
        Ok(Sparse { inputs, masks, values, starts })
    }

    /// Number of rows.
    pub fn outputs(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of weights in a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Size of masks and values in bytes, without padding.
    pub fn size_bytes(&self) -> usize {
        self.masks.len() * 4 + self.starts[self.outputs()] * self.values.element_bytes()
    }

    /// The masks of row `row` and all rows after it.
    pub(crate) fn masks_from(&self, row: usize) -> &[u32] {
        &self.masks[row * Sparse::words(self.inputs)..]
    }

    /// All values, then [`Sparse::SPARE`] elements of padding.
    pub(crate) fn values(&self) -> &Dense {
        &self.values
    }

    /// Index of the first value of a row.
    pub(crate) fn start(&self, row: usize) -> usize {
        self.starts[row]
    }

    /// Writes a part of a row to `to`, from `column` on, converted to float32 exactly.
    ///
    /// # Panics
    /// If `column` is not a multiple of 32, or `to` ends neither at one nor with the row, or the row does not have as many weights.
    pub(crate) fn widen(&self, [row, column]: [usize; 2], to: &mut [f32]) {
        assert!(column.is_multiple_of(WORD) && column + to.len() <= self.inputs);
        match &self.values {
            Dense::Bf16(values) => {
                self.place([row, column], values, to, |v| f32::from_bits(u32::from(v) << 16));
            }
            Dense::F16(values) => self.place([row, column], values, to, f16::to_f32),
            Dense::F32(values) => self.place([row, column], values, to, |v| v),
        }
    }

    /// All weights, including zeros.
    pub fn to_dense(&self) -> Dense {
        match &self.values {
            Dense::Bf16(values) => Dense::Bf16(self.all(values)),
            Dense::F16(values) => Dense::F16(self.all(values)),
            Dense::F32(values) => Dense::F32(self.all(values)),
        }
    }

    fn all<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        let mut all = vec![T::default(); self.outputs() * self.inputs];
        for (row, to) in all.chunks_exact_mut(self.inputs.max(1)).enumerate() {
            self.place([row, 0], values, to, |value| value);
        }
        all
    }

    /// Writes the values of a row from `column` on, the first of a mask word, to their positions in `to`, zero elsewhere.
    fn place<T: Copy, U: Default>(
        &self,
        [row, column]: [usize; 2],
        values: &[T],
        to: &mut [U],
        convert: impl Fn(T) -> U,
    ) {
        let (before, masks) = self.masks_from(row).split_at(column / WORD);
        let skipped = before.iter().map(|mask| mask.count_ones() as usize).sum::<usize>();
        let mut values = &values[self.starts[row] + skipped..];
        for (to, masks) in to.chunks_mut(WORD).zip(masks) {
            let (mut mask, mut at) = (*masks, 0);
            to.fill_with(U::default);
            while mask != 0 {
                to[mask.trailing_zeros() as usize] = convert(values[at]);
                at += 1;
                mask &= mask - 1;
            }
            values = &values[at..];
        }
    }
}
