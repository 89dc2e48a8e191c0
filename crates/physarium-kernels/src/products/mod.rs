/*!
Matrix products: of small strided matrices, of activations with stored weights, of activations with themselves.

In: row-major slices of float32, and weights as they are stored. Out: row-major slices of float32.
*/

mod block;
mod explained;
mod factors;
mod forward;
mod gram;
mod linear;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod on_tiles;
mod one_row;
mod prepare;
mod strided;
mod symmetric;

pub(crate) use explained::Columns;
pub use factors::{Left, Output, Right};
pub use forward::forward_all;
pub use gram::{Gram, add_cross};
pub use linear::Linear;

pub use symmetric::Symmetric;
