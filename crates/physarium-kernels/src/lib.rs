/*!
What a decoder computes, on the processor at hand: products of matrices, and maths element by element.

In: slices of `f32`, weights as they are stored ([`Dense`]). Out: slices of `f32`. [`Compute`] holds
the threads and knows which instructions there are; a [`Linear`] is a projection; [`multiply`] is a
product of two small matrices; `vector` has what is done to rows.

Everything is computed in float32, and no result depends on the number of threads; what the ways to a
product differ in is said at [`Instructions`]. This is the one crate with `unsafe` in it.
*/
#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    allow(dead_code, unused_imports, reason = "what serves AMX alone has no use elsewhere")
)]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod buffer;
mod compute;
mod gram;
mod linear;
mod matvec;
mod pages;
mod small;
mod sparse;
mod symmetric;
mod terms;
pub mod vector;
mod weights;
mod widen;

pub use buffer::Buffer;
pub use compute::{Compute, Instructions, ThreadsUnavailable};
pub use gram::{Gram, add_cross};
pub use linear::{Linear, forward_all};
pub use matvec::VectorKind;
pub use pages::large_zeroed;
pub use small::{Left, Output, Right, multiply};
pub use sparse::{Sparse, SparseFault};
pub use symmetric::{Precision, Symmetric};
pub use weights::{Dense, Weights};

#[cfg(target_endian = "big")]
compile_error!("weights are little-endian on disk and used as they are");
