/*!
Matrix-vector products: most of the work when a model generates a token.

In: rows of weights, dense or sparse, in their dtype; one vector of activations. Out: one float32 sum per row.

Each weight is read once and used once, so memory bandwidth limits the speed. The sum of a row has 32 lanes:
lane `l` adds, in float32 with fused multiply-add, the products of the inputs `i ≡ l mod 32` in ascending
order. Then one fixed tree adds the lanes. Therefore all instruction sets give the same bits, for dense and
for sparse weights: an absent weight adds +0.0 · x, as a zero weight does.
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
