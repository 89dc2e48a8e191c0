/*!
Checks of a journal before its numbers are used: anybody may have written it.

In: a journal file, and the plan made from the headers. Out: a journal whose counts can be summed, and for
each record whether it is consistent with headers and plan.
*/

use std::path::Path;

use physarium_checkpoint::journal::{Checks, Journal, MatrixRecord, Processed, TensorRecord};
use physarium_checkpoint::{MatrixView, Orientation, PlannedTensor};

/// Reads a journal and checks that its counts can be summed.
///
/// # Errors
/// `Io`; `Record` for a line that is not a record, or counts whose sum exceeds 64 bits.
pub(crate) fn read_journal(
    path: &Path,
    checks: Checks,
) -> Result<Journal, physarium_checkpoint::Error> {
    let journal = Journal::read(path, checks)?;
    let fault = |expected: &str, found: &str| physarium_checkpoint::Error::Record {
        path: path.to_owned(),
        what: "journal".to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    if journal.run.recipe.needs().tile_edge == Some(0) {
        return Err(fault("a block size of at least 1", "0"));
    }
    // If the sum of all counts fits, the sum of any of them does.
    let counts = journal.tensors.iter().flat_map(counts);
    if counts.into_iter().try_fold(0u64, u64::checked_add).is_none() {
        return Err(fault("counts whose sum fits in 64 bits", "a larger sum"));
    }
    Ok(journal)
}

/// All counts of a record.
fn counts(record: &TensorRecord) -> Vec<u64> {
    let mut counts = vec![record.elements];
    if let Some(done) = record.processed() {
        counts.extend([done.processed, done.pruned, done.already_zero, done.non_finite]);
        counts.extend([done.refitted, done.dead_inputs]);
        counts.extend(done.tiles.map(|tiles| tiles.visited));
        counts.extend(done.matrices.iter().flat_map(|matrix| [matrix.pruned, matrix.already_zero]));
    }
    counts
}

/// Whether a journal record is consistent with headers and plan: the same tensor, the same decision, and no
/// more weights and tiles than the tensor has. `tile_edge` is the recipe's.
pub(crate) fn agrees(
    record: &TensorRecord,
    planned: &PlannedTensor,
    tile_edge: Option<u64>,
) -> bool {
    let info = &planned.input;
    record.shape == info.shape
        && record.dtype == info.dtype
        && record.elements == info.elements
        && match (record.processed(), planned.is_target()) {
            (Some(done), true) => processed_agrees(done, planned, tile_edge),
            (None, false) => true,
            _ => false,
        }
}

fn processed_agrees(done: &Processed, planned: &PlannedTensor, tile_edge: Option<u64>) -> bool {
    let counted = done.pruned + done.already_zero + done.non_finite + done.refitted;
    let tiles = done.tiles.zip(tile_edge).is_none_or(|(tiles, edge)| {
        tiles.expected == tiles_of(planned, edge) && tiles.visited <= tiles.expected
    });
    // The matrices of a fused tensor have the same inputs.
    let inputs = planned.views.iter().map(inputs_of).max().unwrap_or(0);
    let named = planned.projection();
    done.projection == named.projection
        && done.layer == named.site.layer
        && counted <= done.processed
        && done.dead_inputs <= inputs
        && done.processed <= planned.input.elements
        && tiles
        && matrices_agree(done, planned)
}

/// Inputs of a matrix; the most that it may have if its orientation is unknown.
fn inputs_of(view: &MatrixView) -> u64 {
    match view.orientation {
        Orientation::OutIn => view.cols,
        Orientation::InOut => view.rows,
        Orientation::Unknown => view.cols.max(view.rows),
    }
}

/// Number of tiles of `edge` × `edge` weights in a target; no tile crosses the border of a matrix.
pub(crate) fn tiles_of(planned: &PlannedTensor, edge: u64) -> u64 {
    planned.views.iter().map(|view| view.rows.div_ceil(edge) * view.cols.div_ceil(edge)).sum()
}

/// The records of a tensor's matrices if the journal has one for each matrix of the plan; `None` if not.
pub(crate) fn matrix_records<'r>(
    done: &'r Processed,
    planned: &PlannedTensor,
) -> Option<&'r [MatrixRecord]> {
    let same = |(record, view): (&MatrixRecord, &MatrixView)| {
        record.map == view.site.map.name()
            && record.expert == view.site.expert
            && record.elements == view.elements()
    };
    let complete = done.matrices.len() == planned.views.len()
        && done.matrices.iter().zip(&planned.views).all(same);
    complete.then_some(&done.matrices)
}

/// Whether the records of a tensor's matrices are those of the plan, and their counts add up to the tensor's.
fn matrices_agree(done: &Processed, planned: &PlannedTensor) -> bool {
    // Older journals and those of other tools have no records of matrices.
    if done.matrices.is_empty() {
        return true;
    }
    let sum = |count: fn(&MatrixRecord) -> u64| done.matrices.iter().map(count).sum::<u64>();
    planned.views.len() > 1
        && matrix_records(done, planned).is_some()
        && sum(|matrix| matrix.pruned) == done.pruned
        && sum(|matrix| matrix.already_zero) == done.already_zero
}
