//! Deciding tiles: which of their weights die.

use physarium_checkpoint::{FlowRecipe, Sparsity};
use physarium_flow::{Census, Conductance, Counts, Cut, FlowParams, TileView, exact_cut};

use super::tiles::{Grid, Matrix, apply_band};

/// How one tile is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TileRule {
    /// What dies in the flow.
    Flow(FlowParams),
    /// This share of the tile.
    Exact(Sparsity),
}

impl TileRule {
    /// The rule of a flow recipe.
    ///
    /// # Errors
    /// A sentence, when a parameter is out of range.
    pub fn flow(recipe: FlowRecipe) -> Result<TileRule, String> {
        FlowParams::new(recipe.iterations, recipe.beta, recipe.inflow).map(TileRule::Flow)
    }
}

/// One worker's scratch: tiles are decided one after the other.
#[derive(Default)]
pub(crate) struct TileSolver {
    census: Census,
    conductance: Conductance,
    cuts: Vec<Cut>,
}

impl TileSolver {
    /// Decides one tile.
    pub fn decide(&mut self, tile: &TileView<'_>, rule: TileRule) -> Cut {
        let magnitudes = self.census.take(tile);
        match rule {
            TileRule::Flow(params) => {
                self.conductance.cut(magnitudes, |key| tile.format().magnitude(key), params)
            }
            TileRule::Exact(sparsity) => exact_cut(tile, magnitudes, sparsity.count(tile.len())),
        }
    }

    /// Decides and prunes whole bands, the first of which is `band`. Returns the counts and the
    /// number of tiles visited.
    pub fn prune_bands(
        &mut self,
        data: &mut [u8],
        grid: &Grid,
        band: u64,
        rule: TileRule,
    ) -> (Counts, u64) {
        let (mut counts, mut visited) = (Counts::default(), 0);
        let Matrix { format, cols, .. } = grid.matrix;
        let stride = grid.matrix.row_bytes() as usize;
        let mut rest = data;
        for band in band.. {
            if rest.is_empty() {
                break;
            }
            let rows = grid.band_rows(band);
            let n_rows = (rows.end - rows.start) as usize;
            let (data, tail) = rest.split_at_mut(n_rows * stride);
            let mut cuts = std::mem::take(&mut self.cuts);
            cuts.clear();
            for tile_column in 0..grid.tile_columns() {
                let tile_cols = grid.tile_cols(tile_column);
                let begin = tile_cols.start as usize * format.size_bytes();
                let n_cols = (tile_cols.end - tile_cols.start) as usize;
                let tile = TileView::new(&data[begin..], format, n_rows, n_cols, stride);
                cuts.push(self.decide(&tile, rule));
            }
            counts += apply_band(data, grid, rows.start * cols, &cuts);
            visited += cuts.len() as u64;
            self.cuts = cuts;
            rest = tail;
        }
        (counts, visited)
    }

    /// Scratch of one worker at most, in bytes, for the tiles of `grid`.
    pub fn scratch_bytes(grid: &Grid) -> u64 {
        let Matrix { format, rows, cols } = grid.matrix;
        let elements = grid.edge.min(rows) * grid.edge.min(cols);
        Census::scratch_bytes(format, elements) + Conductance::scratch_bytes(format, elements)
    }
}
