/*!
Products of a matrix with one vector, which is what the generation of a token consists of.

Weights are read once and used once, so memory decides how long it takes. Each row's sum has 32 lanes:
lane `l` adds up, in float32 with fused multiplication, the products of the inputs `i ≡ l mod 32` in
their order. Then lanes are added in one fixed tree. Whatever the instructions, and whether weights are
dense or [`Sparse`], a sum is therefore the same bits: an absent weight adds +0.0 · x like a weight of
nought does.
*/

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kind;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod product;
mod shuffles;

pub use kind::VectorKind;
pub(crate) use product::{Arranged, Product, ROWS, expand_words};
