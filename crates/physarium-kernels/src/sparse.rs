//! Weights of which many are nought: a bit for each weight, and the values of those that are not.

use half::f16;

use crate::weights::Dense;

/// Inputs that a word of mask stands for.
const WORD: usize = 32;

/// A matrix `[outputs, inputs]`: for each row ⌈inputs / 32⌉ words of mask, lowest bit first, and the
/// values that they have ones for, row by row.
///
/// A value may be nought: nothing but its place is taken from it. Weights without a value are +0.0.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse {
    inputs: usize,
    masks: Vec<u32>,
    /// Values, then [`Sparse::SPARE`] that belong to no row, so that vectors may be read from any value on.
    values: Dense,
    /// Where each row's values begin; one more for the end.
    starts: Vec<usize>,
}

/// Masks and values that do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SparseFault {
    /// The masks are not as many as the shape says.
    #[error("{found} words of mask, not {expected}")]
    Masks {
        /// By the shape.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// A mask has ones beyond the row's end.
    #[error("the mask of row {row} has ones beyond the row's end")]
    BeyondRow {
        /// The row.
        row: usize,
    },
    /// The values are not as many as the masks have ones.
    #[error("{found} values, not the {expected} that the masks have ones for")]
    Values {
        /// By the masks.
        expected: usize,
        /// What there is.
        found: usize,
    },
}

impl Sparse {
    /// Elements that are put behind the values; memory with room for them is not moved.
    pub const SPARE: usize = WORD;

    /// Words of mask that a row of `inputs` weights has.
    pub fn words(inputs: usize) -> usize {
        inputs.div_ceil(WORD)
    }

    /// Proves that masks and values fit each other: products rely on it.
    ///
    /// # Errors
    /// [`SparseFault`].
    pub fn new(
        [outputs, inputs]: [usize; 2],
        masks: Vec<u32>,
        mut values: Dense,
    ) -> Result<Sparse, SparseFault> {
        let words = Sparse::words(inputs);
        if Some(masks.len()) != outputs.checked_mul(words) {
            let expected = outputs.saturating_mul(words);
            return Err(SparseFault::Masks { expected, found: masks.len() });
        }
        let beyond = match inputs % WORD {
            0 => 0,
            rest => u32::MAX << rest,
        };
        let mut starts = Vec::with_capacity(outputs + 1);
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

    /// Rows.
    pub fn outputs(&self) -> usize {
        self.starts.len() - 1
    }

    /// Weights in a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes that masks and values take.
    pub fn size_bytes(&self) -> usize {
        self.masks.len() * 4 + self.starts[self.outputs()] * self.values.element_bytes()
    }

    /// The masks of the rows from `row` on.
    pub(crate) fn masks_from(&self, row: usize) -> &[u32] {
        &self.masks[row * Sparse::words(self.inputs)..]
    }

    /// All values and 32 more.
    pub(crate) fn values(&self) -> &Dense {
        &self.values
    }

    /// Where the values of a row begin.
    pub(crate) fn start(&self, row: usize) -> usize {
        self.starts[row]
    }

    /// Writes the rows from `row` on, as many as `to` holds, as float32.
    ///
    /// # Panics
    /// If `to` is not whole rows, or more than there are.
    pub(crate) fn widen(&self, row: usize, to: &mut [f32]) {
        assert!(to.len().is_multiple_of(self.inputs));
        for (offset, to) in to.chunks_exact_mut(self.inputs).enumerate() {
            match &self.values {
                Dense::Bf16(values) => {
                    self.place(row + offset, values, to, |v| f32::from_bits(u32::from(v) << 16));
                }
                Dense::F16(values) => self.place(row + offset, values, to, f16::to_f32),
                Dense::F32(values) => self.place(row + offset, values, to, |v| v),
            }
        }
    }

    /// All weights, those of nought among them.
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
            self.place(row, values, to, |value| value);
        }
        all
    }

    /// Puts the values of a row where they belong.
    fn place<T: Copy, U: Default>(
        &self,
        row: usize,
        values: &[T],
        to: &mut [U],
        convert: impl Fn(T) -> U,
    ) {
        let mut values = &values[self.starts[row]..];
        for (to, masks) in to.chunks_mut(WORD).zip(self.masks_from(row)) {
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
