/*!
In which order weights are pruned, and how the zeros of a projection are divided among its parts.

In: weights, which inputs are dead, scores. Out: a rank for each weight ([`Order`]), the smallest of which are pruned
first; and the number of zeros of each part ([`divide`]).
*/

use super::problem::Problem;

/// The order in which the weights of a projection are pruned: first those that are zero before and now, then those of
/// dead inputs, the smallest magnitude first, then the others by their scores.
pub(super) struct Order<'a> {
    weights: &'a [f32],
    cols: usize,
    /// Whether an input is zero for every token `[cols]`.
    dead: Vec<bool>,
}

impl<'a> Order<'a> {
    pub(super) fn new(weights: &'a [f32], dead: Vec<bool>) -> Order<'a> {
        Order { weights, cols: dead.len(), dead }
    }

    pub(super) fn of(problem: &Problem<'a>) -> Order<'a> {
        Order::new(problem.weights, problem.inputs.are_dead())
    }

    /// The rank of the weight at row-major position `at`, which is `now` after updates. `score` is what it costs to
    /// prune it; its sign is ignored.
    pub(super) fn rank(&self, at: usize, now: f32, score: f32) -> i32 {
        let key = |value: f32| (value.to_bits() & 0x7fff_ffff) as i32;
        let is_free = self.is_dead(at) || (self.is_zero(at) && now == 0.0);
        if is_free { i32::MIN + key(self.weights[at]) } else { key(score) }
    }

    /// Whether a weight was zero before.
    pub(super) fn is_zero(&self, at: usize) -> bool {
        self.weights[at] == 0.0
    }

    /// Whether a weight's input is zero for every token.
    pub(super) fn is_dead(&self, at: usize) -> bool {
        self.dead[at % self.cols]
    }

    /// Whether it costs nothing to prune a weight that was not updated.
    pub(super) fn is_free(&self, at: usize) -> bool {
        self.is_zero(at) || self.is_dead(at)
    }

    /// Number of weights that were zero before.
    pub(super) fn zeros(&self) -> usize {
        self.weights.iter().filter(|weight| **weight == 0.0).count()
    }
}

/// Consecutive weights of a projection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Number of weights.
    pub size: usize,
    /// Zeros that the part has in any case.
    pub least: usize,
}

/// Divides `zeros` among parts in proportion to their sizes, except that no part gets fewer than its `least`. Each
/// number is rounded so that they add up to `zeros` exactly, or to all `least` if those are more.
pub(super) fn divide(zeros: usize, parts: &[Part]) -> Vec<usize> {
    let mut is_fixed = vec![false; parts.len()];
    loop {
        let fixed = parts.iter().zip(&is_fixed).filter(|(_, fixed)| **fixed);
        let left = zeros.saturating_sub(fixed.map(|(part, _)| part.least).sum());
        let open = parts.iter().zip(&is_fixed).filter(|(_, fixed)| !**fixed);
        let all: usize = open.map(|(part, _)| part.size).sum();
        let (mut so_far, mut spent) = (0, 0);
        let share = |(part, fixed): (&Part, &bool)| {
            if *fixed {
                return part.least;
            }
            so_far += part.size;
            let until = (left as u128 * so_far as u128 / all.max(1) as u128) as usize;
            let here = until - spent;
            spent = until;
            here
        };
        let shares: Vec<usize> = parts.iter().zip(&is_fixed).map(share).collect();
        let short = parts.iter().zip(&shares).map(|(part, share)| *share < part.least);
        let short: Vec<bool> = short.collect();
        if !short.contains(&true) {
            return shares;
        }
        is_fixed.iter_mut().zip(short).for_each(|(fixed, short)| *fixed |= short);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[(usize, usize)]) -> Vec<Part> {
        parts.iter().map(|(size, least)| Part { size: *size, least: *least }).collect()
    }

    #[test]
    fn shares_are_even_and_add_up() {
        assert_eq!(divide(10, &parts(&[(8, 0), (8, 3), (8, 0)])), [3, 3, 4]);
        assert_eq!(divide(0, &parts(&[(8, 0), (8, 0)])), [0, 0]);
        assert_eq!(divide(20, &parts(&[(8, 0), (12, 12)])), [8, 12]);
    }

    #[test]
    fn what_one_part_has_too_much_the_others_have_less() {
        assert_eq!(divide(12, &parts(&[(8, 8), (8, 0), (8, 0)])), [8, 2, 2]);
        // The level of the others falls below the least of the second part too.
        assert_eq!(divide(12, &parts(&[(8, 8), (8, 3), (8, 0)])), [8, 3, 1]);
        assert_eq!(divide(5, &parts(&[(8, 8), (8, 3), (8, 0)])), [8, 3, 0]);
    }
}
