/*!
Repacking the weights of a map for the instruction set.

In: a [`Linear`]. Out: its BF16 weights as tiles, kept in the map, where products run on tiles; elsewhere nothing.
*/

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::sync::Arc;

use super::linear::Linear;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::on_tiles::tile_weights::pack_weights;
use crate::compute::Compute;

impl Linear {
    /// Repacks the weights for the instruction set, if `compute` keeps repacked weights.
    ///
    /// Otherwise the first product does it; if several products run at the same time, each of them may.
    pub fn prepare(&self, compute: &Compute) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        {
            let keeps = compute.keeps_packed_weights() && self.tiles(compute).is_some();
            if keeps && self.packed.get().is_none() {
                let tiles = pack_weights(compute, self);
                // Stopped work leaves tiles of zero. If another thread was faster, its tiles are the same.
                if !compute.is_stopped() {
                    let _ = self.packed.set(Arc::new(tiles));
                }
            }
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        let _ = compute;
    }
}
