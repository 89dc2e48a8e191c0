//! Several audits, comparisons and evaluations side by side.

use std::collections::BTreeMap;

use physarium::checkpoint::printable;
use physarium::{ChoicesResult, Evaluation};
use serde::Serialize;

use crate::audit_page::{audit_page, in_short, of_projections};
use crate::comparison_page::{self, comparison_page};
use crate::document::{Content, Document};
use crate::frame::render;
use crate::words::{Cell, Table, counted};

/// The page of some documents: their values side by side, and the charts of comparisons. One audit or one comparison by
/// itself has the page that it would have had when it was made.
pub fn overview_page(documents: &[Document]) -> String {
    match documents {
        [Document { content: Content::Audit(audit), .. }] => return audit_page(audit),
        [Document { content: Content::Comparison(comparison), .. }] => {
            return comparison_page(comparison);
        }
        _ => {}
    }
    let contents: Vec<&Content> = documents.iter().map(|document| &document.content).collect();
    render("overview.html", &Page::of(documents), &contents)
}

#[derive(Serialize)]
struct Page {
    title: String,
    side_by_side: Option<Table>,
    zeros: Option<Table>,
    comparisons: Vec<comparison_page::Page>,
}

impl Page {
    fn of(documents: &[Document]) -> Page {
        let (mut columns, mut zeros) = (Vec::new(), Vec::new());
        let mut comparisons = Vec::new();
        for Document { name, content, .. } in documents {
            let name = printable(name);
            match content {
                Content::Audit(audit) => {
                    columns.push(Column::new(name.clone(), in_short(audit)));
                    zeros.push(Column { name, values: of_projections(audit) });
                }
                Content::Evaluation(evaluation) => {
                    let mut values = of_text(&evaluation.text);
                    values.extend(evaluation.choices.iter().flat_map(of_choices));
                    columns.push(Column::new(name, values));
                }
                Content::Choices(choices) => columns.push(Column::new(name, of_choices(choices))),
                Content::Comparison(comparison) => {
                    let mut page = comparison_page::Page::of(comparison, &name);
                    page.runs.id = format!("runs-{}", comparisons.len() + 1);
                    comparisons.push(page);
                }
            }
        }
        let caption =
            "One column for each audit and each evaluation; every share names its denominator.";
        Page {
            title: format!("{} side by side", counted(documents.len(), "document")),
            side_by_side: side_by_side("side-by-side", caption, &columns),
            zeros: side_by_side("zeros", "Zeros of any origin, in percent of the weights.", &zeros),
            comparisons,
        }
    }
}

/// The values of one document by their names.
struct Column {
    name: String,
    values: Vec<(String, Cell)>,
}

impl Column {
    fn new(name: String, values: Vec<(&str, Cell)>) -> Column {
        let values = values.into_iter().map(|(what, cell)| (what.to_owned(), cell)).collect();
        Column { name, values }
    }
}

fn of_text(evaluation: &Evaluation) -> Vec<(&'static str, Cell)> {
    let against = evaluation.against.as_ref();
    let text = &evaluation.protocol.text;
    vec![
        ("perplexity", Cell::decimals(evaluation.perplexity, 4)),
        ("perplexity of the other model", Cell::decimals(against.map(|a| a.perplexity), 4)),
        ("ratio", Cell::decimals(against.map(|a| a.ratio), 4)),
        ("± standard error of the ratio", Cell::decimals(against.and_then(|a| a.ratio_stderr), 4)),
        ("KL, nats per token", Cell::decimals(against.map(|a| a.kl_nats), 5)),
        ("± standard error of the KL", Cell::decimals(against.and_then(|a| a.kl_stderr), 5)),
        ("same top-1, of tokens scored", Cell::percent(against.map(|a| a.top1_agreement))),
        ("bits per byte", Cell::decimals(evaluation.bits_per_byte, 4)),
        ("tokens scored", Cell::count(evaluation.tokens_scored as u64)),
        ("window", Cell::count(evaluation.protocol.window as u64)),
        ("BOS", Cell::text(&evaluation.protocol.bos.to_string())),
        ("text", Cell::text(&text.file)),
        ("SHA-256 of the text", Cell::text(&text.sha256)),
    ]
}

fn of_choices(result: &ChoicesResult) -> Vec<(&'static str, Cell)> {
    let (plain, normalised) = (&result.accuracy, &result.accuracy_normalised);
    let other = result.against.as_ref();
    vec![
        ("accuracy, of items", Cell::percent(plain.right.share)),
        ("± standard error of the accuracy", Cell::percent(plain.stderr)),
        (
            "accuracy of the other model",
            Cell::percent(other.and_then(|o| o.accuracy.accuracy.right.share)),
        ),
        ("normalised accuracy, of items", Cell::percent(normalised.right.share)),
        ("± standard error of the normalised accuracy", Cell::percent(normalised.stderr)),
        (
            "normalised accuracy of the other model",
            Cell::percent(other.and_then(|o| o.accuracy_normalised.accuracy.right.share)),
        ),
        ("items", Cell::count(result.items as u64)),
        ("file of the items", Cell::text(&result.protocol.file)),
        ("SHA-256 of the items", Cell::text(&result.protocol.sha256)),
    ]
}

/// A row for each name that a column has, in the order of their first appearance.
fn side_by_side(id: &str, caption: &str, columns: &[Column]) -> Option<Table> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flat_map(|column| &column.values) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let values: Vec<BTreeMap<&str, &Cell>> = columns
        .iter()
        .map(|column| column.values.iter().map(|(name, cell)| (name.as_str(), cell)).collect())
        .collect();
    let row = |name: &str| {
        let cells = values
            .iter()
            .map(|column| column.get(name).map_or_else(Cell::unknown, |cell| (*cell).clone()));
        std::iter::once(Cell::text(name)).chain(cells).collect()
    };
    let header = std::iter::once(String::new()).chain(columns.iter().map(|c| c.name.clone()));
    (!columns.is_empty()).then(|| Table {
        id: id.to_owned(),
        caption: caption.to_owned(),
        columns: header.collect(),
        rows: names.into_iter().map(row).collect(),
    })
}
