/*!
Tiles of BF16 numbers, and their products on Intel AMX or AVX-512 BF16.

In: float32 activations and BF16 weights, row-major. Out: both as tiles, and blocks of float32 sums.
*/

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod available;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod avx512;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod pack;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod sums;
mod terms;
mod tile;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unit;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use available::{avx512_bf16_is_fast, has_amx, has_avx512_bf16};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use avx512::RUN;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use pack::{pack_band, transpose_pairs_of};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use sums::{Begin, EDGE, Sums};
pub(crate) use terms::{Rows, Terms, pack_columns, split_band};
pub(crate) use tile::{TILE_DEPTH, TILE_ROWS, Tile};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use unit::{Multiplier, TileKind};
