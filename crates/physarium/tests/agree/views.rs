//! Fused projections and stacked experts are pruned as if each matrix in them were a tensor of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use physarium::checkpoint::{Scope, Sparsity};
use physarium::{Error, Options, Surgery};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};
use serde_json::{Value, json};

use super::{Work, audit_of, by_tensor, default_method, exact, findings, pattern, prune, recipe};

/// Bytes of a BF16 weight.
const SIZE: usize = 2;
const HIDDEN: usize = 20;

/// A matrix in a tensor, as this test expects it.
#[derive(Debug, Clone, Copy)]
struct Expected {
    map: &'static str,
    expert: Option<u32>,
    rows: usize,
    cols: usize,
}

impl Expected {
    fn elements(self) -> usize {
        self.rows * self.cols
    }
}

/// A checkpoint with the matrices of each target, in the order of their elements.
struct Model {
    dir: PathBuf,
    matrices: BTreeMap<&'static str, Vec<Expected>>,
}

impl Model {
    fn write(
        work: &Work,
        name: &str,
        config: &Value,
        targets: &[(&'static str, &[u64], Vec<Expected>)],
    ) -> Model {
        let mut tensors: Vec<Tensor> =
            targets.iter().map(|(name, shape, _)| Tensor::new(*name, Kind::Bf16, shape)).collect();
        tensors.push(Tensor::new("model.norm.weight", Kind::Bf16, &[HIDDEN as u64]));
        let dir = work.path(name);
        write_checkpoint(&dir, &tensors, 2, Fill::Gaussian(3)).unwrap();
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let matrices = targets.iter().map(|(name, _, matrices)| (*name, matrices.clone()));
        Model { dir, matrices: matrices.collect() }
    }

    /// The matrices of all targets, each as its bytes before pruning, in the order in which ties are pruned.
    fn matrices(&self) -> Vec<(Expected, Vec<u8>)> {
        let tensors = by_tensor(&self.dir);
        let mut all = Vec::new();
        for (name, matrices) in &self.matrices {
            let mut rest = &tensors[*name][..];
            for matrix in matrices {
                let (bytes, tail) = rest.split_at(matrix.elements() * SIZE);
                all.push((*matrix, bytes.to_vec()));
                rest = tail;
            }
            assert!(rest.is_empty(), "{name}: the matrices cover the tensor");
        }
        all
    }
}

fn one(map: &'static str, [rows, cols]: [usize; 2]) -> Expected {
    Expected { map, expert: None, rows, cols }
}

/// `maps` for each of three experts.
fn experts(maps: &[Expected]) -> Vec<Expected> {
    let of_expert = |expert| maps.iter().map(move |map| Expected { expert: Some(expert), ..*map });
    (0..3).flat_map(of_expert).collect()
}

fn fused(work: &Work) -> Model {
    let config = json!({
        "model_type": "phi3", "hidden_size": HIDDEN, "num_attention_heads": 4, "num_key_value_heads": 2
    });
    let qkv = || vec![one("q_proj", [20, 20]), one("k_proj", [10, 20]), one("v_proj", [10, 20])];
    let gate_up = vec![one("gate_proj", [13, 20]), one("up_proj", [13, 20])];
    Model::write(
        work,
        "fused",
        &config,
        &[
            ("model.layers.0.mlp.down_proj.weight", &[20, 13], vec![one("down_proj", [20, 13])]),
            ("model.layers.0.mlp.gate_up_proj.weight", &[26, 20], gate_up),
            ("model.layers.0.self_attn.qkv_proj.weight", &[40, 20], qkv()),
            ("model.layers.1.self_attn.qkv_proj.weight", &[40, 20], qkv()),
        ],
    )
}

/// Experts stored `[experts, out_features, in_features]`, as Qwen3 stores them.
fn outputs_first(work: &Work) -> Model {
    let config = json!({"model_type": "qwen3_moe", "hidden_size": HIDDEN});
    let gate_up = experts(&[one("gate_proj", [7, 20]), one("up_proj", [7, 20])]);
    let down = experts(&[one("down_proj", [20, 7])]);
    Model::write(
        work,
        "outputs-first",
        &config,
        &[
            ("model.layers.0.mlp.experts.down_proj", &[3, 20, 7], down),
            ("model.layers.0.mlp.experts.gate_up_proj", &[3, 14, 20], gate_up),
        ],
    )
}

/// Experts stored `[experts, in_features, out_features]`, as gpt-oss stores them: gate and up share rows.
fn inputs_first(work: &Work) -> Model {
    let config = json!({"model_type": "gpt_oss", "hidden_size": HIDDEN});
    let gate_up = experts(&[one("gate_up_proj", [20, 14])]);
    let down = experts(&[one("down_proj", [7, 20])]);
    Model::write(
        work,
        "inputs-first",
        &config,
        &[
            ("model.layers.0.mlp.experts.down_proj", &[3, 7, 20], down),
            ("model.layers.0.mlp.experts.gate_up_proj", &[3, 20, 14], gate_up),
        ],
    )
}

/// A weight's place: matrix and position in it.
type Place = (usize, usize);

/// Zeroes the `zeros` smallest magnitudes of `places`, of equal ones the first.
fn zero_smallest(matrices: &mut [Vec<u8>], places: &[Place], zeros: usize) {
    let weight = |(matrix, position): Place, matrices: &[Vec<u8>]| {
        let at = position * SIZE;
        u16::from_le_bytes([matrices[matrix][at], matrices[matrix][at + 1]])
    };
    let magnitude = |place: Place, matrices: &[Vec<u8>]| weight(place, matrices) & 0x7fff;
    let mut order = places.to_vec();
    // A stable sort: ties stay in the order of `places`.
    order.sort_by_key(|place| magnitude(*place, matrices));
    for (matrix, position) in order.into_iter().take(zeros) {
        // A weight that was zero before keeps its bits.
        if magnitude((matrix, position), matrices) != 0 {
            matrices[matrix][position * SIZE..][..SIZE].fill(0);
        }
    }
}

/// Sets of weights that an exact sparsity applies to, one by one.
fn sets(matrices: &[Expected], scope: Scope) -> Vec<Vec<Place>> {
    let all = |(index, matrix): (usize, &Expected)| -> Vec<Place> {
        (0..matrix.elements()).map(|position| (index, position)).collect()
    };
    match scope {
        Scope::Model => vec![matrices.iter().enumerate().flat_map(all).collect()],
        Scope::Tensor => matrices.iter().enumerate().map(all).collect(),
        Scope::Tile { block_size } => {
            let edge = block_size as usize;
            let mut tiles: BTreeMap<[usize; 3], Vec<Place>> = BTreeMap::new();
            for (index, matrix) in matrices.iter().enumerate() {
                for position in 0..matrix.elements() {
                    let (row, col) = (position / matrix.cols, position % matrix.cols);
                    tiles
                        .entry([index, row / edge, col / edge])
                        .or_default()
                        .push((index, position));
                }
            }
            tiles.into_values().collect()
        }
    }
}

/// Every matrix of the output is `expected`, and so are the counts that the audit gives for it.
fn assert_pruned(model: &Model, out: &Path, expected: &[Vec<u8>]) {
    let (before, after) = (model.matrices(), by_tensor(out));
    let audit = audit_of(out, Some(&model.dir));
    assert!(audit.denominator_correct, "{:#?}", audit.identities);
    assert_eq!(findings(&model.dir, out), [""; 0]);
    let mut all = before.iter().zip(expected);
    for (name, matrices) in &model.matrices {
        let target = audit.tensors.iter().find(|target| target.name == *name).unwrap();
        let audited = if matrices.len() > 1 { matrices.len() } else { 0 };
        assert_eq!(target.matrices.len(), audited, "{name}");
        let mut rest = &after[*name][..];
        for (index, (matrix, (_, expected))) in matrices.iter().zip(all.by_ref()).enumerate() {
            let context = format!("{}: {name} {matrix:?}", out.display());
            let (found, tail) = rest.split_at(expected.len());
            assert!(found == expected, "{context}");
            rest = tail;
            if let Some(of_audit) = target.matrices.get(index) {
                let zero = expected.chunks(SIZE).filter(|weight| is_zero(weight)).count() as u64;
                assert_eq!((&of_audit.map[..], of_audit.expert), (matrix.map, matrix.expert));
                assert_eq!((of_audit.elements, of_audit.zero), (matrix.elements() as u64, zero));
            }
        }
    }
}

fn is_zero(weight: &[u8]) -> bool {
    u16::from_le_bytes([weight[0], weight[1]]) & 0x7fff == 0
}

/// Prunes with an exact sparsity and with the magnitude flow, and compares with pruning each matrix by itself.
fn assert_matrices_are_pruned_alone(work: &Work, model: &Model) {
    let (shapes, before): (Vec<Expected>, Vec<Vec<u8>>) = model.matrices().into_iter().unzip();
    let name = model.dir.file_name().unwrap().to_str().unwrap();
    let tile = |block_size| Scope::Tile { block_size };
    for (index, scope) in [Scope::Tensor, Scope::Model, tile(6), tile(1024)].into_iter().enumerate()
    {
        for sparsity in ["0.3", "0.5"] {
            let share: Sparsity = sparsity.parse().unwrap();
            let mut expected = before.clone();
            for places in sets(&shapes, scope) {
                let zeros = share.count(places.len() as u64) as usize;
                zero_smallest(&mut expected, &places, zeros);
            }
            let out = work.path(&format!("{name}-{index}-{sparsity}"));
            prune(&model.dir, &out, exact(sparsity, scope), 2);
            assert_pruned(model, &out, &expected);
        }
    }
    let out = work.path(&format!("{name}-flow"));
    prune(&model.dir, &out, default_method(), 2);
    let alone = flow_of_each(work, name, &shapes, &before);
    assert_pruned(model, &out, &alone);
}

/// The same matrices as tensors of their own, pruned by the magnitude flow.
fn flow_of_each(work: &Work, name: &str, shapes: &[Expected], before: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let tensor = |(index, matrix): (usize, &Expected)| {
        let name = format!("model.layers.{index}.mlp.up_proj.weight");
        Tensor::new(name, Kind::Bf16, &[matrix.rows as u64, matrix.cols as u64])
    };
    let tensors: Vec<Tensor> = shapes.iter().enumerate().map(tensor).collect();
    let (model, out) =
        (work.path(&format!("{name}-split")), work.path(&format!("{name}-split-flow")));
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), "{}").unwrap();
    let file = [physarium_fixtures::header(&tensors), before.concat()].concat();
    fs::write(model.join("model.safetensors"), file).unwrap();
    prune(&model, &out, default_method(), 2);
    let pruned = by_tensor(&out);
    tensors.iter().map(|tensor| pruned[&tensor.name].clone()).collect()
}

