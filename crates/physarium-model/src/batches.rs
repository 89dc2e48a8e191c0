/*!
Batches of windows: what is computed at once.

In: windows of tokens. Out: runs of consecutive windows, and work for each window of a run, on all threads. The batches
depend on the windows only, never on the threads.
*/

use std::ops::Range;

use physarium_kernels::{Buffer, Compute};

/// Most tokens of a batch, unless one window has more: enough for products over tokens to be fast, and for a few threads.
pub const BATCH_TOKENS: usize = 2048;

/// Least tokens of a group of windows but the last, and most groups.
const GROUP_TOKENS: usize = 8192;
const MOST_GROUPS: usize = 8;

/// The groups of windows over which statistics are summed apart, in order: whole batches. The sums of the groups are then
/// added in this order, so that it does not matter where a group was computed.
pub fn window_groups(windows: &[&[u32]]) -> Vec<Range<usize>> {
    let all: usize = windows.iter().map(|window| window.len()).sum();
    let wanted = GROUP_TOKENS.max(all.div_ceil(MOST_GROUPS));
    let mut groups = Vec::new();
    let (mut begin, mut tokens) = (0, 0);
    for batch in batches(windows) {
        tokens += windows[batch.clone()].iter().map(|window| window.len()).sum::<usize>();
        if tokens >= wanted || batch.end == windows.len() {
            groups.push(begin..batch.end);
            (begin, tokens) = (batch.end, 0);
        }
    }
    groups
}

/// Runs of consecutive windows, in order.
pub(crate) fn batches(windows: &[&[u32]]) -> impl Iterator<Item = Range<usize>> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let mut tokens = windows.get(begin)?.len();
        let mut end = begin + 1;
        while let Some(next) = windows.get(end) {
            tokens += next.len();
            if tokens > BATCH_TOKENS {
                break;
            }
            end += 1;
        }
        let batch = begin..end;
        begin = end;
        Some(batch)
    })
}

/// Calls `work` for each window of a batch, in parallel, with its stream `[tokens, widths[0]]` and its rows
/// `[tokens, widths[1]]` of `rows`, which becomes as large as all of them.
pub(crate) fn each_window(
    compute: &Compute,
    streams: &mut [Vec<f32>],
    (rows, [hidden, width]): (&mut Buffer, [usize; 2]),
    work: impl Fn(&mut [f32], &mut [f32]) + Sync + Send,
) {
    let tokens = |stream: &Vec<f32>| stream.len() / hidden;
    rows.resize(streams.iter().map(tokens).sum::<usize>() * width);
    let mut rest = &mut rows[..];
    let mut windows = Vec::with_capacity(streams.len());
    for stream in streams {
        let (rows, after) = std::mem::take(&mut rest).split_at_mut(tokens(stream) * width);
        rest = after;
        windows.push((stream, rows));
    }
    compute.each_chunk(&mut windows, 1, |_, window| {
        let (stream, rows) = &mut window[0];
        work(stream, rows);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_whole_windows_in_order() {
        let window = |len| vec![0; len];
        let windows =
            [window(1000), window(1000), window(49), window(5000), window(1), window(2048)];
        let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        assert_eq!(batches(&windows).collect::<Vec<_>>(), [0..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(batches(&windows[..0]).count(), 0);
    }

    #[test]
    fn groups_are_whole_batches_of_enough_tokens() {
        let window = vec![0; 512];
        let groups = |count: usize| window_groups(&vec![&window[..]; count]);
        assert!(groups(0).is_empty());
        for count in [3, 16] {
            assert!(groups(count).into_iter().eq(std::iter::once(0..count)));
        }
        assert_eq!(groups(17), [0..16, 16..17]);
        assert_eq!(groups(64), [0..16, 16..32, 32..48, 48..64]);
        let many = groups(1024);
        assert_eq!(many.len(), MOST_GROUPS);
        assert!(many.iter().all(|group| group.len() == 128));
        // Batches are the same as without groups.
        let windows: Vec<Vec<u32>> = (0..90).map(|i| vec![0; 100 + i * 7 % 600]).collect();
        let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        let ends: Vec<usize> = batches(&windows).map(|batch| batch.end).collect();
        let groups = window_groups(&windows);
        assert!(groups.len() > 1 && groups.iter().all(|group| ends.contains(&group.end)));
    }
}
