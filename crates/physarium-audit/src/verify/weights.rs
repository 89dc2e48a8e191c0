//! Weights of targets against the input's: what may differ, and how many do.

use physarium_checkpoint::Dtype;

use super::span::Span;
use crate::count::compare::{first_illegal, first_negative_zero, tally};
use crate::request::bounds::Weights;

/// What a recipe may do to the weights of targets, beside pruning them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changes {
    /// Infinite and NaN weights are allowed; otherwise the input has none.
    pub keeps_non_finite: bool,
    /// Remaining weights may be updated.
    pub refits: bool,
}

/// Consecutive bytes of a span, of both sides.
pub(super) struct Piece<'a> {
    /// Offset of the first byte in the file.
    pub at: u64,
    pub before: &'a [u8],
    pub now: &'a [u8],
}

impl Piece<'_> {
    /// The first difference that is not allowed.
    pub fn difference(&self, span: &Span, changes: Changes) -> Option<String> {
        let (now, before) = (self.now, self.before);
        let Some(dtype) = span.weights else {
            let byte = now.iter().zip(before).position(|(a, b)| a != b)? as u64 + self.at;
            let what = match span.name {
                None => "header differs from the input",
                Some(_) => "differs from the input and is not a target",
            };
            return Some(format!("{what}, first at byte offset {byte}"));
        };
        let size = dtype.bits() / 8;
        let (first, what) = if changes.refits {
            (first_negative_zero(now, before, size as usize)?, "is -0.0 but not in the input")
        } else {
            let what = "is neither the input value nor +0.0";
            (first_illegal(now, before, size as usize)?, what)
        };
        let index = first + (self.at - span.begin) / size;
        Some(format!("weight {index} {what} (byte offset {})", span.begin + index * size))
    }
}

/// Counts of the weights of a span.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub pruned: u64,
    pub already_zero: u64,
    pub non_finite: u64,
    pub refitted: u64,
    /// All weights, and those of them that were zero before.
    elements: u64,
    zeros_before: u64,
    /// Pruned weights, and weights that were zero before, of each matrix that has ended.
    pub matrices: Vec<[u64; 2]>,
    /// The same of the matrix that has not ended.
    matrix: [u64; 2],
}

impl Counts {
    /// Adds the weights of a piece; returns how many have a value that is not allowed.
    pub fn add(&mut self, piece: &Piece<'_>, dtype: Dtype, changes: Changes) -> u64 {
        let tally = tally(piece.now, piece.before, dtype);
        let already_zero = tally.zeros - tally.pruned;
        self.elements += piece.now.len() as u64 / (dtype.bits() / 8);
        self.zeros_before += tally.zeros_before;
        self.pruned += tally.pruned;
        self.already_zero += already_zero;
        self.matrix[0] += tally.pruned;
        self.matrix[1] += already_zero;
        if changes.keeps_non_finite || changes.refits {
            self.non_finite += tally.non_finite;
        }
        if changes.refits {
            self.refitted += tally.changed;
            tally.to_negative_zero
        } else {
            tally.illegal()
        }
    }

    /// The counts for which a recipe requests a number.
    pub fn weights(&self) -> Weights {
        Weights {
            elements: self.elements,
            zeros: self.pruned + self.already_zero,
            zeros_before: self.zeros_before,
            non_finite: self.non_finite,
        }
    }

    /// Ends a matrix.
    pub fn end_matrix(&mut self) {
        self.matrices.push(std::mem::take(&mut self.matrix));
    }
}
