//! Decides tiles: finds the cut below which weights are pruned.

use physarium_checkpoint::{FlowRecipe, Sparsity};
use physarium_flow::{Census, Conductance, Counts, Cut, FlowParams, TileView, exact_cut};

use super::tiles::{Grid, RowMajor, apply_band};

/// How one tile is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TileRule {
    /// The magnitude flow decides.
    Flow(FlowParams),
    /// The tile is pruned to this sparsity.
    Exact(Sparsity),
}

impl TileRule {
    /// The rule of a flow recipe.
    ///
    /// # Errors
    /// A sentence for a parameter out of range.
    pub fn flow(recipe: FlowRecipe) -> Result<TileRule, String> {
        FlowParams::new(recipe.iterations, recipe.beta, recipe.inflow).map(TileRule::Flow)
    }
}

/// Decides tiles, with the scratch of one worker.
#[derive(Default)]
pub(crate) struct TileSolver {
    census: [Census; Conductance::LANES],
    conductance: Conductance,
    cuts: Vec<Cut>,
}

impl TileSolver {
    /// Decides tiles of one matrix and appends their cuts to `cuts`.
    pub fn decide(&mut self, tiles: &[TileView<'_>], rule: TileRule, cuts: &mut Vec<Cut>) {
        let params = match rule {
            TileRule::Flow(params) => params,
            TileRule::Exact(sparsity) => {
                let census = &mut self.census[0];
                let exact = |tile: &TileView<'_>| {
                    exact_cut(tile, census.take(tile), sparsity.count(tile.len()))
                };
                return cuts.extend(tiles.iter().map(exact));
            }
        };
        let [first, second] = &mut self.census;
        let (pairs, rest) = tiles.as_chunks::<{ Conductance::LANES }>();
        for [a, b] in pairs {
            let magnitudes = [first.take(a), second.take(b)];
            cuts.extend(self.conductance.cuts(magnitudes, a.format(), params));
        }
        for tile in rest {
            cuts.extend(self.conductance.cuts([first.take(tile)], tile.format(), params));
        }
    }

    /// Decides and prunes whole bands, the first of which is `band`. Returns the counts and the number of tiles.
    pub fn prune_bands(
        &mut self,
        data: &mut [u8],
        grid: &Grid,
        band: u64,
        rule: TileRule,
    ) -> (Counts, u64) {
        let (mut counts, mut visited) = (Counts::default(), 0);
        let RowMajor { format, cols, .. } = grid.matrix;
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
            let view = |tile_column| {
                let tile_cols = grid.tile_cols(tile_column);
                let begin = tile_cols.start as usize * format.size_bytes();
                let n_cols = (tile_cols.end - tile_cols.start) as usize;
                TileView::new(&data[begin..], format, [n_rows, n_cols], stride)
            };
            let tiles: Vec<TileView<'_>> = (0..grid.tile_columns()).map(view).collect();
            self.decide(&tiles, rule, &mut cuts);
            drop(tiles);
            counts += apply_band(data, grid, rows.start * cols, &cuts);
            visited += cuts.len() as u64;
            self.cuts = cuts;
            rest = tail;
        }
        (counts, visited)
    }

    /// Most bytes of scratch of one worker for the tiles of `grid`.
    pub fn scratch_bytes(grid: &Grid) -> u64 {
        let RowMajor { format, rows, cols } = grid.matrix;
        let elements = grid.edge.min(rows) * grid.edge.min(cols);
        let censuses = Conductance::LANES as u64 * Census::scratch_bytes(format, elements);
        censuses + Conductance::scratch_bytes(format, elements)
    }
}
