/*!
Causal attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023), in float32.

In: queries of a window, keys and values of the same and of earlier positions. Out: for each query the weighted
sum of values. Queries are processed in blocks of [`QUERIES`]: memory holds the scores of one block for each
thread, not those of the whole window.
*/

use physarium_kernels::{Compute, Left, Output, Right, multiply, vector};

/// Queries of a block; their scores are computed together.
pub(crate) const QUERIES: usize = 128;

/// The shape of a layer's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Number of positions that a query attends to, including its own; all earlier ones if `None`.
    pub(crate) window: Option<usize>,
}

/// Computes the weighted sum of values for each query.
///
/// `q`, `mixed`: `[tokens, heads · head_dim]`; `k`, `v`: `[past + tokens, kv_heads · head_dim]`. The
/// queries are at the last positions; the first key is at position 0.
pub(crate) fn attend(compute: &Compute, shape: Shape, [q, k, v]: [&[f32]; 3], mixed: &mut [f32]) {
    let width = shape.heads * shape.head_dim;
    let tokens = q.len() / width;
    let kv_width = shape.kv_heads * shape.head_dim;
    let positions = k.len() / kv_width;
    assert!(q.len() == mixed.len() && k.len() == v.len() && tokens <= positions);
    let past = positions - tokens;
    compute.each_chunk(mixed, QUERIES * width, |block, mixed| {
        let begin = block * QUERIES * width;
        let queries = mixed.len() / width;
        let block = Queries { shape, first: past + block * QUERIES, count: queries };
        let mut scores = vec![0.0; queries * block.keys().len()];
        for head in 0..shape.heads {
            let q = &q[begin + head * shape.head_dim..];
            let kv = block.keys().start * kv_width + block.kv_head(head) * shape.head_dim;
            let mixed = &mut mixed[head * shape.head_dim..];
            block.head([q, &k[kv..], &v[kv..]], &mut scores, mixed);
        }
    });
}

/// A block of consecutive queries.
#[derive(Clone, Copy)]
pub(crate) struct Queries {
    pub(crate) shape: Shape,
    /// Position of the first query.
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Queries {
    /// Positions of the keys that any of them attends to.
    pub(crate) fn keys(self) -> std::ops::Range<usize> {
        self.seen(self.first).start..self.first + self.count
    }

    /// Positions of the keys that the query at a position attends to.
    fn seen(self, position: usize) -> std::ops::Range<usize> {
        let begin = self.shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
        begin..position + 1
    }

    /// The key head that a query head uses.
    fn kv_head(self, head: usize) -> usize {
        head / (self.shape.heads / self.shape.kv_heads)
    }

    /// Computes one head: scores `[count, keys]`, their softmax, the weighted sums of values.
    fn head(self, [q, k, v]: [&[f32]; 3], scores: &mut [f32], mixed: &mut [f32]) {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let keys = self.keys();
        let parts = self.numerators([q, k], scores);
        let weights = Left { data: scores, stride: keys.len() };
        let values = Right::AsIs { data: v, stride: kv_width };
        let out = Output { data: mixed, stride: width };
        multiply([self.count, keys.len(), head_dim], weights, values, out);
        for (row, part) in mixed.chunks_mut(width).zip(parts) {
            vector::scale(&mut row[..head_dim], part);
        }
    }

    /// Computes the numerators of the softmax of one head, `[count, keys]`. Returns for each query the factor
    /// that normalises them.
    pub(crate) fn numerators(self, [q, k]: [&[f32]; 2], scores: &mut [f32]) -> [f32; QUERIES] {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let keys = self.keys();
        let queries = Left { data: q, stride: width };
        let transposed = Right::Transposed { data: k, stride: kv_width };
        let out = Output { data: scores, stride: keys.len() };
        multiply([self.count, head_dim, keys.len()], queries, transposed, out);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut parts = [0.0; QUERIES];
        for (query, row) in scores.chunks_exact_mut(keys.len()).enumerate() {
            let seen = self.seen(self.first + query);
            let (before, rest) = row.split_at_mut(seen.start - keys.start);
            let (seen, after) = rest.split_at_mut(seen.len());
            parts[query] = (1.0 / vector::softmax_numerators(seen, scale)) as f32;
            before.fill(0.0);
            after.fill(0.0);
        }
        parts
    }
}