/// Prunes to 2:4 and compares with pruning each row of each matrix by itself.
fn assert_rows_have_the_pattern(model: &Model) {
    let (shapes, mut expected): (Vec<Expected>, Vec<Vec<u8>>) =
        model.matrices().into_iter().unzip();
    for (index, matrix) in shapes.iter().enumerate() {
        for row in 0..matrix.rows {
            let places: Vec<Place> =
                (0..matrix.cols).map(|col| (index, row * matrix.cols + col)).collect();
            for group in places.chunks(4) {
                zero_smallest(&mut expected, group, group.len().saturating_sub(2));
            }
        }
    }
    let out = model.dir.with_extension("pattern");
    prune(&model.dir, &out, pattern("2:4"), 2);
    assert_pruned(model, &out, &expected);
}

#[test]
fn fused_projections_are_pruned_map_by_map() {
    let work = Work::new();
    let model = fused(&work);
    assert_matrices_are_pruned_alone(&work, &model);
    assert_rows_have_the_pattern(&model);
}

#[test]
fn stacked_experts_are_pruned_one_by_one() {
    let work = Work::new();
    let model = outputs_first(&work);
    assert_matrices_are_pruned_alone(&work, &model);
    assert_rows_have_the_pattern(&model);
}

#[test]
fn stacked_experts_with_inputs_first_are_pruned_one_by_one() {
    let work = Work::new();
    let model = inputs_first(&work);
    assert_matrices_are_pruned_alone(&work, &model);
    // A row of such an expert is not along its inputs.
    let refused = Surgery::plan(&model.dir, recipe(pattern("2:4")), Options::default());
    assert!(matches!(refused, Err(Error::Transposed { .. })), "{refused:?}");
}
