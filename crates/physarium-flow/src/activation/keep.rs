//! Which weights survive, by a score for each.

/// How many weights survive, and among which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All but this many of the projection.
    AllBut(usize),
    /// This many of each run of `group` inputs of a row.
    Pattern {
        /// Weights kept of each group.
        keep: usize,
        /// Consecutive inputs in a group.
        group: usize,
    },
}

impl Keep {
    /// Marks the weights of `[rows, cols]` that survive: the largest scores. Of ties at the line the
    /// first in row-major order die.
    pub(crate) fn mask(self, scores: &[f32], cols: usize) -> Vec<bool> {
        match self {
            Keep::AllBut(zeros) => largest_but(scores, zeros),
            Keep::Pattern { keep, group } => {
                let mut mask = Vec::with_capacity(scores.len());
                for row in scores.chunks_exact(cols) {
                    for group in row.chunks(group) {
                        mask.extend(largest_but(group, group.len().saturating_sub(keep)));
                    }
                }
                mask
            }
        }
    }
}

/// All but the `zeros` smallest scores; of ties at the line, the first die.
pub(crate) fn largest_but(scores: &[f32], zeros: usize) -> Vec<bool> {
    if zeros == 0 {
        return vec![true; scores.len()];
    }
    if zeros >= scores.len() {
        return vec![false; scores.len()];
    }
    let mut sorted = scores.to_vec();
    let (_, line, _) = sorted.select_nth_unstable_by(zeros - 1, f32::total_cmp);
    let line = *line;
    let below = scores.iter().filter(|score| score.total_cmp(&line).is_lt()).count();
    let mut ties = zeros - below;
    scores
        .iter()
        .map(|score| match score.total_cmp(&line) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal if ties > 0 => {
                ties -= 1;
                false
            }
            _ => true,
        })
        .collect()
}
