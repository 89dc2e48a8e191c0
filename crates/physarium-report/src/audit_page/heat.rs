//! Heat maps as tables: the number is in the cell, its colour only makes it quicker to find.

use std::collections::{BTreeMap, BTreeSet};

use physarium::audit::Tensor;
use physarium::checkpoint::printable;
use serde::Serialize;

use crate::palette;
use crate::words::{counted, percent};

/// Most layers and projections of a map; a stranger's checkpoint may name any number.
const MOST_LAYERS: usize = 256;
const MOST_PROJECTIONS: usize = 24;

/// A heat map: layers down, projections across.
#[derive(Debug, Serialize)]
pub(crate) struct Heat {
    pub(crate) id: &'static str,
    pub(crate) caption: String,
    columns: Vec<String>,
    rows: Vec<Row>,
    /// The values at the lightest and the darkest colour.
    ends: [String; 2],
    /// Number of the colours.
    steps: usize,
}

#[derive(Debug, Serialize)]
struct Row {
    layer: String,
    cells: Vec<Option<Cell>>,
}

#[derive(Debug, Serialize)]
struct Cell {
    step: usize,
    text: String,
    title: String,
}

/// What a cell shows: a value, and what to say of it.
type Value = (f64, String);

/// The share of zeros.
pub(crate) fn sparsity(tensors: &[Tensor]) -> Option<Heat> {
    let value = |tensors: &[&Tensor]| {
        let sum =
            |field: fn(&Tensor) -> u64| tensors.iter().map(|tensor| field(tensor)).sum::<u64>();
        let (zero, all) = (sum(|tensor| tensor.zero), sum(|tensor| tensor.elements));
        let share = zero as f64 / all as f64;
        let says =
            format!("{zero} of {all} weights in {} are zero", counted(tensors.len(), "tensor"));
        (all > 0).then_some((share, says))
    };
    let caption = "Zeros of any origin, in percent of the weights of each layer's projection.";
    heat("heat-sparsity", caption, tensors, value)
}

/// The error of the outputs, if the journal states it.
pub(crate) fn error(tensors: &[Tensor]) -> Option<Heat> {
    let value = |tensors: &[&Tensor]| {
        let mean = |field: fn(&Tensor) -> Option<f64>| {
            let errors: Option<Vec<f64>> = tensors.iter().map(|tensor| field(tensor)).collect();
            errors.map(|errors| errors.iter().sum::<f64>() / errors.len() as f64)
        };
        let before = mean(|tensor| tensor.error_before_update);
        let before = before.map_or(String::new(), |before| {
            format!(", {} before remaining weights were updated", percent(before))
        });
        let says = format!("mean of {}{before}", counted(tensors.len(), "tensor"));
        Some((mean(|tensor| tensor.output_error)?, says))
    };
    let caption = "Squared error of the outputs on calibration tokens, in percent of the squared outputs of \
                   the original weights, as the journal states it.";
    heat("heat-error", caption, tensors, value)
}

fn heat(
    id: &'static str,
    caption: &str,
    tensors: &[Tensor],
    value: impl Fn(&[&Tensor]) -> Option<Value>,
) -> Option<Heat> {
    let mut cells: BTreeMap<(Option<u64>, &str), Vec<&Tensor>> = BTreeMap::new();
    for tensor in tensors {
        cells.entry((tensor.layer, &tensor.role)).or_default().push(tensor);
    }
    let values: BTreeMap<(Option<u64>, &str), Value> =
        cells.iter().filter_map(|(place, tensors)| Some((*place, value(tensors)?))).collect();
    let all = || values.values().map(|(value, _)| *value);
    let range = [all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max)];
    let layers: BTreeSet<Option<u64>> = values.keys().map(|(layer, _)| *layer).collect();
    let projections: Vec<&str> = in_order_of_a_layer(values.keys().map(|(_, role)| *role));
    if values.is_empty() {
        return None;
    }
    let (shown, columns) = (layers.len().min(MOST_LAYERS), projections.len().min(MOST_PROJECTIONS));
    let left_out = [("layer", layers.len() - shown), ("projection", projections.len() - columns)];
    let left_out = left_out.into_iter().filter(|(_, count)| *count > 0);
    let left_out = left_out.map(|(noun, count)| format!(" {} are left out.", counted(count, noun)));
    let projections = &projections[..columns];
    let row = |layer: Option<u64>| Row {
        layer: layer.map_or("–".to_owned(), |layer| layer.to_string()),
        cells: projections.iter().map(|role| cell(values.get(&(layer, *role))?, range)).collect(),
    };
    Some(Heat {
        id,
        caption: caption.to_owned() + &left_out.collect::<String>(),
        columns: projections.iter().map(|role| short(role, projections)).collect(),
        rows: layers.into_iter().take(shown).map(row).collect(),
        ends: range.map(percent),
        steps: palette::STEPS,
    })
}

fn cell((value, says): &Value, range: [f64; 2]) -> Option<Cell> {
    let text = format!("{:.1}", 100.0 * value);
    // Two values that are shown as the same have the same colour.
    let even = percent(range[0]) == percent(range[1]);
    let step = if even { palette::STEPS / 3 } else { palette::step(*value, range) };
    Some(Cell { step, text, title: format!("{}: {says}", percent(*value)) })
}

/// The last part of a projection's name, if no other of `all` has the same: `q_proj`.
fn short(name: &str, all: &[&str]) -> String {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let alike = all.iter().filter(|other| last(other) == last(name)).count();
    printable(&if alike == 1 { last(name) } else { name.to_owned() })
}

/// Names of projections in the order in which a layer computes them; others after them.
fn in_order_of_a_layer<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    const ORDER: [&str; 9] =
        ["qkv", "q_proj", "k_proj", "v_proj", "o_proj", "gate_up", "gate", "up", "down"];
    let rank =
        |name: &str| ORDER.iter().position(|part| name.contains(part)).unwrap_or(ORDER.len());
    let mut names: Vec<&str> = names.collect::<BTreeSet<_>>().into_iter().collect();
    names.sort_by_key(|name| rank(name));
    names
}
