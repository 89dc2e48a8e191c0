/*!
Products of matrices in float32 and float64, with one definition of each sum.

In: two factors in memory. Out: their product, or its sum with what the result holds.

An element of a product is Σ aₖ bₖ over the depth. The depth is divided into runs of [`DEPTH`] terms, the last of
which may be shorter; the sum of a run is a chain of fused multiply-adds in ascending order that begins at +0:

```text
s ← 0;  s ← fma(aₖ, bₖ, s) for each k of the run
```

The sums of the runs are then added to the result one after the other. If the product replaces the result, that of the
first run is the result so far. Each element is a chain of its own, so that neither the instruction set nor the shape of
register tiles, the number of threads or what else is computed changes its bits. (A NaN is a NaN everywhere; its payload
is not defined.)

[`sparse_product`] leaves out terms with a zero of the left factor.

Source of the blocking and packing: Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication.
*/

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod each_kind;
#[cfg(target_arch = "aarch64")]
mod neon;
mod operands;
mod pack;
mod portable;
mod product;
mod sparse;
mod tile;
mod vector;

pub(crate) use operands::{Factor, PerTask, Target, Update};
pub(crate) use product::product;
pub(crate) use sparse::{Layout, Placed, SPARSE_COLUMNS, is_sparse, sparse_product};

/// Number of terms of a sum that are one chain.
pub(crate) const DEPTH: usize = 256;
