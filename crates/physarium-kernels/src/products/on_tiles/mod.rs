/*!
The products of this folder on Intel AMX.

In: row-major slices and weights. Out: row-major slices of float32 sums. [`tile_product`] is the one loop over tiles; each
other file makes tiles of what it is given.
*/

pub(super) mod forward;
pub(super) mod gram;
pub(super) mod strided;
pub(super) mod symmetric;
mod tile_product;
pub(super) mod tile_weights;
