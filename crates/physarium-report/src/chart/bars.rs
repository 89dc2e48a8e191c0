//! Horizontal bars, each with its value in words.

use super::{Anchor, LINE, Svg, fitted, width_of};

/// A bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// The value with its unit.
    pub(crate) shown: String,
}

/// Bars from zero, each below its name.
pub(crate) fn bars(label: &str, all: &[Bar], width: f64) -> String {
    let mut svg = Svg::new(width, label);
    let most = all.iter().map(|bar| bar.value).fold(0.0, f64::max).max(1e-12);
    let room = all.iter().map(|bar| width_of(&bar.shown)).fold(0.0, f64::max) + 12.0;
    let mut y = 14.0;
    for bar in all {
        svg.text("label", Anchor::Start, [0.0, y], &fitted(&bar.name, width));
        let length = (bar.value / most * (width - room)).max(1.0);
        svg.rect("f0", [0.0, y + 5.0, length, 12.0], &format!("{}: {}", bar.name, bar.shown));
        svg.text("label", Anchor::Start, [length + 6.0, y + 15.0], &bar.shown);
        y += 2.0 * LINE + 4.0;
    }
    svg.finish(y - LINE + 8.0)
}
