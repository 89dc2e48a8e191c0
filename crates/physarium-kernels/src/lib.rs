/*!
The numerical kernels of a decoder: matrix products and elementwise maths.

In: slices of `f32`, and weights in the dtype that they are stored in ([`Dense`], [`Sparse`]). Out: slices
of `f32`. [`Compute`] holds the threads, the arithmetic and the instruction set; a [`Linear`] is a projection;
[`Compute::multiply`] is the product of two small matrices; [`Gram`], [`add_cross`], [`Symmetric`], [`invert`] and
[`inverse_factor`] serve the activation-aware pruning methods; [`vector`] has the operations on rows.

All sums are float32 or float64. No result depends on the number of threads, and none on the instruction set: results of
one [`Arithmetic`] have the same bits everywhere. This is the only crate with `unsafe` code.
*/
#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    allow(dead_code, unused_imports, reason = "code that serves tiles only is unused elsewhere")
)]

mod activation;
mod arithmetic;
mod blocked;
mod compute;
mod factor;
mod instructions;
mod inverse;
mod matvec;
mod memory;
mod mirror;
mod products;
mod tiles;
pub mod vector;
mod weights;

pub use activation::Activation;
pub use arithmetic::{Arithmetic, ArithmeticUnavailable, Precision};
pub use compute::{Compute, ComputeError};
pub use factor::inverse_factor;
pub use instructions::{INSTRUCTIONS_VARIABLE, NoSuchInstructions, check_instructions, dispatch};
pub use inverse::invert;
pub use matvec::VectorKind;
pub use memory::{Buffer, large_zeroed, release_memory};
pub use products::{Gram, Left, Linear, Output, Right, Symmetric, add_cross, forward_all};
pub use pulp::NullaryFnOnce as Operation;
pub use weights::{Dense, Sparse, SparseFault, Weights};

#[cfg(target_endian = "big")]
compile_error!("weights are little-endian on disk and are used without conversion");
