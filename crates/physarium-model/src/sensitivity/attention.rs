//! The backward pass of attention: from the gradients of its outputs to those of queries, keys and values.

use physarium_kernels::{Compute, Left, Output, Right, vector};

use crate::layers::attention::{QUERIES, Queries, Shape};

/// The inputs of attention.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub shape: Shape,
    /// Rotated queries `[tokens, heads · head_dim]`.
    pub q: &'a [f32],
    /// Rotated keys `[tokens, kv_heads · head_dim]`.
    pub k: &'a [f32],
    /// Values, in the shape of the keys.
    pub v: &'a [f32],
}

/// Gradients of one key head and of the query heads that share it.
#[derive(Default)]
struct HeadGradients {
    /// `[tokens, group · head_dim]`.
    q: Vec<f32>,
    /// `[tokens, head_dim]`.
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Rows of `cols` elements, `stride` elements apart.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    cols: usize,
}

impl Forward<'_> {
    /// Writes the gradients of `q`, `k` and `v`, in their shapes; `dmixed` `[tokens, heads · head_dim]`.
    pub(super) fn gradients(
        self,
        compute: &Compute,
        dmixed: &[f32],
        [dq, dk, dv]: [&mut [f32]; 3],
    ) {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let group = heads / kv_heads * head_dim;
        let mut of_heads: Vec<HeadGradients> = (0..kv_heads).map(|_| Default::default()).collect();
        compute.each_chunk(&mut of_heads, 1, |kv_head, of_head| {
            of_head[0] = self.of_head(compute, kv_head, dmixed);
        });
        for (kv_head, from) in of_heads.iter().enumerate() {
            copy_columns(&from.q, group, &mut dq[kv_head * group..], width);
            copy_columns(&from.k, head_dim, &mut dk[kv_head * head_dim..], kv_width);
            copy_columns(&from.v, head_dim, &mut dv[kv_head * head_dim..], kv_width);
        }
    }

    fn of_head(self, compute: &Compute, kv_head: usize, dmixed: &[f32]) -> HeadGradients {
        let Forward { shape, q, k, v } = self;
        let Shape { heads, kv_heads, head_dim, .. } = shape;
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let (tokens, group) = (q.len() / width, heads / kv_heads);
        let mut sums = HeadGradients {
            q: vec![0.0; tokens * group * head_dim],
            k: vec![0.0; tokens * head_dim],
            v: vec![0.0; tokens * head_dim],
        };
        for first in (0..tokens).step_by(QUERIES) {
            let queries = Queries { shape, first, count: QUERIES.min(tokens - first) };
            let kv = queries.keys().start * kv_width + kv_head * head_dim;
            for member in 0..group {
                let at = first * width + (kv_head * group + member) * head_dim;
                let dq = &mut sums.q[(first * group + member) * head_dim..];
                let begin = queries.keys().start * head_dim;
                let (dk, dv) = (&mut sums.k[begin..], &mut sums.v[begin..]);
                let inputs = [&q[at..], &k[kv..], &v[kv..]];
                Head { compute, block: queries }.gradients(inputs, &dmixed[at..], [dq, dk, dv]);
            }
        }
        sums
    }
}

/// Copies rows of `cols` elements to the beginnings of rows that are `stride` elements apart.
fn copy_columns(from: &[f32], cols: usize, to: &mut [f32], stride: usize) {
    for (from, to) in from.chunks_exact(cols).zip(to.chunks_mut(stride)) {
        to[..cols].copy_from_slice(from);
    }
}

/// One head of a block of queries, and what computes it.
#[derive(Clone, Copy)]
struct Head<'a> {
    compute: &'a Compute,
    block: Queries,
}

impl Head<'_> {
    /// Writes `dq`, in rows of the group's width; adds to `dk` and `dv`.
    fn gradients(self, [q, k, v]: [&[f32]; 3], dmixed: &[f32], [dq, dk, dv]: [&mut [f32]; 3]) {
        let Head { compute, block } = self;
        let Shape { heads, kv_heads, head_dim, .. } = block.shape;
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let (count, keys) = (block.count, block.keys().len());
        let mut weights = vec![0.0; count * keys];
        let parts = block.numerators(compute, [q, k], &mut weights);
        for (row, part) in weights.chunks_exact_mut(keys).zip(parts) {
            vector::scale(row, part);
        }
        // Gradients of the weights, then of the scores: w (dw − Σ w dw) · scale.
        let mut scores = vec![0.0; count * keys];
        let outputs = Left { data: dmixed, stride: width };
        let values = Right::Transposed { data: v, stride: kv_width };
        let out = Output { data: &mut scores, stride: keys };
        compute.multiply([count, head_dim, keys], outputs, values, out);
        let scale = block.shape.scale;
        for (scores, weights) in scores.chunks_exact_mut(keys).zip(weights.chunks_exact(keys)) {
            let mean: f32 = scores.iter().zip(weights).map(|(dw, w)| dw * w).sum();
            scores.iter_mut().zip(weights).for_each(|(dw, w)| *dw = w * (*dw - mean) * scale);
        }
        let left = Left { data: &scores, stride: keys };
        let right = Right::AsIs { data: k, stride: kv_width };
        let out = Output { data: dq, stride: heads / kv_heads * head_dim };
        compute.multiply([count, keys, head_dim], left, right, out);
        let rows = |data| Rows { data, stride: width, cols: head_dim };
        let of_keys = |data| Rows { data, stride: keys, cols: keys };
        add_transposed(compute, of_keys(&scores), rows(q), dk);
        add_transposed(compute, of_keys(&weights), rows(dmixed), dv);
    }
}

/// Adds leftᵀ · right to `sums` `[left.cols, right.cols]`; `left` is whole, and both have as many rows.
fn add_transposed(compute: &Compute, left: Rows<'_>, right: Rows<'_>, sums: &mut [f32]) {
    let keys = left.cols;
    let count = left.data.len() / keys;
    let mut transposed = vec![0.0; left.data.len()];
    for (row, left) in left.data.chunks_exact(keys).enumerate() {
        left.iter().enumerate().for_each(|(key, value)| transposed[key * count + row] = *value);
    }
    let Rows { data, stride, cols } = right;
    let mut product = vec![0.0; keys * cols];
    let (left, right) = (Left { data: &transposed, stride: count }, Right::AsIs { data, stride });
    let out = Output { data: &mut product, stride: cols };
    compute.multiply([keys, count, cols], left, right, out);
    vector::add(&mut sums[..product.len()], &product);
}
