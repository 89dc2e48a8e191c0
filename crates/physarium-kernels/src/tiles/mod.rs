/*!
Tiles of BF16 numbers, and their products on Intel AMX.

In: float32 activations and BF16 weights, row-major. Out: both as tiles, and blocks of float32 sums.
*/

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod available;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod pack;
mod terms;
mod tile;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use amx::{Begin, EDGE, Sums, TileUnit};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use available::is_available;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use pack::{pack_band, transpose_pairs_of};
pub(crate) use terms::{Rows, Terms, pack_columns, split_band};
pub(crate) use tile::{TILE_DEPTH, TILE_ROWS, Tile};
