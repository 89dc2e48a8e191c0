//! Scales with round numbers at their ticks.

use super::{Anchor, Svg};

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Of positive values.
    Logarithmic,
}

impl Scale {
    /// Logarithmic for positive values of which the largest is more than three times the smallest.
    pub(crate) fn of(values: impl Iterator<Item = f64> + Clone) -> Scale {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        if least > 0.0 && most > 3.0 * least { Scale::Logarithmic } else { Scale::Linear }
    }
}

/// An axis: what it measures, and the values that it shows.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) scale: Scale,
    /// Least and greatest value.
    range: [f64; 2],
}

impl Axis {
    /// An axis with some room around `values`.
    pub(crate) fn around(
        label: &'static str,
        scale: Scale,
        values: impl Iterator<Item = f64>,
    ) -> Axis {
        let (least, most) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let range = match scale {
            _ if least > most => [0.0, 1.0],
            Scale::Logarithmic => [least / 1.08, most * 1.08],
            Scale::Linear => {
                let room = 0.06 * (most - least).max(0.01 * most.abs()).max(1e-9);
                [if least >= 0.0 { (least - room).max(0.0) } else { least - room }, most + room]
            }
        };
        Axis { label, scale, range }
    }

    /// Where a value is: 0 at the least, 1 at the greatest.
    pub(crate) fn position(&self, value: f64) -> f64 {
        let of = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.ln(),
        };
        let [least, most] = self.range.map(of);
        (of(value) - least) / (most - least)
    }

    /// Round numbers in the range, about `count`.
    fn ticks(&self, count: usize) -> Vec<f64> {
        let [least, most] = self.range;
        let inside = |value: &f64| (least..=most).contains(value);
        if self.scale == Scale::Logarithmic {
            let round = |of: &[f64]| -> Vec<f64> {
                let decades = least.log10().floor() as i32..=most.log10().ceil() as i32;
                let all = decades.flat_map(|e| of.iter().map(move |m| m * 10f64.powi(e)));
                all.filter(inside).collect()
            };
            let [few, many] = [round(&[1.0, 2.0, 5.0]), round(&[1.0, 1.5, 2.0, 3.0, 5.0, 7.0])];
            if many.len() >= 2 {
                return if few.len() >= 4 { few } else { many };
            }
        }
        let step = round_step((most - least) / count as f64);
        let first = (least / step).ceil() as i64;
        (first..).map(|n| n as f64 * step).take_while(inside).collect()
    }

    /// Ticks with as many decimals as they need.
    fn labelled(&self, count: usize) -> Vec<(f64, String)> {
        let ticks = self.ticks(count);
        let decimals = (0..6).find(|decimals| {
            let shown = |tick: &f64| format!("{tick:.decimals$}").parse::<f64>();
            ticks.iter().all(|tick| {
                shown(tick).is_ok_and(|shown| (shown - tick).abs() <= 1e-6 * tick.abs().max(1e-9))
            })
        });
        let decimals = decimals.unwrap_or(6);
        ticks.into_iter().map(|tick| (tick, format!("{tick:.decimals$}"))).collect()
    }

    /// Draws the axis below a plot.
    pub(super) fn draw_below(
        &self,
        svg: &mut Svg,
        [left, right]: [f64; 2],
        [top, bottom]: [f64; 2],
    ) {
        for (tick, text) in self.labelled(((right - left) / 80.0) as usize) {
            let x = left + self.position(tick) * (right - left);
            svg.line("grid", [x, top], [x, bottom]);
            svg.text("tick", Anchor::Middle, [x, bottom + 16.0], &text);
        }
        svg.text("axis", Anchor::End, [right, bottom + 34.0], self.label);
    }

    /// Draws the axis at the left of a plot, its label above.
    pub(super) fn draw_left(
        &self,
        svg: &mut Svg,
        [left, right]: [f64; 2],
        [top, bottom]: [f64; 2],
    ) {
        for (tick, text) in self.labelled(((bottom - top) / 45.0) as usize) {
            let y = bottom - self.position(tick) * (bottom - top);
            svg.line("grid", [left, y], [right, y]);
            svg.text("tick", Anchor::End, [left - 7.0, y + 4.0], &text);
        }
        svg.text("axis", Anchor::Start, [4.0, top - 12.0], self.label);
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is not less.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let rounds = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
    rounds.into_iter().find(|round| *round >= step * 0.999).unwrap_or(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::around("x", Scale::Linear, [0.5, 0.7].into_iter());
        let labels: Vec<String> = axis.labelled(4).into_iter().map(|(_, text)| text).collect();
        assert_eq!(labels, ["0.5", "0.6", "0.7"]);
        let axis = Axis::around("y", Scale::Logarithmic, [19.4, 150.0].into_iter());
        let labels: Vec<String> = axis.labelled(4).into_iter().map(|(_, text)| text).collect();
        assert_eq!(labels, ["20", "30", "50", "70", "100", "150"]);
    }

    #[test]
    fn no_values_and_equal_values_have_an_axis() {
        for values in [vec![], vec![3.0, 3.0], vec![0.0], vec![f64::NAN]] {
            let axis = Axis::around("x", Scale::of(values.iter().copied()), values.iter().copied());
            assert!(axis.position(3.0).is_finite());
            assert!(axis.labelled(5).len() < 20, "{values:?}");
        }
    }

    #[test]
    fn wide_ranges_are_logarithmic() {
        assert_eq!(Scale::of([1.0, 7.0].into_iter()), Scale::Logarithmic);
        assert_eq!(Scale::of([0.0, 7.0].into_iter()), Scale::Linear);
    }
}
