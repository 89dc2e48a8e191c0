//! A matrix by magnitudes alone: the same cuts as the engine's, without its pieces.

use physarium_checkpoint::{Amount, Criterion, NmPattern, Recipe, Scope, Sparsity};
use physarium_flow::{Census, TileView, exact_cut};
use physarium_model::Compute;

use super::request::MatrixRequest;
use crate::engine::{Grid, TileRule, TileSolver, Treatment};
use crate::error::{Error, Result};

/// Prunes the matrix; meaningless once `compute` is stopped.
pub(super) fn prune(
    request: &MatrixRequest<'_>,
    recipe: &Recipe,
    compute: &Compute,
) -> Result<Vec<f32>> {
    match (recipe.method.criterion(), recipe.method.amount()) {
        (Criterion::MagnitudeFlow { block_size, flow }, _) => {
            let rule = TileRule::flow(flow).map_err(Error::Usage)?;
            Ok(in_tiles(request, block_size, rule, compute))
        }
        (_, Amount::Sparsity { sparsity, scope: Scope::Tile { block_size } }) => {
            Ok(in_tiles(request, block_size, TileRule::Exact(sparsity), compute))
        }
        (_, Amount::Sparsity { sparsity, .. }) => Ok(whole(request, sparsity)),
        (_, Amount::Pattern(pattern)) => Ok(in_groups(request, pattern, compute)),
        (criterion, amount) => unreachable!("{} with {amount} uses weights", criterion.name()),
    }
}

/// Decides each tile by itself.
fn in_tiles(request: &MatrixRequest<'_>, edge: u64, rule: TileRule, compute: &Compute) -> Vec<f32> {
    let grid = Grid { matrix: request.layout(), edge };
    let band = (grid.band_bytes() / grid.matrix.element_bytes()) as usize;
    by_parts(request, band, compute, |band| Treatment::DecideBands { grid, rule, band })
}

/// Prunes each group of consecutive inputs to a pattern.
fn in_groups(request: &MatrixRequest<'_>, pattern: NmPattern, compute: &Compute) -> Vec<f32> {
    let (matrix, [_, cols]) = (request.layout(), request.shape);
    let row = |row: u64| Treatment::Pattern { matrix, pattern, first: row * matrix.cols };
    by_parts(request, cols, compute, row)
}

/// Treats runs of `len` weights, on all threads.
fn by_parts(
    request: &MatrixRequest<'_>,
    len: usize,
    compute: &Compute,
    treatment: impl Fn(u64) -> Treatment + Sync + Send,
) -> Vec<f32> {
    let mut weights = request.weights.to_vec();
    compute.each_chunk(&mut weights, len, |part, weights| {
        treat(&treatment(part as u64), weights);
    });
    weights
}

/// Prunes the matrix by one cut.
fn whole(request: &MatrixRequest<'_>, sparsity: Sparsity) -> Vec<f32> {
    let (matrix, mut weights) = (request.layout(), request.weights.to_vec());
    let bytes = bytemuck::cast_slice(&weights);
    let stride = matrix.row_bytes() as usize;
    let (mut census, view) =
        (Census::default(), TileView::new(bytes, matrix.format, request.shape, stride));
    let cut = exact_cut(&view, census.take(&view), sparsity.count(request.elements()));
    treat(&Treatment::ApplyCut { matrix, cut, first: 0 }, &mut weights);
    weights
}

fn treat(treatment: &Treatment, weights: &mut [f32]) {
    let done = treatment.run(bytemuck::cast_slice_mut(weights), &mut TileSolver::default());
    done.expect("only solved weights are read from a file");
}
