/*!
What a journal must say before it is worked with: anybody may have written it.

In: a journal file, the plan made from the headers. Out: a journal whose counts can be summed, and for
each record whether it tells of the tensor that the headers and the plan tell of.
*/

use std::path::Path;

use physarium_checkpoint::PlannedTensor;
use physarium_checkpoint::journal::{Checks, Journal, TensorRecord};

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
    if journal.run.recipe.tile_edge() == Some(0) {
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
    let info = &planned.info;
    record.shape == info.shape
        && record.dtype == info.dtype
        && record.elements == info.elements
        && match (record.processed(), &planned.role) {
            (Some(done), Some(role)) => planned.target().is_some_and(|shape| {
                let fate = done.pruned + done.already_zero + done.non_finite + done.refitted;
                let tiles = done.tiles.zip(tile_edge).is_none_or(|(tiles, edge)| {
                    let expected = shape.rows.div_ceil(edge) * shape.cols.div_ceil(edge);
                    tiles.expected == expected && tiles.visited <= expected
                });
                done.role == *role
                    && fate <= done.processed
                    && done.dead_inputs <= shape.cols
                    && done.processed <= info.elements
                    && tiles
            }),
            (Some(_), None) => false,
            (None, _) => planned.target().is_none(),
        }
}
