//! Where the elements of a model went: columns of parts, whose heights are counts.

use super::{Anchor, LINE, Svg};

/// A part of a whole, which may have parts itself.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Class of its colour in `chart.css`.
    pub(crate) class: &'static str,
    pub(crate) name: String,
    pub(crate) elements: u64,
    /// The count in words, with its share and the name of the whole.
    pub(crate) says: String,
    pub(crate) parts: Vec<Part>,
}

/// The whole picture.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) label: String,
    pub(crate) model: Part,
}

const BAR: f64 = 16.0;
const HEIGHT: f64 = 300.0;
/// Space between the parts of a column.
const GAP: f64 = 40.0;

/// Side by side where there is room for the labels, otherwise a bar for each whole.
pub(crate) fn flow(flow: &Flow, width: f64) -> String {
    let mut svg = Svg::new(width, &flow.label);
    if width < 600.0 {
        let mut y = 4.0;
        stacked(&mut svg, &flow.model, &mut y);
        return svg.finish(y);
    }
    let depth = depth(&flow.model);
    let columns = Columns {
        step: (width - 200.0) / (depth.max(2) - 1) as f64,
        unit: HEIGHT / flow.model.elements.max(1) as f64,
    };
    columns.part(&mut svg, &flow.model, [0.0, 26.0]);
    let bottom = columns.bottom(&flow.model, 26.0);
    svg.finish(bottom + 8.0)
}

fn depth(part: &Part) -> usize {
    1 + part.parts.iter().map(depth).max().unwrap_or(0)
}

/// Sizes of a picture in columns.
struct Columns {
    /// Distance of two columns.
    step: f64,
    /// Pixels of an element.
    unit: f64,
}

impl Columns {
    fn height(&self, part: &Part) -> f64 {
        (part.elements as f64 * self.unit).max(1.5)
    }

    /// The lowest pixel that a part and its parts take.
    fn bottom(&self, part: &Part, top: f64) -> f64 {
        let own = top + self.height(part).max(LINE);
        match part.parts.last() {
            None => own,
            Some(last) => own.max(self.bottom(last, self.tops(part, top)[part.parts.len() - 1])),
        }
    }

    /// Where the parts of a part begin, below one another without overlap.
    fn tops(&self, part: &Part, top: f64) -> Vec<f64> {
        let mut next = top;
        let mut tops = Vec::new();
        for child in &part.parts {
            tops.push(next);
            next = self.bottom(child, next) + GAP;
        }
        tops
    }

    fn part(&self, svg: &mut Svg, part: &Part, [x, top]: [f64; 2]) {
        let mut from = top;
        for (child, to) in part.parts.iter().zip(self.tops(part, top)) {
            let height = self.height(child);
            let (left, right) = (x + BAR, x + self.step);
            let middle = f64::midpoint(left, right);
            let d = format!(
                "M{left:.1} {from:.1}C{middle:.1} {from:.1} {middle:.1} {to:.1} {right:.1} {to:.1}V{:.1}\
                 C{middle:.1} {:.1} {middle:.1} {:.1} {left:.1} {:.1}Z",
                to + height,
                to + height,
                from + height,
                from + height
            );
            svg.path(&format!("ribbon {}", child.class), &d, &child.says);
            self.part(svg, child, [x + self.step, to]);
            from += height;
        }
        svg.rect(part.class, [x, top, BAR, self.height(part)], &part.says);
        svg.text("name", Anchor::Start, [x + BAR + 6.0, top + 4.0], &part.name);
        let (count, share) = part.says.split_once(" = ").unwrap_or((&part.says, ""));
        svg.text("label halo", Anchor::Start, [x + BAR + 6.0, top + 4.0 + LINE], count);
        svg.text("label halo", Anchor::Start, [x + BAR + 6.0, top + 4.0 + 2.0 * LINE], share);
    }
}

/// A bar for a whole, its parts side by side, their labels below; then the same for each part that has parts.
fn stacked(svg: &mut Svg, part: &Part, y: &mut f64) {
    let whole = svg.width;
    svg.text("name", Anchor::Start, [0.0, *y + 12.0], &part.name);
    svg.text("label", Anchor::Start, [0.0, *y + 12.0 + LINE], &part.says);
    *y += 2.0 * LINE + 4.0;
    let mut x = 0.0;
    for child in &part.parts {
        let width = child.elements as f64 / part.elements.max(1) as f64 * whole;
        svg.rect(child.class, [x, *y, width.max(1.0), 18.0], &child.says);
        x += width;
    }
    *y += 24.0;
    for child in &part.parts {
        svg.rect(child.class, [0.0, *y + 3.0, 11.0, 11.0], &child.says);
        svg.text("name", Anchor::Start, [18.0, *y + 13.0], &child.name);
        svg.text("label", Anchor::Start, [18.0, *y + 13.0 + LINE], &child.says);
        *y += 2.0 * LINE + 4.0;
    }
    for child in part.parts.iter().filter(|child| !child.parts.is_empty()) {
        *y += LINE;
        stacked(svg, child, y);
    }
}
