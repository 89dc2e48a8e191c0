/*!
Sums over tokens on AMX: the transposed activations are multiplied by activations as if those were weights.

In: rows of activations `[tokens, width]`. Out: their products, added to `[width, width]`, or to `[width, other width]`
for two kinds of activations.
*/

use half::bf16;

use super::forward::forward_update;
use super::linear::Linear;
use crate::blocked::Update;
use crate::compute::Compute;
use crate::tiles::split;
use crate::weights::Dense;

/// Number of tokens whose products are summed at once.
const TOKENS: usize = 2048;

/// Adds a matrix whose sum with its transpose is xᵀx.
///
/// With x = h + l, xᵀx = (h/2 + l)ᵀ h + hᵀ (h/2 + l) + lᵀl; lᵀl is below 16 bits and is left out.
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
        forward_update(compute, &left, &mut [(&right, sums)], Update::Add);
    }
}

/// Adds aᵀb; `a` and `b`: whole rows of `widths`.
pub(super) fn add_cross(
    compute: &Compute,
    [a, b]: [&[f32]; 2],
    widths: [usize; 2],
    out: &mut [f32],
) {
    for (a, b) in a.chunks(TOKENS * widths[0]).zip(b.chunks(TOKENS * widths[1])) {
        let left = transpose(compute, a, widths[0]);
        let (high, low) = terms(compute, &transpose(compute, b, widths[1]));
        let tokens = a.len() / widths[0];
        for term in [high, low] {
            let right = Linear::new(widths[1], tokens, Dense::Bf16(term), None);
            forward_update(compute, &left, &mut [(&right, out)], Update::Add);
        }
    }
}

/// `[tokens, width]` to `[width, tokens]`, on all threads.
fn transpose(compute: &Compute, x: &[f32], width: usize) -> Vec<f32> {
    /// Edge of the squares that fit in a cache.
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

/// The high and the low BF16 terms of each value.
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
