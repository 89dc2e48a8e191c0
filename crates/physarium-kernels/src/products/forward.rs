/*!
Applying linear maps: `y = x Wᵀ + b`.

In: rows of activations `[rows, inputs]`. Out: `[rows, outputs]` for each map. Weights keep their dtype; they
are converted to what the instruction set needs a block at a time, or, for tiles, at the first product and then
kept. Blocks have the same bounds for any number of threads. A single row is a matrix-vector product
([`crate::matvec`]).
*/

use super::block::{Block, Rows};
use super::linear::Linear;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::on_tiles::forward::run_on_tiles;
use super::one_row::forward_one_row;
use crate::blocked::{Target, Update};
use crate::compute::Compute;

impl Linear {
    /// Writes the value of the map for each row of `x` `[rows, inputs]` to `y` `[rows, outputs]`.
    ///
    /// # Panics
    /// If the slices are not whole rows, or do not have the same number of rows.
    pub fn forward(&self, compute: &Compute, x: &[f32], y: &mut [f32]) {
        forward_all(compute, x, &mut [(self, y)]);
    }
}

/// Applies several maps to the same rows; `x` is prepared once. Each result is that of [`Linear::forward`].
///
/// # Panics
/// As [`Linear::forward`].
pub fn forward_all(compute: &Compute, x: &[f32], maps: &mut [(&Linear, &mut [f32])]) {
    let Some(width) = maps.first().map(|(map, _)| map.inputs) else { return };
    assert!(x.len().is_multiple_of(width), "activations are not whole rows");
    let x = Rows { values: x, width };
    let rows = x.count();
    if rows == 0 {
        return;
    }
    if rows == 1 {
        return forward_one_row(compute, x.values, maps);
    }
    let mut blocks = Vec::new();
    for (map, y) in maps.iter_mut() {
        assert_eq!(map.inputs, width, "maps of the same rows");
        assert_eq!(Some(y.len()), rows.checked_mul(map.outputs), "result of {rows} rows");
        let (begin, update) = (y.as_mut_ptr(), Update::Replace);
        blocks.extend(Block::of(map, Target { begin, stride: map.outputs, update }));
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let blocks = on_tiles(compute, x, blocks);
    compute.each(blocks.len(), |index| blocks[index].run(compute.vectors(), x));
}

/// Computes the blocks whose maps run on tiles; the others are left.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn on_tiles<'a>(compute: &Compute, x: Rows<'_>, blocks: Vec<Block<'a>>) -> Vec<Block<'a>> {
    let (on_tiles, others): (Vec<_>, _) =
        blocks.into_iter().partition(|block| block.map.tiles(compute).is_some());
    if let Some(tiles) = on_tiles.first().and_then(|block| block.map.tiles(compute)) {
        run_on_tiles(compute, x, tiles, &on_tiles);
    }
    others
}
