//! What a method needs that ranks weights by the size of their inputs: sums of squares, and some tokens for the error.

use physarium_model::Compute;

/// Tokens of the sample: enough for an error to two or three digits, few enough to take little of the time and the memory
/// of sums of products.
pub(crate) const SAMPLE_TOKENS: usize = 2048;
/// Inputs whose squares one task sums.
const INPUTS: usize = 64;

/// Squares of inputs X `[tokens, width]`, summed over tokens, and the first rows of X.
#[derive(Debug, Clone)]
pub(crate) struct Squares {
    /// `[width]`.
    pub sums: Vec<f32>,
    /// At most [`SAMPLE_TOKENS`] rows `[tokens, width]`. Those of the first group count; sums of others may have none.
    pub sample: Vec<f32>,
}

impl Squares {
    pub fn new(width: usize) -> Squares {
        Squares { sums: vec![0.0; width], sample: Vec::new() }
    }

    /// Adds the rows of `x`, on all threads. The order of sums depends on the shape only.
    pub fn add(&mut self, compute: &Compute, x: &[f32]) {
        let width = self.sums.len();
        let room = SAMPLE_TOKENS * width - self.sample.len();
        self.sample.extend_from_slice(&x[..x.len().min(room)]);
        compute.each_chunk(&mut self.sums, INPUTS, |chunk, sums| {
            let mut squares = [0.0f64; INPUTS];
            for row in x.chunks_exact(width) {
                let inputs = &row[chunk * INPUTS..][..sums.len()];
                let each = squares.iter_mut().zip(inputs);
                each.for_each(|(sum, input)| *sum += f64::from(*input).powi(2));
            }
            sums.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square as f32);
        });
    }

    /// Adds the squares of the group that follows.
    pub fn merge(&mut self, next: &Squares) {
        assert_eq!(self.sums.len(), next.sums.len(), "inputs of one stage");
        self.sums.iter_mut().zip(&next.sums).for_each(|(sum, next)| *sum += next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_those_of_every_token_and_the_sample_of_the_first() {
        const WIDTH: usize = 70;
        let x: Vec<f32> = (0..3000 * WIDTH).map(|at| (at * 7919 % 1009) as f32 / 256.0).collect();
        let of = |threads| {
            let compute = Compute::new(threads).expect("threads");
            let (first, rest) = x.split_at(1500 * WIDTH);
            let mut squares = Squares::new(WIDTH);
            squares.add(&compute, first);
            squares.add(&compute, rest);
            let mut next = Squares::new(WIDTH);
            next.add(&compute, rest);
            squares.merge(&next);
            squares
        };
        let squares = of(1);
        for (input, sum) in squares.sums.iter().enumerate() {
            let squares = x.iter().skip(input).step_by(WIDTH).map(|x| f64::from(*x).powi(2));
            let (all, last) = (squares.clone().sum::<f64>(), squares.skip(1500).sum::<f64>());
            assert!((f64::from(*sum) / (all + last) - 1.0).abs() < 1e-6, "input {input}");
        }
        assert!(squares.sample == x[..SAMPLE_TOKENS * WIDTH]);
        assert!(of(3).sums == squares.sums);
    }
}
