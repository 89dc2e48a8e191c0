//! How many weights may be zero.

use std::fmt;
use std::ops::AddAssign;

use physarium_checkpoint::{Amount, MatrixView, Method, NmPattern, Recipe, Scope, Sparsity};

/// Where a recipe fixes the number of zeros.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Where {
    /// In each tile of this side length.
    Tiles { sparsity: Sparsity, edge: u64 },
    /// In each group of consecutive inputs.
    Groups(NmPattern),
    /// In each matrix.
    Matrices(Sparsity),
    /// Over all targets together.
    Model(Sparsity),
}

/// What a recipe requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Request {
    pub place: Where,
    /// How exactly the method reaches it.
    precision: Precision,
}

/// How exactly a method reaches the number of zeros that is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precision {
    /// Weights that are zero before are the first to be chosen.
    Exact,
    /// They may be left out of the choice, and stay zero beside it.
    BesideZeros,
    /// The same, and a weight may become zero when it is updated and rounded.
    Updated,
}

/// Counts of weights for which a number of zeros is requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    pub elements: u64,
    /// Weights that are zero.
    pub zeros: u64,
    /// Weights that were zero before.
    pub zeros_before: u64,
    /// Infinite and NaN weights, which are kept.
    pub non_finite: u64,
}

/// A number of zeros that is not what the recipe requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed {
    least: u64,
    most: u64,
    found: u64,
    elements: u64,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missed { least, most, found, elements } = self;
        if least == most {
            write!(f, "expected {least} zeros of {elements} weights, found {found}")
        } else {
            write!(f, "expected {least} to {most} zeros of {elements} weights, found {found}")
        }
    }
}

impl AddAssign for Weights {
    fn add_assign(&mut self, other: Weights) {
        self.elements += other.elements;
        self.zeros += other.zeros;
        self.zeros_before += other.zeros_before;
        self.non_finite += other.non_finite;
    }
}

impl Request {
    /// What a recipe requests; `None` if its sparsity is not fixed in advance.
    pub fn of(recipe: &Recipe) -> Option<Request> {
        let method: &Method = &recipe.method;
        let place = match method.amount() {
            Amount::Emergent | Amount::Price(_) => return None,
            Amount::Pattern(pattern) => Where::Groups(pattern),
            Amount::Sparsity { sparsity, scope } => match scope {
                Scope::Tile { block_size } => Where::Tiles { sparsity, edge: block_size.max(1) },
                Scope::Tensor => Where::Matrices(sparsity),
                Scope::Model => Where::Model(sparsity),
            },
        };
        let needs = recipe.needs();
        let precision = match (needs.refits, needs.calibration) {
            (true, _) => Precision::Updated,
            (false, Some(_)) => Precision::BesideZeros,
            (false, None) => Precision::Exact,
        };
        Some(Request { place, precision })
    }

    /// Compares the zeros of weights with the number that is requested of them, `wanted`.
    pub fn check(&self, wanted: u64, weights: Weights) -> Option<Missed> {
        let possible = weights.elements.saturating_sub(weights.non_finite);
        self.within(wanted.min(possible), wanted, weights)
    }

    /// The same for a sum over cells: some may have had more zeros before than are requested of them.
    pub fn check_sum(&self, wanted: u64, weights: Weights) -> Option<Missed> {
        let precision = match self.precision {
            Precision::Exact => Precision::BesideZeros,
            other => other,
        };
        let sum = Request { precision, ..*self };
        sum.within(wanted.saturating_sub(weights.non_finite), wanted, weights)
    }

    /// Compares zeros with at least `least` and at most `wanted`, apart from zeros that were there before.
    fn within(&self, least: u64, wanted: u64, weights: Weights) -> Option<Missed> {
        let Weights { elements, zeros, zeros_before, .. } = weights;
        let least = match self.precision {
            Precision::Exact | Precision::BesideZeros => least.max(zeros_before),
            Precision::Updated => least,
        };
        let most = match self.precision {
            Precision::Exact => least,
            Precision::BesideZeros => wanted.saturating_add(zeros_before),
            // One in a thousand, and a few: more than rounding to zero has been seen to do.
            Precision::Updated => {
                wanted.saturating_add(zeros_before).saturating_add(elements / 1000 + 8)
            }
        };
        let most = most.min(elements);
        (!(least..=most).contains(&zeros)).then_some(Missed { least, most, found: zeros, elements })
    }

    /// Zeros that are requested of a cell: a tile, a group, or a matrix. `elements` is its size; the last cells of a
    /// matrix may be smaller than others.
    pub fn of_cell(&self, elements: u64) -> u64 {
        match self.place {
            Where::Tiles { sparsity, .. } | Where::Matrices(sparsity) | Where::Model(sparsity) => {
                sparsity.count(elements)
            }
            Where::Groups(pattern) => elements.saturating_sub(pattern.keep() as u64),
        }
    }

    /// Zeros that are requested of a matrix, summed over its cells.
    pub fn of_matrix(&self, view: &MatrixView) -> u64 {
        let Some([cell_rows, cell_cols]) = self.cell(view) else { return 0 };
        // All cells but the last of a row or column have one size.
        let parts = |length: u64, part: u64| {
            [(length / part, part), (u64::from(!length.is_multiple_of(part)), length % part)]
        };
        let mut sum = 0;
        for (down, rows) in parts(view.rows, cell_rows) {
            for (across, cols) in parts(view.cols, cell_cols) {
                sum += down * across * self.of_cell(rows * cols);
            }
        }
        sum
    }

    /// Rows and columns of the cells of a matrix in which the number of zeros is fixed; `None` over the model.
    pub fn cell(&self, view: &MatrixView) -> Option<[u64; 2]> {
        let [rows, cols] = match self.place {
            Where::Tiles { edge, .. } => [edge.min(view.rows), edge.min(view.cols)],
            Where::Groups(pattern) => [1, (pattern.group() as u64).min(view.cols)],
            Where::Matrices(_) => [view.rows, view.cols],
            Where::Model(_) => return None,
        };
        Some([rows.max(1), cols.max(1)])
    }

    /// What a part of a matrix in which the number of zeros is fixed is called.
    pub fn cell_name(&self) -> Option<&'static str> {
        match self.place {
            Where::Tiles { .. } => Some("tile"),
            Where::Groups(_) => Some("group"),
            Where::Matrices(_) | Where::Model(_) => None,
        }
    }
}
