/*!
What a journal must say before it is worked with: anybody may have written it.

In: a journal file, the plan made from the headers. Out: a journal whose counts can be summed, and for
each record whether it tells of the tensor that the headers and the plan tell of.
*/

use std::path::Path;

use physarium_checkpoint::journal::{Checks, Journal, MatrixRecord, Processed, TensorRecord};
use physarium_checkpoint::{MatrixView, PlannedTensor};

/// How a warning about an unreadable journal begins.
pub(crate) const JOURNAL_UNREADABLE: &str = "the journal cannot be read";

/// Reads a journal whose numbers can be worked with: anybody may have written it.
///
/// # Errors
/// `Io`, `Record`.
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
    // All of them together: no sum of some can overflow then.
    let counts = journal.tensors.iter().flat_map(|record| {
        let done = record.processed();
        let counts = done
            .map_or([0; 5], |d| [d.processed, d.pruned, d.already_zero, d.non_finite, d.refitted]);
        let tiles = done.and_then(|done| done.tiles).map_or(0, |tiles| tiles.visited);
        let dead_inputs = done.map_or(0, |done| done.dead_inputs);
        counts.into_iter().chain([tiles, dead_inputs, record.elements])
    });
    if counts.into_iter().try_fold(0u64, u64::checked_add).is_none() {
        return Err(fault("counts whose sum fits in 64 bits", "a sum beyond"));
    }
    Ok(journal)
}

/// Whether a journal record tells of the same tensor and the same decision as headers and plan, and
/// of no more weights and tiles than the tensor has. `tile_edge` is the recipe's.
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
    let fate = done.pruned + done.already_zero + done.non_finite + done.refitted;
    let tiles = done.tiles.zip(tile_edge).is_none_or(|(tiles, edge)| {
        tiles.expected == tiles_of(planned, edge) && tiles.visited <= tiles.expected
    });
    let inputs = planned.views.iter().map(|view| view.cols).max().unwrap_or(0);
    let named = planned.projection();
    done.projection == named.projection
        && done.layer == named.site.layer
        && fate <= done.processed
        && done.dead_inputs <= inputs
        && done.processed <= planned.input.elements
        && tiles
        && matrices_agree(done, planned)
}

/// Tiles of `edge` × `edge` that a target falls into; none crosses a matrix's border.
pub(crate) fn tiles_of(planned: &PlannedTensor, edge: u64) -> u64 {
    planned.views.iter().map(|view| view.rows.div_ceil(edge) * view.cols.div_ceil(edge)).sum()
}

/// Whether a record tells of the matrices that the plan has, and their counts add up.
fn matrices_agree(done: &Processed, planned: &PlannedTensor) -> bool {
    let sum = |count: fn(&MatrixRecord) -> u64| {
        done.matrices.iter().map(count).try_fold(0u64, u64::checked_add)
    };
    let same = |(matrix, view): (&MatrixRecord, &MatrixView)| {
        matrix.map == view.site.map.name()
            && matrix.expert == view.site.expert
            && matrix.elements == view.elements()
    };
    match planned.views.len() {
        1 => done.matrices.is_empty(),
        // Journals of before matrices were recorded, or of other tools, tell of none.
        _ if done.matrices.is_empty() => true,
        count => {
            done.matrices.len() == count
                && done.matrices.iter().zip(&planned.views).all(same)
                && sum(|m| m.pruned) == Some(done.pruned)
                && sum(|m| m.already_zero) == Some(done.already_zero)
        }
    }
}
