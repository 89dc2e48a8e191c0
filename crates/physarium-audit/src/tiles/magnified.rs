//! A few tiles, weight by weight: one of each projection, in the middle of the model.

use std::collections::BTreeMap;

use physarium_checkpoint::MatrixView;

use super::{EDGE, MagnifiedTile};
use crate::count::pairs::Pair;
use crate::error::Result;

/// Most projections of which a tile is magnified.
const MOST: usize = 16;

/// The tile in the middle of a matrix of each projection: of the target in the middle of those with its name, and of
/// the middle one of its matrices.
///
/// # Errors
/// `Checkpoint` if a shard cannot be read.
pub(crate) fn magnified(pairs: &[Pair<'_>]) -> Result<Vec<MagnifiedTile>> {
    let mut targets: BTreeMap<&str, Vec<&Pair<'_>>> = BTreeMap::new();
    for pair in pairs.iter().filter(|pair| pair.planned.is_target()) {
        targets.entry(&pair.planned.projection().projection).or_default().push(pair);
    }
    let middle = |mut targets: Vec<&Pair<'_>>| -> Result<Option<MagnifiedTile>> {
        targets.sort_by_key(|pair| pair.planned.projection().site.layer);
        let pair = targets[targets.len() / 2];
        let views = &pair.planned.views;
        match views.get(views.len() / 2) {
            Some(view) if view.elements() > 0 => read_tile(pair, view).map(Some),
            _ => Ok(None),
        }
    };
    targets.into_values().take(MOST).filter_map(|targets| middle(targets).transpose()).collect()
}

/// The tile in the middle of a matrix.
fn read_tile(pair: &Pair<'_>, view: &MatrixView) -> Result<MagnifiedTile> {
    let middle = |all: u64| (all.div_ceil(EDGE) / 2) * EDGE;
    // The last tile may be a sliver; the one before it is whole.
    let first = |all: u64| {
        if middle(all) + EDGE > all { middle(all).saturating_sub(EDGE) } else { middle(all) }
    };
    let at = [first(view.rows), first(view.cols)];
    let shape = [EDGE.min(view.rows - at[0]), EDGE.min(view.cols - at[1])];
    let info = &pair.planned.input;
    let size = info.dtype.bits() / 8;
    let source = pair.shard.reopen()?;
    let mut row = vec![0; (shape[1] * size) as usize];
    let mut alive = vec![0u8; (shape[0] * shape[1]).div_ceil(8) as usize];
    let mut bit = 0;
    for r in at[0]..at[0] + shape[0] {
        let element = view.begin + r * view.cols + at[1];
        source.read_exact_at(&mut row, info.begin + element * size)?;
        for weight in row.chunks(size as usize) {
            alive[bit / 8] |= u8::from(!is_zero(weight)) << (bit % 8);
            bit += 1;
        }
    }
    Ok(MagnifiedTile {
        tensor: info.name.clone(),
        projection: pair.planned.projection().projection.clone(),
        expert: view.site.expert,
        at,
        shape,
        alive: base64::encode(alive),
    })
}

/// Whether a little-endian weight is +0.0 or -0.0.
fn is_zero(weight: &[u8]) -> bool {
    let (last, rest) = weight.split_last().expect("an element has bytes");
    last << 1 == 0 && rest.iter().all(|byte| *byte == 0)
}
