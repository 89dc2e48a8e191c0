/*!
The matrices in a tensor.

In: a tensor's shape, what its name says, and its family. Out: the [`MatrixView`]s that it consists of, which
cover it in the order of its elements without gaps. A plain projection is one view; a fused one has a view for
each map where the border lies between rows; stacked experts have one or two for each expert.
*/

use crate::open::header::TensorInfo;

use super::family::Family;
use super::names::{Named, Storage};
use super::site::{Map, MatrixView, Orientation, Site};

/// Most experts in one tensor; the largest known model has 512.
const MAX_EXPERTS: u64 = 65_536;

/// The views of a tensor; none where it is not a matrix or a stack of them.
pub(super) fn views(info: &TensorInfo, named: &Named, family: &Family) -> Vec<MatrixView> {
    match (&info.shape[..], named.storage) {
        ([rows, cols], storage) => {
            let orientation = match storage {
                Storage::Conv1d => Orientation::InOut,
                Storage::Linear | Storage::Stacked => Orientation::OutIn,
            };
            let parts = parts(&named.site.map, *rows, family);
            let whole = Whole { site: &named.site, cols: *cols, orientation };
            whole.views(&parts, 0)
        }
        ([experts, rows, cols], Storage::Stacked)
            if info.elements > 0 && *experts <= MAX_EXPERTS =>
        {
            let orientation = stacked_orientation(&named.site.map, [*rows, *cols], family);
            let parts = match orientation {
                Orientation::OutIn => parts(&named.site.map, *rows, family),
                Orientation::InOut | Orientation::Unknown => vec![(named.site.map.clone(), *rows)],
            };
            let expert = |expert: u64| {
                let number = u32::try_from(expert).ok()?;
                let site = Site { expert: Some(number), ..named.site.clone() };
                let whole = Whole { site: &site, cols: *cols, orientation };
                Some(whole.views(&parts, expert * rows * cols))
            };
            (0..*experts).filter_map(expert).flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// A matrix of one or more maps.
struct Whole<'a> {
    site: &'a Site,
    cols: u64,
    orientation: Orientation,
}

impl Whole<'_> {
    /// Views of `parts`, the first of which begins at element `begin`.
    fn views(&self, parts: &[(Map, u64)], begin: u64) -> Vec<MatrixView> {
        let mut at = begin;
        let view = |(map, rows): &(Map, u64)| {
            let site = Site { map: map.clone(), ..self.site.clone() };
            let (cols, orientation) = (self.cols, self.orientation);
            let view = MatrixView { site, begin: at, rows: *rows, cols, orientation };
            at += view.elements();
            view
        };
        parts.iter().map(view).collect()
    }
}

/// The maps that a matrix `[rows, …]` consists of, from the first row on, with their rows.
fn parts(map: &Map, rows: u64, family: &Family) -> Vec<(Map, u64)> {
    match (map, family.heads) {
        (Map::GateUp, _) if rows.is_multiple_of(2) => {
            vec![(Map::Gate, rows / 2), (Map::Up, rows / 2)]
        }
        (Map::Qkv, Some((queries, keys))) => {
            let heads = keys.checked_mul(2).and_then(|both| both.checked_add(queries));
            match heads.filter(|heads| rows.is_multiple_of(*heads)) {
                Some(heads) => {
                    let head = rows / heads;
                    vec![(Map::Q, queries * head), (Map::K, keys * head), (Map::V, keys * head)]
                }
                None => vec![(Map::Qkv, rows)],
            }
        }
        _ => vec![(map.clone(), rows)],
    }
}

/// Which way round an expert of `[rows, cols]` is stored: as its shape says, or else its family.
fn stacked_orientation(map: &Map, [rows, cols]: [u64; 2], family: &Family) -> Orientation {
    let by_shape = family.hidden.and_then(|hidden| match (rows == hidden, cols == hidden) {
        (true, false) => Some(matches!(map, Map::Gate | Map::Up | Map::GateUp)),
        (false, true) => Some(matches!(map, Map::Down)),
        _ => None,
    });
    match by_shape.or_else(|| family.stacks_inputs_first()) {
        Some(true) => Orientation::InOut,
        Some(false) => Orientation::OutIn,
        None => Orientation::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::dtype::Dtype;

    fn of(name: &str, shape: &[u64], family: &Family) -> Vec<(Map, Option<u32>, [u64; 3])> {
        let elements = shape.iter().product();
        let info = TensorInfo {
            name: name.to_owned(),
            dtype: Dtype::BF16,
            shape: shape.to_vec(),
            elements,
            begin: 0,
            end: 2 * elements,
        };
        let views = views(&info, &Named::of(name), family);
        let covered: u64 = views.iter().map(MatrixView::elements).sum();
        assert!(views.is_empty() || covered == elements, "{name}: {covered} of {elements}");
        let one = |view: MatrixView| {
            (view.site.map, view.site.expert, [view.begin, view.rows, view.cols])
        };
        views.into_iter().map(one).collect()
    }

    fn family(config: serde_json::Value) -> Family {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("a config");
        Family::read(dir.path())
    }

    #[test]
    fn fused_rows_are_views_of_their_own() {
        let phi = family(serde_json::json!({
            "hidden_size": 6, "num_attention_heads": 4, "num_key_value_heads": 2
        }));
        let qkv = "model.layers.0.self_attn.qkv_proj.weight";
        let expected =
            vec![(Map::Q, None, [0, 8, 6]), (Map::K, None, [48, 4, 6]), (Map::V, None, [72, 4, 6])];
        assert_eq!(of(qkv, &[16, 6], &phi), expected);
        assert_eq!(of(qkv, &[16, 6], &Family::default()), [(Map::Qkv, None, [0, 16, 6])]);
        assert_eq!(of(qkv, &[15, 6], &phi), [(Map::Qkv, None, [0, 15, 6])]);
        let gate_up = "model.layers.0.mlp.gate_up_proj.weight";
        let expected = [(Map::Gate, None, [0, 5, 6]), (Map::Up, None, [30, 5, 6])];
        assert_eq!(of(gate_up, &[10, 6], &phi), expected);
    }

    #[test]
    fn stacked_experts_are_views_in_either_orientation() {
        let family = family(serde_json::json!({"hidden_size": 6, "model_type": "qwen3_moe"}));
        let (gate_up, down) =
            ("model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj");
        let expected = [
            (Map::Gate, Some(0), [0, 4, 6]),
            (Map::Up, Some(0), [24, 4, 6]),
            (Map::Gate, Some(1), [48, 4, 6]),
            (Map::Up, Some(1), [72, 4, 6]),
        ];
        assert_eq!(of(gate_up, &[2, 8, 6], &family), expected);
        let expected = [(Map::GateUp, Some(0), [0, 6, 8]), (Map::GateUp, Some(1), [48, 6, 8])];
        assert_eq!(of(gate_up, &[2, 6, 8], &family), expected);
        let expected = [(Map::Down, Some(0), [0, 6, 4]), (Map::Down, Some(1), [24, 6, 4])];
        assert_eq!(of(down, &[2, 6, 4], &family), expected);
        assert_eq!(of(down, &[0, 6, 4], &family), []);
        assert_eq!(of("model.layers.1.self_attn.q_proj.weight", &[2, 6, 4], &family), []);
    }

    #[test]
    fn orientation_is_the_shapes_then_the_familys() {
        let orientation = |config: serde_json::Value, shape| {
            stacked_orientation(&Map::GateUp, shape, &family(config))
        };
        let qwen = serde_json::json!({"hidden_size": 6, "model_type": "qwen3_moe"});
        assert_eq!(orientation(qwen.clone(), [8, 6]), Orientation::OutIn);
        assert_eq!(orientation(qwen.clone(), [6, 8]), Orientation::InOut);
        assert_eq!(orientation(qwen, [6, 6]), Orientation::OutIn);
        let gpt = serde_json::json!({"hidden_size": 6, "model_type": "gpt_oss"});
        assert_eq!(orientation(gpt, [6, 6]), Orientation::InOut);
        assert_eq!(orientation(serde_json::json!({}), [8, 6]), Orientation::Unknown);
    }
}
