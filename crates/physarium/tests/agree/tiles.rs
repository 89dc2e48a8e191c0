//! Pruning a matrix equals pruning each of its tiles by itself.

use std::path::Path;

use physarium::checkpoint::{Dtype, Scope, Sparsity};
use physarium::flow::{
    Census, Conductance, Cut, FloatFormat, FlowParams, Magnitudes, TileView, apply_cut, exact_cut,
};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};

use super::{Work, audit_of, by_tensor, exact, findings, flow, prune, tensors};

/// How a tile is decided.
#[derive(Clone, Copy)]
enum Rule {
    Flow(FlowParams),
    Exact(Sparsity),
}

/// A matrix that is pruned tile by tile.
struct TiledMatrix<'a> {
    bytes: &'a [u8],
    format: FloatFormat,
    shape: [usize; 2],
    edge: usize,
}

impl TiledMatrix<'_> {
    /// The pruned matrix: each tile is copied out, decided, cut and put back.
    fn pruned(&self, rule: Rule) -> Vec<u8> {
        let (format, [rows, cols], edge) = (self.format, self.shape, self.edge);
        let size = format.size_bytes();
        let mut out = self.bytes.to_vec();
        let mut census = Census::default();
        for top in (0..rows).step_by(edge) {
            for left in (0..cols).step_by(edge) {
                let (n_rows, n_cols) = (edge.min(rows - top), edge.min(cols - left));
                let row = |row: usize| {
                    let begin = ((top + row) * cols + left) * size;
                    begin..begin + n_cols * size
                };
                let mut tile: Vec<u8> =
                    (0..n_rows).flat_map(|r| self.bytes[row(r)].to_vec()).collect();
                let view = TileView::new(&tile, format, [n_rows, n_cols], n_cols * size);
                let cut = rule.cut(&view, census.take(&view));
                apply_cut(&mut tile, format, cut, 0);
                for (r, weights) in tile.chunks(n_cols * size).enumerate() {
                    out[row(r)].copy_from_slice(weights);
                }
            }
        }
        out
    }
}

impl Rule {
    fn cut(self, tile: &TileView<'_>, magnitudes: &Magnitudes) -> Cut {
        match self {
            Rule::Flow(params) => {
                Conductance::default().cuts([magnitudes], tile.format(), params)[0]
            }
            Rule::Exact(sparsity) => exact_cut(tile, magnitudes, sparsity.count(tile.len())),
        }
    }
}

fn default_flow() -> Rule {
    let (beta, inflow) = (FlowParams::DEFAULT_BETA, FlowParams::DEFAULT_INFLOW);
    Rule::Flow(FlowParams::new(FlowParams::DEFAULT_ITERATIONS, beta, inflow).unwrap())
}

/// Every target of `out` is what [`TiledMatrix::pruned`] makes of it; nothing else differs.
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
        let bytes = &before[&target.name][..];
        let expected = TiledMatrix { bytes, format, shape, edge }.pruned(rule);
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
        let exact = exact("0.6", Scope::Tile { block_size: edge });
        let share = Rule::Exact("0.6".parse().unwrap());
        for (name, method, rule) in [("flow", flow(edge), default_flow()), ("exact", exact, share)]
        {
            // The flow prunes nothing in tiles of one weight, whose tube carries all of it.
            if edge > 1 || name == "exact" {
                let out = work.path(&format!("{name}-{edge}"));
                prune(&model, &out, method, 2);
                assert_tiled(&model, &out, edge as usize, rule);
            }
        }
    }
}

#[test]
fn tiles_of_wide_bands_are_solved_by_themselves() {
    // A band of 1024 x 16,500 BF16 weights has 33.8 MB, more than the 32 MiB of a piece.
    let work = Work::new();
    let tensors = [Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bf16, &[1030, 16_500])];
    let model = work.path("model");
    write_checkpoint(&model, &tensors, 1, Fill::Gaussian(9)).unwrap();
    let exact = exact("0.3", Scope::Tile { block_size: 1024 });
    let share = Rule::Exact("0.3".parse().unwrap());
    for (name, method, rule) in [("flow", flow(1024), default_flow()), ("exact", exact, share)] {
        let out = work.path(name);
        prune(&model, &out, method, 2);
        assert_tiled(&model, &out, 1024, rule);
        let tiles = audit_of(&out, None).tiles.unwrap();
        assert_eq!((tiles.expected, tiles.visited, tiles.elements), (34, 34, 1030 * 16_500));
    }
}
