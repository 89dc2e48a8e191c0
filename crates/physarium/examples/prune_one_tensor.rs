//! Prunes one projection of a checkpoint in memory with the magnitude flow, and prints what was pruned in each tile:
//! `cargo run --example prune_one_tensor -- demo/model model.layers.0.mlp.up_proj.weight`.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use physarium::checkpoint::{Checkpoint, Dtype};
use physarium::flow::{
    Census, Conductance, Counts, Cut, FloatFormat, FlowParams, TileView, apply_cut,
};

/// Side length of a tile.
const EDGE: usize = 256;

/// A projection in memory.
struct Projection {
    bytes: Vec<u8>,
    format: FloatFormat,
    rows: usize,
    cols: usize,
}

impl Projection {
    fn read(model: &Path, name: &str) -> Result<Projection, Box<dyn Error>> {
        let checkpoint = Checkpoint::open(model)?;
        let (shard, tensor) = checkpoint
            .tensors()
            .find(|(_, tensor)| tensor.name == name)
            .ok_or_else(|| format!("{name}: not found in {}", model.display()))?;
        let format = match tensor.dtype {
            Dtype::BF16 => FloatFormat::Bf16,
            Dtype::F16 => FloatFormat::F16,
            Dtype::F32 => FloatFormat::F32,
            other => return Err(format!("{name}: dtype {other} cannot be pruned").into()),
        };
        let [rows, cols] = tensor.shape[..] else {
            return Err(format!("{name}: {}-D, expected 2-D", tensor.shape.len()).into());
        };
        let mut bytes = vec![0; tensor.size_bytes() as usize];
        shard.reopen()?.read_exact_at(&mut bytes, tensor.begin)?;
        Ok(Projection { bytes, format, rows: rows as usize, cols: cols as usize })
    }

    /// The byte at which a weight begins.
    fn at(&self, row: usize, col: usize) -> usize {
        (row * self.cols + col) * self.format.size_bytes()
    }

    /// A tile by its first row and column, and its shape.
    fn tile(&self, [top, left]: [usize; 2]) -> TileView<'_> {
        let shape = [EDGE.min(self.rows - top), EDGE.min(self.cols - left)];
        TileView::new(&self.bytes[self.at(top, left)..], self.format, shape, self.at(1, 0))
    }

    /// Applies a tile's cut to the tile, row by row.
    fn prune(&mut self, [top, left]: [usize; 2], cut: Cut) -> Counts {
        let (bottom, right) = ((top + EDGE).min(self.rows), (left + EDGE).min(self.cols));
        let mut counts = Counts::default();
        for row in top..bottom {
            let (begin, end) = (self.at(row, left), self.at(row, right));
            let position_in_tile = (row - top) * (right - left);
            let weights = &mut self.bytes[begin..end];
            counts += apply_cut(weights, self.format, cut, position_in_tile as u64);
        }
        counts
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: prune_one_tensor MODEL TENSOR".into());
    };
    let mut projection = Projection::read(Path::new(&model), &name)?;
    let iterations = FlowParams::DEFAULT_ITERATIONS;
    let params = FlowParams::new(iterations, FlowParams::DEFAULT_BETA, FlowParams::DEFAULT_INFLOW)?;
    let (mut census, mut conductance) = (Census::default(), Conductance::default());
    let mut out = std::io::stdout().lock();
    let mut pruned = 0;
    for top in (0..projection.rows).step_by(EDGE) {
        for left in (0..projection.cols).step_by(EDGE) {
            let tile = projection.tile([top, left]);
            let (weights, magnitudes) = (tile.len(), census.take(&tile));
            let [cut] = conductance.cuts([magnitudes], projection.format, params);
            let counts = projection.prune([top, left], cut);
            pruned += counts.pruned;
            writeln!(
                out,
                "tile at row {top}, column {left}: pruned {} of {weights} weights, all below {:.6}",
                counts.pruned,
                projection.format.magnitude(cut.below),
            )?;
        }
    }
    let (rows, cols) = (projection.rows, projection.cols);
    writeln!(out, "{name} [{rows}, {cols}]: pruned {pruned} of {} weights", rows * cols)?;
    Ok(())
}
