/*!
How many weights to keep, and which ones, given a rank for each.

In: ranks `[rows, cols]`. Out: a mask of the same shape; `true` is kept.
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
    /// Number of weights of `[rows, cols]` that are not kept.
    pub(super) fn zeros(self, rows: usize, cols: usize) -> usize {
        match self {
            Keep::AllBut(zeros) => zeros,
            Keep::Pattern { keep, group } => {
                let in_rest = (cols % group).saturating_sub(keep);
                rows * (cols / group * group.saturating_sub(keep) + in_rest)
            }
        }
    }

    /// Marks the weights of `[rows, cols]` that are kept: those with the largest ranks. Ties at the
    /// threshold are pruned in row-major order.
    pub(crate) fn mask(self, ranks: &[i32], cols: usize) -> Vec<bool> {
        match self {
            Keep::AllBut(zeros) => keep_all_but(zeros, ranks),
            Keep::Pattern { keep, group } => {
                let mut mask = Vec::with_capacity(ranks.len());
                for row in ranks.chunks_exact(cols) {
                    for group in row.chunks(group) {
                        mask.extend(keep_all_but(group.len().saturating_sub(keep), group));
                    }
                }
                mask
            }
        }
    }
}

/// Marks all but the `zeros` smallest ranks; of ties at the threshold, the first are pruned.
fn keep_all_but(zeros: usize, ranks: &[i32]) -> Vec<bool> {
    if zeros == 0 {
        return vec![true; ranks.len()];
    }
    if zeros >= ranks.len() {
        return vec![false; ranks.len()];
    }
    let mut sorted = ranks.to_vec();
    let threshold = *sorted.select_nth_unstable(zeros - 1).1;
    let below = ranks.iter().filter(|rank| **rank < threshold).count();
    let mut ties = zeros - below;
    ranks
        .iter()
        .map(|rank| match rank.cmp(&threshold) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal if ties > 0 => {
                ties -= 1;
                false
            }
            _ => true,
        })
        .collect()
}
