/*!
Charts as SVG.

In: numbers and their names. Out: an `<svg>` whose text has the size of the page's, at a given width in pixels: a page has
each chart twice, for wide and for narrow windows. Colours are classes of `chart.css`.
*/

mod axis;
mod bars;
mod flow;
mod histogram;
mod points;

pub(crate) use axis::{Axis, Scale};
pub(crate) use bars::{Bar, bars};
pub(crate) use flow::{Flow, Part, flow};
pub(crate) use histogram::{BINS, histogram};
pub(crate) use points::{Drawn, Point, PointChart, Series};

/// Widths of the two drawings of a chart, in pixels.
pub(crate) const WIDTHS: [f64; 2] = [840.0, 340.0];
/// Distance of two lines of text.
const LINE: f64 = 17.0;

/// A drawing of both widths, of which the page shows one.
pub(crate) fn both(draw: impl Fn(f64) -> String) -> String {
    let [wide, narrow] = WIDTHS.map(draw);
    format!("<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>")
}

/// Where a text has its point.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// An image under construction.
struct Svg {
    width: f64,
    label: String,
    body: String,
}

impl Svg {
    /// `label` says what the image shows to whom cannot see it.
    fn new(width: f64, label: &str) -> Svg {
        Svg { width, label: label.to_owned(), body: String::new() }
    }

    fn rect(&mut self, class: &str, [x, y, width, height]: [f64; 4], title: &str) {
        let title = escaped(title);
        self.body += &format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
             <title>{title}</title></rect>"
        );
    }

    fn path(&mut self, class: &str, d: &str, title: &str) {
        let title = escaped(title);
        self.body += &format!("<path class=\"{class}\" d=\"{d}\"><title>{title}</title></path>");
    }

    fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        self.body += &format!("<path class=\"{class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>");
    }

    fn text(&mut self, class: &str, anchor: Anchor, [x, y]: [f64; 2], text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.body += &format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    fn finish(self, height: f64) -> String {
        let (width, label) = (self.width, escaped(&self.label));
        format!(
            "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{label}\">{}</svg>",
            self.body
        )
    }
}

/// Text that XML and HTML show as it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// About how wide a text is, in pixels.
fn width_of(text: &str) -> f64 {
    7.2 * text.chars().count() as f64
}

/// A text of at most this width, its middle left out if it is longer.
fn fitted(text: &str, width: f64) -> String {
    let (count, most) = (text.chars().count(), (width / 7.2) as usize);
    if count <= most || most < 3 {
        return text.to_owned();
    }
    let (head, tail) = (most / 2, most - most / 2 - 1);
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{begin}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_strangers_are_escaped() {
        let mut svg = Svg::new(100.0, "a \"label\"");
        svg.text("t", Anchor::Start, [0.0, 0.0], "<script>alert('&')</script>");
        svg.rect("r", [0.0; 4], "</title><script>");
        let text = svg.finish(10.0);
        assert!(text.contains("aria-label=\"a &quot;label&quot;\""));
        assert!(text.contains("&lt;script&gt;alert(&#39;&amp;&#39;)"));
        assert!(!text.contains("<script>"));
    }

    #[test]
    fn a_long_text_loses_its_middle() {
        assert_eq!(fitted("model.layers.10.mlp", 72.0), "model….mlp");
        assert_eq!(fitted("short", 72.0), "short");
    }
}
