/*!
The zeros of each tile, group or matrix of a target, counted while its bytes pass by.

In: the bytes of both sides in order. Out: the first cell whose zeros are not what the recipe requests, and how many
such cells there are. Memory is one row of cells.
*/

use physarium_checkpoint::{Dtype, MatrixView};

use super::bounds::{Missed, Request, Weights};
use crate::count::compare::tally;

/// Counts the cells of one target.
pub(crate) struct Cells<'a> {
    request: Request,
    /// The matrices of the target, in the order of its elements.
    views: &'a [MatrixView],
    dtype: Dtype,
    counts_non_finite: bool,
    /// Index of the matrix that passes by, and the next element in it.
    view: usize,
    at: u64,
    /// A row of cells.
    row: Vec<Weights>,
    cells: u64,
    missed: u64,
    first: Option<First>,
}

/// The first cell that is not as requested.
struct First {
    view: usize,
    /// Row and column of the cell among the cells of its matrix.
    place: [u64; 2],
    what: Missed,
}

impl<'a> Cells<'a> {
    /// Prepares for a target; `None` if nothing is requested of its single cells. `counts_non_finite` if it may have
    /// infinite and NaN weights.
    pub fn new(
        request: Option<Request>,
        views: &'a [MatrixView],
        dtype: Dtype,
        counts_non_finite: bool,
    ) -> Option<Cells<'a>> {
        let request = request?;
        request.cell(views.first()?)?;
        Some(Cells {
            request,
            views,
            dtype,
            counts_non_finite,
            view: 0,
            at: 0,
            row: Vec::new(),
            cells: 0,
            missed: 0,
            first: None,
        })
    }

    /// Adds the next weights of both sides.
    pub fn add(&mut self, mut now: &[u8], mut before: &[u8]) {
        let size = (self.dtype.bits() / 8) as usize;
        while let Some(view) = self.views.get(self.view).filter(|_| !now.is_empty()) {
            let (cols, [cell_rows, cell_cols]) = (view.cols, self.cell(view));
            let (row, col) = (self.at / cols, self.at % cols);
            // A cell as wide as the matrix takes whole rows at once.
            let run = if cell_cols == cols {
                (cell_rows - row % cell_rows) * cols - col
            } else {
                (cell_cols - col % cell_cols).min(cols - col)
            };
            let run = run.min(view.elements() - self.at).min((now.len() / size) as u64);
            let bytes = run as usize * size;
            let here = self.count(&now[..bytes], &before[..bytes]);
            let at = (col / cell_cols) as usize;
            if self.row.len() <= at {
                self.row.resize(at + 1, Weights::default());
            }
            self.row[at] += here;
            (now, before) = (&now[bytes..], &before[bytes..]);
            self.at += run;
            let ends_row = self.at.is_multiple_of(cols);
            let rows = self.at / cols;
            if ends_row && (rows.is_multiple_of(cell_rows) || rows == view.rows) {
                self.end_row((rows - 1) / cell_rows);
            }
            if self.at == view.elements() {
                (self.view, self.at) = (self.view + 1, 0);
            }
        }
    }

    fn cell(&self, view: &MatrixView) -> [u64; 2] {
        self.request.cell(view).expect("a request of cells")
    }

    fn count(&self, now: &[u8], before: &[u8]) -> Weights {
        let size = (self.dtype.bits() / 8) as usize;
        let elements = (now.len() / size) as u64;
        let few = now.len() < 256 && !self.counts_non_finite;
        let (zeros, zeros_before, non_finite) = match size {
            2 if few => (short::<2>(now), short::<2>(before), 0),
            4 if few => (short::<4>(now), short::<4>(before), 0),
            _ => {
                let tally = tally(now, before, self.dtype);
                (tally.zeros, tally.zeros_before, tally.non_finite)
            }
        };
        Weights { elements, zeros, zeros_before, non_finite }
    }

    /// Compares a whole row of cells with the request.
    fn end_row(&mut self, row: u64) {
        for (at, cell) in self.row.drain(..).enumerate() {
            self.cells += 1;
            let Some(what) = self.request.check(self.request.of_cell(cell.elements), cell) else {
                continue;
            };
            self.missed += 1;
            let place = [row, at as u64];
            self.first.get_or_insert(First { view: self.view, place, what });
        }
    }

    /// What is not as requested.
    pub fn finding(&self) -> Option<String> {
        let First { view, place: [row, col], what } = self.first.as_ref()?;
        let matrix = if self.views.len() > 1 { format!("matrix {view}: ") } else { String::new() };
        let cell = match self.request.cell_name() {
            Some(name) => {
                format!("{name} {row}, {col} ({} of {} differ): ", self.missed, self.cells)
            }
            None => String::new(),
        };
        Some(format!("zeros do not match the recipe: {matrix}{cell}{what}"))
    }
}

/// Number of weights that are +0.0 or -0.0, of few weights.
fn short<const SIZE: usize>(bytes: &[u8]) -> u64 {
    let is_zero = |weight: &[u8; SIZE]| {
        let rest = weight[..SIZE - 1].iter().fold(0, |bits, byte| bits | byte);
        rest | (weight[SIZE - 1] & 0x7f) == 0
    };
    bytes.as_chunks::<SIZE>().0.iter().filter(|weight| is_zero(weight)).count() as u64
}
