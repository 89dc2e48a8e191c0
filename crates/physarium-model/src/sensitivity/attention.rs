//! Gradients of attention: from those of its mixes to those of queries, keys and values.

use physarium_kernels::{Compute, Left, Output, Right, multiply, vector};

use crate::attention::{QUERIES, Queries, Shape};

/// Gradients of one key head and of the query heads that it serves.
#[derive(Default)]
struct HeadGradients {
    /// `[tokens, group · head_dim]`.
    q: Vec<f32>,
    /// `[tokens, head_dim]`.
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Writes the gradients of `q`, `k` and `v` (turned), in their shapes.
///
/// `q`, `dmixed`: `[tokens, heads · head_dim]`; `k`, `v`: `[tokens, kv_heads · head_dim]`.
pub(super) fn gradients(
    compute: &Compute,
    shape: Shape,
    [q, k, v]: [&[f32]; 3],
    dmixed: &[f32],
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let Shape { heads, kv_heads, head_dim, .. } = shape;
    let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    let group = heads / kv_heads * head_dim;
    let mut of_heads: Vec<HeadGradients> = (0..kv_heads).map(|_| Default::default()).collect();
    compute.each_chunk(&mut of_heads, 1, |kv_head, of_head| {
        of_head[0] = HeadGradients::of(shape, kv_head, [q, k, v], dmixed);
    });
    for (kv_head, from) in of_heads.iter().enumerate() {
        place(&from.q, group, dq, width, kv_head * group);
        place(&from.k, head_dim, dk, kv_width, kv_head * head_dim);
        place(&from.v, head_dim, dv, kv_width, kv_head * head_dim);
    }
}

/// Copies rows of `cols` elements into wider rows, from column `at` on.
fn place(from: &[f32], cols: usize, to: &mut [f32], width: usize, at: usize) {
    for (from, to) in from.chunks_exact(cols).zip(to.chunks_exact_mut(width)) {
        to[at..at + cols].copy_from_slice(from);
    }
}

impl HeadGradients {
    fn of(shape: Shape, kv_head: usize, [q, k, v]: [&[f32]; 3], dmixed: &[f32]) -> HeadGradients {
        let Shape { heads, kv_heads, head_dim, .. } = shape;
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let (tokens, group) = (q.len() / width, heads / kv_heads);
        let mut sums = HeadGradients {
            q: vec![0.0; tokens * group * head_dim],
            k: vec![0.0; tokens * head_dim],
            v: vec![0.0; tokens * head_dim],
        };
        for first in (0..tokens).step_by(QUERIES) {
            let run = Queries { shape, first, count: QUERIES.min(tokens - first) };
            let kv = run.keys().start * kv_width + kv_head * head_dim;
            for member in 0..group {
                let at = first * width + (kv_head * group + member) * head_dim;
                let dq = &mut sums.q[(first * group + member) * head_dim..];
                let begin = run.keys().start * head_dim;
                let (dk, dv) = (&mut sums.k[begin..], &mut sums.v[begin..]);
                head(run, [&q[at..], &k[kv..], &v[kv..]], &dmixed[at..], [dq, dk, dv]);
            }
        }
        sums
    }
}

/// One head of a run of queries. `dq` is set in rows of the group's width, `dk` and `dv` are added to.
fn head(run: Queries, [q, k, v]: [&[f32]; 3], dmixed: &[f32], [dq, dk, dv]: [&mut [f32]; 3]) {
    let Shape { heads, kv_heads, head_dim, .. } = run.shape;
    let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    let (count, keys) = (run.count, run.keys().len());
    let mut weights = vec![0.0; count * keys];
    let parts = run.numerators([q, k], &mut weights);
    for (row, part) in weights.chunks_exact_mut(keys).zip(parts) {
        vector::scale(row, part);
    }
    // Of the weights, then of the scores: w (dw − Σ w dw) / √head_dim.
    let mut scores = vec![0.0; count * keys];
    let outputs = Left { data: dmixed, stride: width };
    let values = Right::Transposed { data: v, stride: kv_width };
    let out = Output { data: &mut scores, stride: keys };
    multiply([count, head_dim, keys], outputs, values, out);
    let scale = 1.0 / (head_dim as f32).sqrt();
    for (scores, weights) in scores.chunks_exact_mut(keys).zip(weights.chunks_exact(keys)) {
        let mean: f32 = scores.iter().zip(weights).map(|(dw, w)| dw * w).sum();
        scores.iter_mut().zip(weights).for_each(|(dw, w)| *dw = w * (*dw - mean) * scale);
    }
    let left = Left { data: &scores, stride: keys };
    let right = Right::AsIs { data: k, stride: kv_width };
    let out = Output { data: dq, stride: heads / kv_heads * head_dim };
    multiply([count, keys, head_dim], left, right, out);
    add_transposed(&scores, keys, q, width, head_dim, dk);
    add_transposed(&weights, keys, dmixed, width, head_dim, dv);
}

/// Adds leftᵀ · right to `sums` `[keys, head_dim]`; `left` `[count, keys]`, `right` `[count, head_dim]`.
fn add_transposed(
    left: &[f32],
    keys: usize,
    right: &[f32],
    stride: usize,
    head_dim: usize,
    sums: &mut [f32],
) {
    let count = left.len() / keys;
    let mut transposed = vec![0.0; left.len()];
    for (row, left) in left.chunks_exact(keys).enumerate() {
        left.iter().enumerate().for_each(|(key, value)| transposed[key * count + row] = *value);
    }
    let mut product = vec![0.0; keys * head_dim];
    let left = Left { data: &transposed, stride: count };
    let out = Output { data: &mut product, stride: head_dim };
    multiply([keys, count, head_dim], left, Right::AsIs { data: right, stride }, out);
    vector::add(&mut sums[..product.len()], &product);
}
