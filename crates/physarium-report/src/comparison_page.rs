//! The page of a comparison: what quality costs, method by method.

use physarium::audit::grouped;
use physarium::checkpoint::{Amount, Criterion, Recipe, Scope, printable};
use physarium::{ComparedRun, ComparisonRecord, Effort};
use serde::Serialize;

use crate::chart::{Axis, Bar, Drawn, Point, PointChart, Scale, Series, WIDTHS, bars, both};
use crate::frame::{picture, render, safe};
use crate::words::{Cell, Table, counted, percent, size};

/// The page of a comparison.
pub fn comparison_page(comparison: &ComparisonRecord) -> String {
    render("comparison.html", &Page::of(comparison, "Comparison"), comparison)
}

/// The charts of a comparison as SVG files, each with its name.
pub(crate) fn pictures(comparison: &ComparisonRecord) -> Vec<(&'static str, String)> {
    let [width, _] = WIDTHS;
    let charts = charts(comparison).into_iter();
    charts.map(|(name, chart)| (name, picture(&chart.draw(width)))).collect()
}

/// What a template shows of a comparison.
#[derive(Serialize)]
pub(crate) struct Page {
    title: String,
    headline: String,
    notes: Vec<String>,
    pub(crate) runs: Table,
    charts: Vec<Shown>,
    protocol: Vec<(&'static str, String)>,
}

/// A chart with its heading.
#[derive(Serialize)]
struct Shown {
    heading: String,
    drawn: minijinja::Value,
}

impl Page {
    pub(crate) fn of(comparison: &ComparisonRecord, title: &str) -> Page {
        let shown =
            |heading: &str, drawn| Shown { heading: heading.to_owned(), drawn: safe(drawn) };
        let mut shown_charts: Vec<Shown> = charts(comparison)
            .iter()
            .map(|(_, chart)| shown(&chart.label, both(|width| chart.draw(width))))
            .collect();
        for (heading, all) in costs(comparison) {
            shown_charts.push(shown(heading, both(|width| bars(heading, &all, width))));
        }
        let mut notes: Vec<String> = comparison
            .failed
            .iter()
            .map(|run| format!("{} failed: {}", printable(&run.name), printable(&run.error)))
            .collect();
        if !comparison.complete {
            notes.push("The comparison is not finished: there are more rows to come.".to_owned());
        }
        Page {
            title: title.to_owned(),
            headline: headline(comparison),
            notes,
            runs: runs(comparison),
            charts: shown_charts,
            protocol: protocol(comparison),
        }
    }
}

/// The best run at each amount.
fn headline(comparison: &ComparisonRecord) -> String {
    let ratio = |run: &ComparedRun| run.evaluation.against.as_ref().map(|against| against.ratio);
    let best = comparison
        .runs
        .iter()
        .filter_map(|run| Some((run, ratio(run).filter(|ratio| ratio.is_finite())?)))
        .min_by(|(_, a), (_, b)| a.total_cmp(b));
    let runs = counted(comparison.runs.len(), "pruned model");
    match best {
        Some((run, ratio)) => format!(
            "{runs}; the lowest perplexity has {}: {ratio:.4} times that of the dense model, with {} zeros.",
            printable(&run.name),
            percent(zeros(run))
        ),
        None => format!("{runs}."),
    }
}

/// Zeros as a share of the target.
fn zeros(run: &ComparedRun) -> f64 {
    let totals = &run.pruned.totals;
    (totals.pruned + totals.already_zero) as f64 / run.pruned.target.max(1) as f64
}

/// What the runs of a series have in common: the recipe without its amount.
fn series_name(recipe: &Recipe) -> String {
    let criterion = recipe.method.criterion();
    let mut name = criterion.name().to_owned();
    if let Criterion::ActivationFlow { flow: Some(flow), .. } = criterion {
        match Effort::of(&flow) {
            Some(Effort::Standard) => {}
            Some(effort) => name += &format!(" {}", effort.text()),
            None => name += &format!(" with {} steps", flow.steps),
        }
    }
    match recipe.method.amount() {
        Amount::Pattern(pattern) => name + &format!(" {pattern}"),
        Amount::Sparsity { scope: Scope::Model, .. } => name + ", allocated",
        Amount::Emergent | Amount::Price(_) | Amount::Sparsity { .. } => name,
    }
}

/// A point of each run that has one, in a series for each kind of run.
fn series(
    comparison: &ComparisonRecord,
    drawn: Drawn,
    point: impl Fn(&ComparedRun) -> Option<Point>,
) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for run in &comparison.runs {
        let Some(point) = point(run) else { continue };
        let name = series_name(&run.recipe);
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name, points: vec![point], drawn }),
        }
    }
    all
}

