//! Counts of each target and of its matrices.

use physarium_checkpoint::{MatrixView, sorted_naturally};

use super::journal_checks::matrix_records;
use super::pairs::Pair;
use super::recount::Found;
use super::sources::{Sources, Stated};
use crate::report::audit::{Base, Matrix, Tensor};
use crate::tiles::TileMap;

impl Sources<'_> {
    /// The targets, in the natural order of their names.
    pub fn tensors(&self) -> Vec<Tensor> {
        let targets = self.pairs.iter().enumerate().filter(|(_, pair)| pair.planned.is_target());
        let found = |at: usize| self.found.as_ref().map(|found| &found[at]);
        let tensors = targets.map(|(at, pair)| self.tensor(pair, found(at)));
        sorted_naturally(tensors, |tensor| &tensor.name)
    }

    fn tensor(&self, pair: &Pair<'_>, found: Option<&Found>) -> Tensor {
        let (info, named) = (&pair.planned.input, pair.planned.projection());
        let counted = found.map(Found::tally);
        let done = self.processed(&info.name);
        let stated = done.map(|done| {
            let (pruned, already_zero) = (done.pruned, done.already_zero);
            Stated { pruned, already_zero }
        });
        let zeros = self.zeros(pair, counted, stated);
        let compared = self.base == Base::Original && pair.mismatch.is_none();
        Tensor {
            name: info.name.clone(),
            role: named.projection.clone(),
            layer: named.site.layer,
            dtype: info.dtype,
            shape: info.shape.clone(),
            elements: info.elements,
            processed: self.processed_elements(pair, found),
            zero: zeros.zero,
            pruned: zeros.pruned,
            already_zero: zeros.already_zero,
            no_longer_zero: zeros.revived,
            sign_bit_zero: counted.map(|counted| counted.sign_bit_zeros),
            changed: counted.filter(|_| compared).map(|counted| counted.changed),
            output_error: done.and_then(|done| done.output_error),
            error_before_update: done.and_then(|done| done.error_before_update),
            tile_map: match &pair.planned.views[..] {
                [_] => found.and_then(|found| self.tile_map(pair, found, 0)),
                _ => None,
            },
            matrices: self.matrices(pair, found),
        }
    }

    /// The zeros of the tiles of a matrix; `None` for one without elements.
    fn tile_map(&self, pair: &Pair<'_>, found: &Found, matrix: usize) -> Option<TileMap> {
        let view = &pair.planned.views[matrix];
        let map = || TileMap::new([view.rows, view.cols], self.edge, &found.tiles[matrix]);
        (view.elements() > 0).then(map)
    }

    /// Processed elements of a target: as the journal states, or else all of them if it differs from the
    /// original; unknown if it cannot be compared.
    fn processed_elements(&self, pair: &Pair<'_>, found: Option<&Found>) -> Option<u64> {
        let info = &pair.planned.input;
        match (self.journal.usable(), self.base) {
            (Some(_), _) => Some(self.processed(&info.name).map_or(0, |done| done.processed)),
            (None, Base::Original) => {
                let compared = found.filter(|_| pair.mismatch.is_none())?;
                Some(if compared.differs { info.elements } else { 0 })
            }
            (None, Base::Journal | Base::None) => None,
        }
    }

    /// The matrices of a target that has several; empty if nothing is known about single matrices.
    fn matrices(&self, pair: &Pair<'_>, found: Option<&Found>) -> Vec<Matrix> {
        let (planned, views) = (pair.planned, &pair.planned.views);
        let done = self.processed(&planned.input.name);
        let records = done.and_then(|done| matrix_records(done, planned));
        if views.len() == 1 || (found.is_none() && records.is_none()) {
            return Vec::new();
        }
        let matrix = |(at, view): (usize, &MatrixView)| {
            let stated = records.map(|records| {
                let (pruned, already_zero) = (records[at].pruned, records[at].already_zero);
                Stated { pruned, already_zero }
            });
            let zeros = self.zeros(pair, found.map(|found| found.matrices[at]), stated);
            Matrix {
                map: view.site.map.name().to_owned(),
                expert: view.site.expert,
                elements: view.elements(),
                zero: zeros.zero,
                pruned: zeros.pruned,
                tile_map: found.and_then(|found| self.tile_map(pair, found, at)),
            }
        };
        views.iter().enumerate().map(matrix).collect()
    }
}
