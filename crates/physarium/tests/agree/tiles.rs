//! A pruned matrix is what solving it tile by tile gives.

use std::path::Path;

use physarium::checkpoint::{Dtype, Method, Scope, Sparsity};
use physarium::flow::{
    Census, Conductance, FloatFormat, FlowParams, TileView, apply_cut, exact_cut,
};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};

use super::{Work, audit_of, by_tensor, findings, flow, prune, tensors};

/// How a tile is decided in [`tile_by_tile`].
#[derive(Clone, Copy)]
enum Rule {
    Flow(FlowParams),
    Exact(Sparsity),
}

/// What pruning a matrix tile by tile gives: each is copied out, decided, cut and put back.
fn tile_by_tile(
    bytes: &[u8],
    format: FloatFormat,
    [rows, cols]: [usize; 2],
    edge: usize,
    rule: Rule,
) -> Vec<u8> {
    let size = format.size_bytes();
    let mut out = bytes.to_vec();
    let (mut census, mut conductance) = (Census::default(), Conductance::default());
    for top in (0..rows).step_by(edge) {
        for left in (0..cols).step_by(edge) {
            let (n_rows, n_cols) = (edge.min(rows - top), edge.min(cols - left));
            let row = |row: usize| {
                let begin = ((top + row) * cols + left) * size;
                begin..begin + n_cols * size
            };
            let mut tile: Vec<u8> = (0..n_rows).flat_map(|r| bytes[row(r)].to_vec()).collect();
            let view = TileView::new(&tile, format, [n_rows, n_cols], n_cols * size);
            let cut = match rule {
                Rule::Flow(params) => conductance.cuts([census.take(&view)], format, params)[0],
                Rule::Exact(share) => exact_cut(&view, census.take(&view), share.count(view.len())),
            };
            apply_cut(&mut tile, format, cut, 0);
            for (r, weights) in tile.chunks(n_cols * size).enumerate() {
                out[row(r)].copy_from_slice(weights);
            }
        }
    }
    out
}

fn default_flow() -> Rule {
    let (beta, inflow) = (FlowParams::DEFAULT_BETA, FlowParams::DEFAULT_INFLOW);
    Rule::Flow(FlowParams::new(FlowParams::DEFAULT_ITERATIONS, beta, inflow).unwrap())
}

fn exact_tiles(sparsity: &str, block_size: u64) -> (Method, Rule) {
    let sparsity = sparsity.parse().unwrap();
    (Method::Exact { sparsity, scope: Scope::Tile { block_size } }, Rule::Exact(sparsity))
}

/// Every target of `out` is what [`tile_by_tile`] makes of it; nothing else differs.
fn assert_tiled(model: &Path, out: &Path, edge: usize, rule: Rule) {
    let (before, after) = (by_tensor(model), by_tensor(out));
    let targets = audit_of(out, Some(model)).tensors;
    for target in &targets {
        let format = match target.dtype {
            Dtype::BF16 => FloatFormat::Bf16,
            Dtype::F16 => FloatFormat::F16,
            _ => FloatFormat::F32,
        };
        let shape = [target.shape[0] as usize, target.shape[1] as usize];
        let expected = tile_by_tile(&before[&target.name], format, shape, edge, rule);
        assert!(after[&target.name] == expected, "{} in tiles of {edge}", target.name);
        assert!(after[&target.name] != before[&target.name]);
    }
    assert_eq!(findings(model, out), [""; 0]);
}

#[test]
fn every_tile_is_solved_by_itself() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    for edge in [1, 7, 24, 256] {
        let (exact, share) = exact_tiles("0.6", edge);
        for (name, method, rule) in [("flow", flow(edge), default_flow()), ("exact", exact, share)]
        {
            // A tube alone carries all: nothing dies in tiles of one.
            if edge > 1 || name == "exact" {
                let out = work.path(&format!("{name}-{edge}"));
                prune(&model, &out, method, 2);
                assert_tiled(&model, &out, edge as usize, rule);
            }
        }
    }
}

#[test]
fn wide_bands_are_solved_tile_by_tile_too() {
    // 1024 x 16,500 BF16 is a band of 33.8 MB, over the 32 MiB that are held at once.
    let work = Work::new();
    let tensors = [Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bf16, &[1030, 16_500])];
    let model = work.path("model");
    write_checkpoint(&model, &tensors, 1, Fill::Gaussian(9)).unwrap();
    let (exact, share) = exact_tiles("0.3", 1024);
    for (name, method, rule) in [("flow", flow(1024), default_flow()), ("exact", exact, share)] {
        let out = work.path(name);
        prune(&model, &out, method, 2);
        assert_tiled(&model, &out, 1024, rule);
        let tiles = audit_of(&out, None).tiles.unwrap();
        assert_eq!((tiles.expected, tiles.visited, tiles.elements), (34, 34, 1030 * 16_500));
    }
}
