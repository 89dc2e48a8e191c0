/*!
Sums of products of activations with activations, over tokens.

In: rows of activations `[tokens, width]`, a window at a time. Out: Gram matrices `[width, width]`, summed in
float32. On AMX each activation is the sum of two BF16 terms, 16 bits; everywhere else it is a float32.
*/

use crate::compute::Compute;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::compute::Instructions;
use crate::small::{Sum, product};

/// Rows of a result that a task computes.
const ROWS: usize = 192;

/// The sum of xᵀx over tokens; only half of the symmetric matrix is computed.
#[derive(Debug, Clone)]
pub struct Gram {
    width: usize,
    /// The upper half; or a matrix that the sum is the symmetric part of, doubled.
    sums: Vec<f32>,
    half: Half,
}

/// What `sums` is half of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    /// Blocks from the diagonal on to the right.
    Upper,
    /// The matrix is the sum of this and its transpose.
    Addend,
}

impl Gram {
    /// Nought, for activations of `width` features.
    pub fn new(compute: &Compute, width: usize) -> Gram {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        let half = match compute.instructions() {
            Instructions::Amx => Half::Addend,
            Instructions::Portable => Half::Upper,
        };
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        let half = {
            let _ = compute;
            Half::Upper
        };
        Gram { width, sums: vec![0.0; width * width], half }
    }

    /// Adds the rows of `x` `[tokens, width]`, on all threads; the order of sums depends on the shape only.
    ///
    /// # Panics
    /// If `x` is not whole rows.
    pub fn add(&mut self, compute: &Compute, x: &[f32]) {
        let width = self.width;
        assert!(x.len().is_multiple_of(width), "activations are not whole rows");
        match self.half {
            Half::Upper => compute.each_chunk(&mut self.sums, ROWS * width, |block, sums| {
                let first = block * ROWS;
                let rows = sums.len() / width;
                // SAFETY: columns `first ..` of `x`, of which there are `rows` for the left factor and
                // all the rest for the right one; `sums` has as many rows, read from column `first` on.
                unsafe {
                    product(
                        [rows, x.len() / width, width - first],
                        (x.as_ptr().add(first), 1, width),
                        (x.as_ptr().add(first), width, 1),
                        (sums.as_mut_ptr().add(first), width),
                        Sum::Add,
                    );
                }
            }),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Half::Addend => tiles::add_half(compute, x, width, &mut self.sums),
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            Half::Addend => unreachable!("only made for AMX"),
        }
    }

    /// Both halves of the sum, times `factor`: `[width, width]`, symmetric bit by bit.
    pub fn finish(self, factor: f32) -> Vec<f32> {
        let (width, mut sums) = (self.width, self.sums);
        for i in 0..width {
            for j in i..width {
                let (upper, lower) = (sums[i * width + j], sums[j * width + i]);
                let sum = match self.half {
                    Half::Upper => upper,
                    Half::Addend => upper + lower,
                };
                sums[i * width + j] = sum * factor;
                sums[j * width + i] = sum * factor;
            }
        }
        sums
    }
}

/// Adds aᵀ b to `out` `[width, width]`; `a` and `b`: `[tokens, width]`. On all threads; the order of sums
/// depends on the shape only.
///
/// # Panics
/// If the slices are not whole rows, or not as many.
pub fn add_cross(compute: &Compute, a: &[f32], b: &[f32], width: usize, out: &mut [f32]) {
    assert!(a.len() == b.len() && a.len().is_multiple_of(width), "as many whole rows");
    assert_eq!(out.len(), width * width, "result");
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if compute.instructions() == Instructions::Amx {
        return tiles::add_cross(compute, a, b, width, out);
    }
    compute.each_chunk(out, ROWS * width, |block, out| {
        // SAFETY: columns `block * ROWS ..` of `a`, as many as `out` has rows, all of `b`, and `out` are as
        // long as was just asserted.
        unsafe {
            product(
                [out.len() / width, a.len() / width, width],
                (a.as_ptr().add(block * ROWS), 1, width),
                (b.as_ptr(), width, 1),
                (out.as_mut_ptr(), width),
                Sum::Add,
            );
        }
    });
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles {
    //! The same on AMX: transposed activations are multiplied by others as if those were weights.

    use half::bf16;

    use crate::compute::Compute;
    use crate::linear::{Linear, forward_sum};
    use crate::small::Sum;
    use crate::terms::split;
    use crate::weights::Dense;

    /// Tokens whose products are summed at once.
    const TOKENS: usize = 2048;

    /// Adds a matrix that xᵀx is the sum of with its transpose.
    ///
    /// With x = h + l, xᵀx = (h/2 + l)ᵀ h + hᵀ (h/2 + l), but for lᵀl, which is beyond 16 bits.
    pub(super) fn add_half(compute: &Compute, x: &[f32], width: usize, sums: &mut [f32]) {
        for x in x.chunks(TOKENS * width) {
            let tokens = x.len() / width;
            let mut left = transpose(compute, x, width);
            let (high, _) = terms(compute, &left);
            compute.each_chunk(&mut left, tokens, |row, x| {
                let high = &high[row * tokens..(row + 1) * tokens];
                x.iter_mut()
                    .zip(high)
                    .for_each(|(x, high)| *x -= 0.5 * bf16::from_bits(*high).to_f32());
            });
            let right = Linear::new(width, tokens, Dense::Bf16(high), None);
            forward_sum(compute, &left, &mut [(&right, sums)], Sum::Add);
        }
    }

    /// Adds aᵀb.
    pub(super) fn add_cross(
        compute: &Compute,
        a: &[f32],
        b: &[f32],
        width: usize,
        out: &mut [f32],
    ) {
        for (a, b) in a.chunks(TOKENS * width).zip(b.chunks(TOKENS * width)) {
            let tokens = a.len() / width;
            let left = transpose(compute, a, width);
            let (high, low) = terms(compute, &transpose(compute, b, width));
            for term in [high, low] {
                let right = Linear::new(width, tokens, Dense::Bf16(term), None);
                forward_sum(compute, &left, &mut [(&right, out)], Sum::Add);
            }
        }
    }

    /// `[tokens, width]` to `[width, tokens]`.
    fn transpose(compute: &Compute, x: &[f32], width: usize) -> Vec<f32> {
        /// Edge of the squares that stay in a cache.
        const EDGE: usize = 32;
        let tokens = x.len() / width;
        let mut transposed = vec![0.0; x.len()];
        compute.each_chunk(&mut transposed, EDGE * tokens, |block, to| {
            for begin in (0..tokens).step_by(EDGE) {
                for (row, to) in to.chunks_exact_mut(tokens).enumerate() {
                    let until = (begin + EDGE).min(tokens);
                    for (token, to) in (begin..until).zip(&mut to[begin..until]) {
                        *to = x[token * width + block * EDGE + row];
                    }
                }
            }
        });
        transposed
    }

    /// High and low terms of each value.
    fn terms(compute: &Compute, values: &[f32]) -> (Vec<u16>, Vec<u16>) {
        const RUN: usize = 1 << 16;
        let mut pairs = (vec![0; values.len()], vec![0; values.len()]);
        let (high, low) = (&mut pairs.0, &mut pairs.1);
        let mut runs: Vec<_> =
            values.chunks(RUN).zip(high.chunks_mut(RUN)).zip(low.chunks_mut(RUN)).collect();
        compute.each_chunk(&mut runs, 1, |_, run| {
            for ((values, high), low) in run {
                split(values, high, low);
            }
        });
        pairs
    }
}
