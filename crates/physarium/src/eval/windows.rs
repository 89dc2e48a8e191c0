//! Windows of a text: the context of the model, and the positions that are scored in it.

use std::ops::Range;

/// Consecutive tokens that the model processes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// Positions in the text.
    pub(crate) tokens: Range<usize>,
    /// Positions whose token is scored. A token is predicted from those before it in the window; the last one may be
    /// the first after the window.
    pub(crate) scored: Range<usize>,
}

/// Ranges of consecutive windows, given by their numbers of tokens, that have at most `most` tokens together. A longer
/// window is by itself.
pub(crate) fn together(lengths: impl IntoIterator<Item = usize>, most: usize) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (index, length) in lengths.into_iter().enumerate() {
        tokens += length;
        match ranges.last_mut() {
            Some(range) if tokens <= most => range.end = index + 1,
            _ => {
                ranges.push(index..index + 1);
                tokens = length;
            }
        }
    }
    ranges
}

/// All whole windows of a text of `tokens` tokens, `stride` apart.
///
/// A token is scored in the first window that holds it, unless it is the first of that window.
pub(crate) fn cut(tokens: usize, window: usize, stride: usize) -> Vec<Window> {
    let begins = (0..).step_by(stride).take_while(|begin| begin + window <= tokens);
    let cut = |begin: usize| {
        let end = begin + window;
        let known = if begin == 0 { 0 } else { end - stride };
        Window { tokens: begin..end, scored: known.max(begin + 1)..end }
    };
    begins.map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_side_by_side_score_all_but_their_first() {
        let windows = cut(35, 10, 10);
        assert_eq!(windows.len(), 3);
        assert_eq!(windows[2], Window { tokens: 20..30, scored: 21..30 });
        assert_eq!(cut(9, 10, 10), []);
    }

    #[test]
    fn windows_are_together_up_to_a_number_of_tokens() {
        assert_eq!(together([3, 3, 4, 9, 1, 12, 2, 8], 10), [0..3, 3..5, 5..6, 6..8]);
        assert_eq!(together([4; 5], 10), [0..2, 2..4, 4..5]);
        assert!(together([], 10).is_empty());
    }

    #[test]
    fn overlapping_windows_score_each_token_once() {
        let windows = cut(35, 10, 4);
        let scored: Vec<usize> = windows.iter().flat_map(|w| w.scored.clone()).collect();
        assert_eq!(scored, (1..34).collect::<Vec<_>>());
        assert!(windows.iter().all(|w| w.scored.start > w.tokens.start));
    }
}
