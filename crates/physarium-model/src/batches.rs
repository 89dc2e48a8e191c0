/*!
Batches of windows: what is computed at once.

In: windows of tokens. Out: runs of consecutive windows, and work for each window of a run, on all threads. The batches
depend on the windows only, never on the threads.
*/

use std::ops::Range;

use physarium_kernels::{Buffer, Compute};

/// Most tokens of a batch, unless one window has more: enough for products over tokens to be fast, and for a few threads.
pub const BATCH_TOKENS: usize = 2048;

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
}
