/*!
The numerical kernels of a decoder: matrix products and elementwise maths.

In: slices of `f32`, and weights in the dtype that they are stored in ([`Dense`], [`Sparse`]). Out: slices
of `f32`. [`Compute`] holds the threads and the instruction set; a [`Linear`] is a projection; [`multiply`] is
the product of two small matrices; [`Gram`], [`add_cross`] and [`Symmetric`] serve the activation-aware
pruning methods; [`vector`] has the operations on rows.

All sums are float32 or float64, and no result depends on the number of threads. [`Instructions`] says in what
the results of different instruction sets differ. This is the only crate with `unsafe` code.
*/
#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    allow(dead_code, unused_imports, reason = "code that serves AMX only is unused elsewhere")
)]

mod compute;
mod instructions;
mod matvec;
mod memory;
mod products;
mod tiles;
pub mod vector;
mod weights;

pub use compute::{Compute, ThreadsUnavailable};
pub use instructions::Instructions;
pub use matvec::VectorKind;
pub use memory::{Buffer, large_zeroed, release_memory};
pub use products::{
    Gram, Left, Linear, Output, Precision, Right, Symmetric, add_cross, forward_all, multiply,
};
pub use weights::{Dense, Sparse, SparseFault, Weights};

#[cfg(target_endian = "big")]
compile_error!("weights are little-endian on disk and are used without conversion");