/// A value of each run, with its standard error, by the run's sparsity.
fn by_sparsity(
    comparison: &ComparisonRecord,
    value: impl Fn(&ComparedRun) -> Option<(f64, Option<f64>)>,
) -> Vec<Series> {
    series(comparison, Drawn::Joined, |run| {
        let (y, error) = value(run)?;
        let error_text = error.map_or(String::new(), |error| format!(" ± {error:.4}"));
        let title = format!("{}: {y:.4}{error_text}", printable(&run.name));
        Some(Point { x: 100.0 * zeros(run), y, error, title })
    })
}

/// The charts for which there are values, each with the name of its file.
fn charts(comparison: &ComparisonRecord) -> Vec<(&'static str, PointChart)> {
    let against = |run: &ComparedRun| run.evaluation.against.clone();
    let mut perplexity = by_sparsity(comparison, |run| {
        let dense = against(run)?;
        Some((run.evaluation.perplexity, dense.ratio_stderr.map(|error| error * dense.perplexity)))
    });
    if let Some(dense) = comparison.dense.as_ref().filter(|_| !perplexity.is_empty()) {
        let ends = ends(&perplexity);
        let point = |x| Point { x, y: dense.perplexity, error: None, title: "dense".to_owned() };
        let points = ends.map(point).to_vec();
        let name = format!("dense: {:.3}", dense.perplexity);
        perplexity.push(Series { name, points, drawn: Drawn::Line });
    }
    let kl = by_sparsity(comparison, |run| {
        let dense = against(run)?;
        Some((dense.kl_nats, dense.kl_stderr))
    });
    let top = by_sparsity(comparison, |run| {
        let dense = against(run)?;
        Some((100.0 * dense.top1_agreement, dense.top1_stderr.map(|error| 100.0 * error)))
    });
    let chart = |name: &'static str, label: &str, y: &'static str, series: Vec<Series>| {
        (!series.is_empty()).then(|| (name, chart_of(label, ["zeros, % of target", y], series)))
    };
    [
        chart(
            "perplexity",
            "Perplexity by sparsity, with standard errors over windows",
            "perplexity",
            perplexity,
        ),
        chart("kl", "KL divergence from the dense model by sparsity", "KL, nats per token", kl),
        chart(
            "top-1",
            "Tokens for which both models predict the same",
            "same top-1, % of tokens",
            top,
        ),
        by_size(comparison).map(|chart| ("size", chart)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn chart_of(label: &str, [x, y]: [&'static str; 2], series: Vec<Series>) -> PointChart {
    let points = || series.iter().flat_map(|series| &series.points);
    let heights = points().flat_map(|point| {
        let error = point.error.unwrap_or(0.0);
        [point.y, point.y - error, point.y + error]
    });
    let scale = Scale::of(points().map(|point| point.y));
    let (x, y) = (
        Axis::around(x, Scale::Linear, points().map(|point| point.x)),
        Axis::around(y, scale, heights.filter(|y| scale == Scale::Linear || *y > 0.0)),
    );
    PointChart { label: label.to_owned(), x, y, series }
}

/// Least and greatest x.
fn ends(series: &[Series]) -> [f64; 2] {
    let all = || series.iter().flat_map(|series| &series.points).map(|point| point.x);
    [all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max)]
}

/// Packed size against perplexity, with the line of the runs that no other beats in both.
fn by_size(comparison: &ComparisonRecord) -> Option<PointChart> {
    let mut series = series(comparison, Drawn::Apart, |run| {
        let weights = run.pruned.weights?;
        let (x, y) = (weights.packed as f64 / 1e6, run.evaluation.perplexity);
        let title =
            format!("{}: {} packed, perplexity {y:.3}", printable(&run.name), size(weights.packed));
        Some(Point { x, y, error: None, title })
    });
    let weights = comparison.runs.iter().find_map(|run| run.pruned.weights)?;
    if let Some(dense) = &comparison.dense {
        let (x, y) = (weights.dense as f64 / 1e6, dense.perplexity);
        let title = format!("dense: {}, perplexity {y:.3}", size(weights.dense));
        let points = vec![Point { x, y, error: None, title }];
        series.push(Series { name: "dense".to_owned(), points, drawn: Drawn::Apart });
    }
    let front = front(series.iter().flat_map(|series| series.points.clone()).collect());
    let name = "best at its size: no smaller one has a lower perplexity".to_owned();
    series.push(Series { name, points: front, drawn: Drawn::Line });
    let label = "Packed size of the weights against perplexity";
    Some(chart_of(label, ["weights packed, MB", "perplexity"], series))
}

/// The points for which none is both smaller and better.
fn front(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    let mut best = f64::INFINITY;
    points.retain(|point| {
        point.y < best && {
            best = point.y;
            true
        }
    });
    points
}

/// Seconds and memory of the pruning, where they are known.
fn costs(comparison: &ComparisonRecord) -> Vec<(&'static str, Vec<Bar>)> {
    let bars = |value: &dyn Fn(&ComparedRun) -> Option<(f64, String)>| {
        let bar = |run: &ComparedRun| {
            let (value, shown) = value(run)?;
            Some(Bar { name: printable(&run.name), value, shown })
        };
        comparison.runs.iter().filter_map(bar).collect::<Vec<Bar>>()
    };
    let seconds = bars(&|run| {
        let seconds = run.pruned.prune_seconds?;
        Some((seconds, format!("{seconds:.1} s")))
    });
    let memory = bars(&|run| {
        let bytes = run.pruned.prune_peak_rss_bytes?;
        Some((bytes as f64, size(bytes)))
    });
    let all = [("Time to prune", seconds), ("Peak memory while pruning", memory)];
    all.into_iter().filter(|(_, bars)| !bars.is_empty()).collect()
}

fn runs(comparison: &ComparisonRecord) -> Table {
    let columns = [
        "model",
        "zeros, of target",
        "perplexity",
        "ratio to dense",
        "± standard error",
        "KL, nats",
        "top-1",
        "layer error",
        "seconds",
        "memory",
        "weights packed",
    ];
    let row = |run: &ComparedRun| {
        let (against, pruned) = (run.evaluation.against.as_ref(), &run.pruned);
        vec![
            Cell::text(&run.name),
            Cell::percent(zeros(run)),
            Cell::decimals(run.evaluation.perplexity, 3),
            Cell::decimals(against.map(|against| against.ratio), 4),
            Cell::decimals(against.and_then(|against| against.ratio_stderr), 4),
            Cell::decimals(against.map(|against| against.kl_nats), 4),
            Cell::percent(against.map(|against| against.top1_agreement)),
            Cell::decimals(pruned.output_error, 4),
            Cell::decimals(pruned.prune_seconds, 1),
            Cell::bytes(pruned.prune_peak_rss_bytes),
            Cell::bytes(pruned.weights.map(|weights| weights.packed)),
        ]
    };
    let dense = comparison.dense.as_ref().map(|dense| {
        let mut row = vec![Cell::unknown(); columns.len()];
        row[0] = Cell::text("dense");
        row[2] = Cell::decimals(dense.perplexity, 3);
        row
    });
    Table {
        id: "runs".to_owned(),
        caption: "Ratio, KL and top-1 are against the dense model on the same tokens.".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: dense.into_iter().chain(comparison.runs.iter().map(row)).collect(),
    }
}

fn protocol(comparison: &ComparisonRecord) -> Vec<(&'static str, String)> {
    let evaluations =
        comparison.dense.iter().chain(comparison.runs.iter().map(|run| &run.evaluation));
    let Some(evaluation) = evaluations.into_iter().next() else { return Vec::new() };
    let protocol = &evaluation.protocol;
    let mut facts = vec![
        ("text", format!("{}, SHA-256 {}", printable(&protocol.text.file), protocol.text.sha256)),
        (
            "tokens scored",
            format!(
                "{} in {}",
                grouped(evaluation.tokens_scored as u64),
                counted(evaluation.windows, "window")
            ),
        ),
        (
            "window, stride",
            format!("{}, {}", grouped(protocol.window as u64), counted(protocol.stride, "token")),
        ),
        ("BOS", printable(&protocol.bos.to_string())),
        (
            "arithmetic",
            format!("{}, {}", printable(&protocol.arithmetic), printable(&protocol.instructions)),
        ),
        ("version", format!("physarium {}", printable(&protocol.version))),
    ];
    let calibration = comparison.runs.iter().find_map(|run| run.recipe.needs().calibration);
    facts.extend(calibration.map(|calibration| {
        let says = format!(
            "{} tokens in windows of {}, BOS (if the tokenizer adds it) {}, SHA-256 {}",
            grouped(calibration.tokens),
            grouped(calibration.window),
            calibration.bos,
            calibration.text_sha256
        );
        ("calibration", says)
    }));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_has_only_points_that_none_beats() {
        let point = |x, y| Point { x, y, error: None, title: String::new() };
        let points = vec![
            point(3.0, 1.0),
            point(1.0, 5.0),
            point(2.0, 6.0),
            point(2.5, 5.0),
            point(3.0, 2.0),
        ];
        let front: Vec<[f64; 2]> = front(points).iter().map(|p| [p.x, p.y]).collect();
        assert_eq!(front, [[1.0, 5.0], [3.0, 1.0]]);
    }
}
