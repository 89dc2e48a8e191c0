/*!
Causal attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023), in float32.

In: queries of a window, keys and values of the same and of earlier positions. Out: for each query the weighted
sum of values. Queries are processed in blocks of [`QUERIES`]: memory holds the scores of one block for each
thread, not those of the whole window.
*/

use physarium_kernels::{Compute, Left, Output, Right, vector};

/// Queries of a block; their scores are computed together.
pub(crate) const QUERIES: usize = 128;

/// The shape of a layer's attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Number of positions that a query attends to, including its own; all earlier ones if `None`.
    pub(crate) window: Option<usize>,
    /// Factor of the scores.
    pub(crate) scale: f32,
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
        if queries == 1 {
            return block.one_query(compute, [&q[begin..], k, v], mixed);
        }
        let mut scores = vec![0.0; queries * block.keys().len()];
        for head in 0..shape.heads {
            let q = &q[begin + head * shape.head_dim..];
            let kv = block.keys().start * kv_width + block.kv_head(head) * shape.head_dim;
            let mixed = &mut mixed[head * shape.head_dim..];
            block.head(compute, [q, &k[kv..], &v[kv..]], &mut scores, mixed);
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
    fn head(
        self,
        compute: &Compute,
        [q, k, v]: [&[f32]; 3],
        scores: &mut [f32],
        mixed: &mut [f32],
    ) {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let keys = self.keys();
        let parts = self.numerators(compute, [q, k], scores);
        let weights = Left { data: scores, stride: keys.len() };
        let values = Right::AsIs { data: v, stride: kv_width };
        let out = Output { data: mixed, stride: width };
        compute.multiply([self.count, keys.len(), head_dim], weights, values, out);
        for (row, part) in mixed.chunks_mut(width).zip(parts) {
            vector::scale(&mut row[..head_dim], part);
        }
    }

    /// Computes all heads of a single query, those that share a key head together: its keys are packed once for them.
    /// The results are those of [`Queries::head`].
    fn one_query(self, compute: &Compute, [q, k, v]: [&[f32]; 3], mixed: &mut [f32]) {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let (group, kv_width) = (heads / kv_heads, kv_heads * head_dim);
        let (keys, scale) = (self.keys(), self.shape.scale);
        let mut scores = vec![0.0; group * keys.len()];
        for kv_head in 0..kv_heads {
            let (own, kv) =
                (kv_head * group * head_dim, keys.start * kv_width + kv_head * head_dim);
            let queries = Left { data: &q[own..], stride: head_dim };
            let transposed = Right::Transposed { data: &k[kv..], stride: kv_width };
            let out = Output { data: &mut scores, stride: keys.len() };
            compute.multiply([group, head_dim, keys.len()], queries, transposed, out);
            let mut parts = vec![0.0; group];
            for (row, part) in scores.chunks_exact_mut(keys.len()).zip(&mut parts) {
                *part = (1.0 / vector::softmax_numerators(row, scale)) as f32;
            }
            let weights = Left { data: &scores, stride: keys.len() };
            let values = Right::AsIs { data: &v[kv..], stride: kv_width };
            let mixed = &mut mixed[own..];
            let out = Output { data: mixed, stride: head_dim };
            compute.multiply([group, keys.len(), head_dim], weights, values, out);
            for (row, part) in mixed.chunks_exact_mut(head_dim).zip(parts) {
                vector::scale(row, part);
            }
        }
    }

    /// Computes the numerators of the softmax of one head, `[count, keys]`. Returns for each query the factor
    /// that normalises them.
    pub(crate) fn numerators(
        self,
        compute: &Compute,
        [q, k]: [&[f32]; 2],
        scores: &mut [f32],
    ) -> [f32; QUERIES] {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let keys = self.keys();
        let queries = Left { data: q, stride: width };
        let transposed = Right::Transposed { data: k, stride: kv_width };
        let out = Output { data: scores, stride: keys.len() };
        compute.multiply([self.count, head_dim, keys.len()], queries, transposed, out);
        let mut parts = [0.0; QUERIES];
        for (query, row) in scores.chunks_exact_mut(keys.len()).enumerate() {
            let seen = self.seen(self.first + query);
            let (before, rest) = row.split_at_mut(seen.start - keys.start);
            let (seen, after) = rest.split_at_mut(seen.len());
            parts[query] = (1.0 / vector::softmax_numerators(seen, self.shape.scale)) as f32;
            before.fill(0.0);
            after.fill(0.0);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_query_is_computed_as_one_of_many() {
        let shape = Shape { heads: 6, kv_heads: 2, head_dim: 8, window: Some(11), scale: 0.4 };
        let number = |index: usize| ((index * 7919) % 1009) as f32 / 300.0 - 1.5;
        let numbers = |len: usize, seed: usize| (0..len).map(|i| number(i + seed)).collect();
        let (tokens, width, kv_width) = (20, 48, 16);
        let q: Vec<f32> = numbers(tokens * width, 1);
        let (k, v): (Vec<f32>, Vec<f32>) =
            (numbers(tokens * kv_width, 2), numbers(tokens * kv_width, 3));
        let compute = Compute::new(1).expect("a thread");
        let mut all = vec![0.0; q.len()];
        attend(&compute, shape, [&q, &k, &v], &mut all);
        for token in 0..tokens {
            let mut one = vec![0.0; width];
            let past = (token + 1) * kv_width;
            let query = &q[token * width..][..width];
            attend(&compute, shape, [query, &k[..past], &v[..past]], &mut one);
            assert_eq!(one, all[token * width..][..width], "token {token}");
        }
    }
}
