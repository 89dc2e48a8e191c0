/*!
How many weights to keep, and which ones, given a score for each.

In: scores `[rows, cols]`. Out: a mask of the same shape; `true` is kept.
*/

/// How many weights are kept, and among which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All weights of the projection except this many.
    AllBut(usize),
    /// `keep` of each `group` consecutive inputs of a row.
    Pattern {
        /// Weights kept in each group.
        keep: usize,
        /// Consecutive inputs in a group.
        group: usize,
    },
}

impl Keep {
    /// Marks the weights of `[rows, cols]` that are kept: those with the largest scores. Ties at the
    /// threshold are pruned in row-major order.
    pub(crate) fn mask(self, scores: &[f32], cols: usize) -> Vec<bool> {
        match self {
            Keep::AllBut(zeros) => keep_all_but(zeros, scores),
            Keep::Pattern { keep, group } => {
                let mut mask = Vec::with_capacity(scores.len());
                for row in scores.chunks_exact(cols) {
                    for group in row.chunks(group) {
                        mask.extend(keep_all_but(group.len().saturating_sub(keep), group));
                    }
                }
                mask
            }
        }
    }
}

/// Marks all but the `zeros` smallest scores; of ties at the threshold, the first are pruned.
fn keep_all_but(zeros: usize, scores: &[f32]) -> Vec<bool> {
    if zeros == 0 {
        return vec![true; scores.len()];
    }
    if zeros >= scores.len() {
        return vec![false; scores.len()];
    }
    let mut sorted = scores.to_vec();
    let (_, threshold, _) = sorted.select_nth_unstable_by(zeros - 1, f32::total_cmp);
    let threshold = *threshold;
    let below = scores.iter().filter(|score| score.total_cmp(&threshold).is_lt()).count();
    let mut ties = zeros - below;
    scores
        .iter()
        .map(|score| match score.total_cmp(&threshold) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal if ties > 0 => {
                ties -= 1;
                false
            }
            _ => true,
        })
        .collect()
}
