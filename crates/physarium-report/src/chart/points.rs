//! Points of several series in a plot, with standard errors, joined by lines.

use super::{Anchor, Axis, LINE, Svg, escaped, fitted, width_of};

/// A point of a series.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// Standard error of `y`.
    pub(crate) error: Option<f64>,
    /// What to say of it.
    pub(crate) title: String,
}

/// Points of the same kind.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
    pub(crate) drawn: Drawn,
}

/// What joins the points of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// Nothing.
    Apart,
    /// Lines, in the order of x.
    Joined,
    /// A dashed line without markers: a level to compare with, or the best of all.
    Line,
}

/// A chart of series.
#[derive(Debug, Clone)]
pub(crate) struct PointChart {
    pub(crate) label: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// Number of colours and of shapes of markers in `chart.css`.
const KINDS: usize = 7;
const PLOT_HEIGHT: f64 = 260.0;

impl PointChart {
    pub(crate) fn draw(&self, width: f64) -> String {
        let mut svg = Svg::new(width, &self.label);
        let (across, down) = ([52.0, width - 12.0], [28.0, 28.0 + PLOT_HEIGHT]);
        self.x.draw_below(&mut svg, across, down);
        self.y.draw_left(&mut svg, across, down);
        let place = |x: f64, y: f64| {
            let at = |axis: &Axis, value, [from, to]: [f64; 2]| {
                from + axis.position(value) * (to - from)
            };
            [at(&self.x, x, across), at(&self.y, y, [down[1], down[0]])]
        };
        for (index, series) in self.series.iter().enumerate() {
            series.draw(&mut svg, index, &place);
        }
        let bottom = self.legend(&mut svg, [52.0, down[1] + 58.0]);
        svg.finish(bottom)
    }

    /// The names of the series with their markers, in as many columns as fit; those of lines below. Returns where it
    /// ends.
    fn legend(&self, svg: &mut Svg, [left, top]: [f64; 2]) -> f64 {
        let room = svg.width - left;
        let (lines, marked): (Vec<_>, Vec<_>) =
            self.series.iter().enumerate().partition(|(_, series)| series.drawn == Drawn::Line);
        let widest = marked.iter().map(|(_, series)| width_of(&series.name)).fold(0.0, f64::max);
        let columns = ((room / (widest + 36.0)) as usize).max(1);
        let mut entry = |(index, series): &(usize, &Series), column: usize, y: f64| {
            let x = left + column as f64 * (widest + 36.0) + 8.0;
            svg.body += &mark(*index, [x, y - 4.0], series.drawn, &series.name);
            svg.text("label", Anchor::Start, [x + 16.0, y], &fitted(&series.name, room - 24.0));
        };
        let mut y = top;
        for row in marked.chunks(columns) {
            row.iter().enumerate().for_each(|(column, series)| entry(series, column, y));
            y += LINE;
        }
        for line in &lines {
            entry(line, 0, y);
            y += LINE;
        }
        y
    }
}

impl Series {
    fn draw(&self, svg: &mut Svg, index: usize, place: &impl Fn(f64, f64) -> [f64; 2]) {
        let class = index % KINDS;
        let mut points: Vec<&Point> =
            self.points.iter().filter(|p| p.x.is_finite() && p.y.is_finite()).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        if self.drawn != Drawn::Apart && points.len() > 1 {
            let places = points.iter().map(|point| place(point.x, point.y));
            let d: Vec<String> = places.map(|[x, y]| format!("{x:.1} {y:.1}")).collect();
            let dashed = if self.drawn == Drawn::Line { " dashed" } else { "" };
            svg.path(&format!("line s{class}{dashed}"), &format!("M{}", d.join("L")), &self.name);
        }
        if self.drawn == Drawn::Line {
            return;
        }
        for point in points {
            let here = place(point.x, point.y);
            if let Some(error) = point.error {
                let ends = [point.y - error, point.y + error].map(|y| place(point.x, y));
                if ends.iter().flatten().all(|end| end.is_finite()) {
                    svg.line(&format!("line s{class}"), ends[0], ends[1]);
                }
            }
            svg.body += &mark(index, here, self.drawn, &point.title);
        }
    }
}

/// The marker of a series, which has a shape and a colour of its own.
fn mark(index: usize, [x, y]: [f64; 2], drawn: Drawn, title: &str) -> String {
    let class = index % KINDS;
    if drawn == Drawn::Line {
        return format!("<path class=\"line s{class} dashed\" d=\"M{:.1} {y:.1}h18\"/>", x - 9.0);
    }
    // After seven series, the colours come again with other shapes.
    let shape = match (index + index / KINDS) % KINDS {
        0 => "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
        1 => "m-4 -4h8v8h-8z",
        2 => "m0 -5.2l5 9h-10z",
        3 => "m0 -5.6l5.2 5.6l-5.2 5.6l-5.2 -5.6z",
        4 => "m0 5.2l5 -9h-10z",
        5 => "m-5 -1.6h3.4v-3.4h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4z",
        _ => "m-2.6 -4.6h5.2l2.6 4.6l-2.6 4.6h-5.2l-2.6 -4.6z",
    };
    let title = escaped(title);
    format!(
        "<path class=\"mark f{class}\" d=\"M{x:.1} {y:.1}{shape}\"><title>{title}</title></path>"
    )
}
