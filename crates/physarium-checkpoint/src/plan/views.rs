/*!
The matrices in a tensor.

In: a tensor's shape, what its name says, and its family. Out: the [`MatrixView`]s that it consists of, which
cover it without gaps, in the order of its elements. A plain projection is one view. A fused one has a view for
each map if each is a range of rows. Stacked experts have one or two views for each expert.
*/

use crate::open::header::TensorInfo;

use super::family::Family;
use super::names::{Named, Storage};
use super::site::{Map, MatrixView, Orientation, Site};

/// Most experts in one tensor; the largest known model has 512.
const MAX_EXPERTS: u64 = 65_536;

/// The views of a tensor; none if it is neither a matrix nor a stack of experts.
pub(super) fn views(info: &TensorInfo, named: &Named, family: &Family) -> Vec<MatrixView> {
    match (&info.shape[..], named.storage) {
        ([rows, cols], storage) => {
            let map = &named.site.map;
            let (orientation, maps) = match storage {
                Storage::Linear => (Orientation::OutIn, rows_of_maps(map, *rows, family)),
                Storage::Conv1d => (Orientation::InOut, vec![(map.clone(), *rows)]),
                // All experts in one matrix: which rows are whose is not known.
                Storage::Stacked => (Orientation::OutIn, vec![(map.clone(), *rows)]),
            };
            let stored = StoredMatrix { site: &named.site, cols: *cols, orientation };
            stored.views(&maps, 0)
        }
        ([experts, rows, cols], Storage::Stacked)
            if info.elements > 0 && *experts <= MAX_EXPERTS =>
        {
            let orientation = stacked_orientation(&named.site.map, [*rows, *cols], family);
            let maps = match orientation {
                Orientation::OutIn => rows_of_maps(&named.site.map, *rows, family),
                Orientation::InOut | Orientation::Unknown => vec![(named.site.map.clone(), *rows)],
            };
            let expert = |expert: u64| {
                let number = u32::try_from(expert).ok()?;
                let site = Site { expert: Some(number), ..named.site.clone() };
                let stored = StoredMatrix { site: &site, cols: *cols, orientation };
                Some(stored.views(&maps, expert * rows * cols))
            };
            (0..*experts).filter_map(expert).flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// A matrix as stored, of one or more maps.
struct StoredMatrix<'a> {
    site: &'a Site,
    cols: u64,
    orientation: Orientation,
}

impl StoredMatrix<'_> {
    /// A view of each of `maps`, which are given with their rows; the first begins at element `begin`.
    fn views(&self, maps: &[(Map, u64)], begin: u64) -> Vec<MatrixView> {
        let mut at = begin;
        let view = |(map, rows): &(Map, u64)| {
            let site = Site { map: map.clone(), ..self.site.clone() };
            let (cols, orientation) = (self.cols, self.orientation);
            let view = MatrixView { site, begin: at, rows: *rows, cols, orientation };
            at += view.elements();
            view
        };
        maps.iter().map(view).collect()
    }
}

/// The maps in a matrix `[rows, …]`, each with its number of rows, in the order of the rows.
fn rows_of_maps(map: &Map, rows: u64, family: &Family) -> Vec<(Map, u64)> {
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

/// How an expert `[rows, cols]` is stored, by its shape if that is unambiguous, otherwise by its family.
fn stacked_orientation(map: &Map, [rows, cols]: [u64; 2], family: &Family) -> Orientation {
    // Gate and up read the residual stream, down writes it. What other maps do is not known.
    let hidden_are_inputs = match map {
        Map::Gate | Map::Up | Map::GateUp => Some(true),
        Map::Down => Some(false),
        _ => None,
    };
    let hidden_first = family.hidden.and_then(|hidden| match (rows == hidden, cols == hidden) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    });
    let by_shape = hidden_are_inputs.zip(hidden_first).map(|(inputs, first)| inputs == first);
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
    fn each_map_of_a_fused_matrix_is_a_view() {
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
    fn each_expert_of_a_stack_is_one_or_two_views() {
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
        assert_eq!(of(gate_up, &[16, 6], &family), [(Map::GateUp, None, [0, 16, 6])]);
        assert_eq!(of(down, &[0, 6, 4], &family), []);
        assert_eq!(of("model.layers.1.self_attn.q_proj.weight", &[2, 6, 4], &family), []);
    }

    #[test]
    fn orientation_follows_from_the_shape_or_else_from_the_family() {
        let of_map = |map: Map, config: &serde_json::Value, shape| {
            stacked_orientation(&map, shape, &family(config.clone()))
        };
        let orientation = |config: serde_json::Value, shape| of_map(Map::GateUp, &config, shape);
        let qwen = serde_json::json!({"hidden_size": 6, "model_type": "qwen3_moe"});
        assert_eq!(orientation(qwen.clone(), [8, 6]), Orientation::OutIn);
        assert_eq!(orientation(qwen.clone(), [6, 8]), Orientation::InOut);
        assert_eq!(orientation(qwen, [6, 6]), Orientation::OutIn);
        let gpt = serde_json::json!({"hidden_size": 6, "model_type": "gpt_oss"});
        assert_eq!(orientation(gpt.clone(), [6, 6]), Orientation::InOut);
        assert_eq!(of_map(Map::Down, &gpt, [6, 8]), Orientation::OutIn);
        assert_eq!(of_map(Map::Down, &gpt, [8, 6]), Orientation::InOut);
        // The shape says nothing about a map that may read or write the residual stream.
        assert_eq!(of_map(Map::Other("router".into()), &gpt, [8, 6]), Orientation::InOut);
        assert_eq!(of_map(Map::Other("router".into()), &gpt, [6, 8]), Orientation::InOut);
        let unknown = serde_json::json!({"hidden_size": 6});
        let other = of_map(Map::Other("router".into()), &unknown, [8, 6]);
        assert_eq!(other, Orientation::Unknown);
        assert_eq!(orientation(serde_json::json!({}), [8, 6]), Orientation::Unknown);
    }
}
