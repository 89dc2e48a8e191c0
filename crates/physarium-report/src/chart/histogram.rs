//! How many tiles are how sparse.

use super::{Anchor, Svg};

/// Number of bars, for 0 to 100 %.
pub(crate) const BINS: usize = 50;

/// Bars for shares from 0 to 100 %, of which `counts` has the numbers.
pub(crate) fn histogram(label: &str, counts: &[u64; BINS], width: f64) -> String {
    let mut svg = Svg::new(width, label);
    let (left, top, bottom) = (8.0, 24.0, 164.0);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let step = (width - 2.0 * left) / BINS as f64;
    for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = ((bottom - top) * *count as f64 / most as f64).max(1.0);
        let [from, to] = [bin, bin + 1].map(|edge| edge * 100 / BINS);
        let x = left + bin as f64 * step;
        let title = format!("{count} tiles with {from} to {to} % zeros");
        svg.rect("f0", [x + 0.5, bottom - height, step - 1.0, height], &title);
        if *count == most {
            let anchor = if bin * 2 < BINS { Anchor::Start } else { Anchor::End };
            svg.text("label", anchor, [x, top - 8.0], &format!("{count} tiles"));
        }
    }
    svg.line("rule", [left, bottom], [width - left, bottom]);
    for percent in [0, 25, 50, 75, 100] {
        let x = left + f64::from(percent) / 100.0 * (width - 2.0 * left);
        let anchor = match percent {
            0 => Anchor::Start,
            100 => Anchor::End,
            _ => Anchor::Middle,
        };
        svg.line("rule", [x, bottom], [x, bottom + 4.0]);
        svg.text("tick", anchor, [x, bottom + 18.0], &format!("{percent} %"));
    }
    svg.text("axis", Anchor::End, [width - left, bottom + 36.0], "zeros in a tile");
    svg.finish(bottom + 44.0)
}
