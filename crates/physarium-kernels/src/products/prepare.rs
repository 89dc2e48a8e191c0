/*!
Repacking the weights of a map for the instruction set.

In: a [`Linear`]. Out: for AMX, its BF16 weights as tiles, kept in the map; nothing for other instruction sets.
*/

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::sync::Arc;

use super::linear::Linear;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::on_tiles::tile_weights::pack_weights;
use crate::arithmetic::Arithmetic;
use crate::compute::Compute;
use crate::weights::Dense;

impl Linear {
    /// Repacks the weights for the instruction set, if `compute` keeps repacked weights.
    ///
    /// Otherwise the first product does it; if several products run at the same time, each of them may.
    pub fn prepare(&self, compute: &Compute) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        {
            let keeps = compute.keeps_packed_weights() && self.runs_on_tiles(compute);
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

    /// Whether products with many rows run on tiles.
    pub(super) fn runs_on_tiles(&self, compute: &Compute) -> bool {
        let bf16 = matches!(self.weights.values(), Dense::Bf16(_));
        bf16 && compute.arithmetic() == Arithmetic::Bf16x2
    }
}
