//! Sums over the targets, and what is known of the other tensors.

use std::collections::BTreeMap;

use physarium_checkpoint::sorted_naturally;

use super::journal_checks::tiles_of;
use super::pairs::Mismatch;
use super::sources::Sources;
use crate::report::audit::{
    Base, Model, OfModel, Outside, Projection, Tensor, TileCoverage, Untouched,
};
use crate::report::share::Share;

impl Sources<'_> {
    /// Tensors that are not targets.
    pub fn untouched(&self, model: &Model) -> Untouched {
        let (mut tensors, mut elements) = (0, 0);
        let (mut differing, mut uncompared) = (Vec::new(), Vec::new());
        for (at, pair) in self.pairs.iter().enumerate() {
            let info = &pair.planned.input;
            if pair.planned.is_target() {
                continue;
            }
            if pair.mismatch.is_some() {
                uncompared.push(info.name.clone());
            } else if self.found.as_ref().is_some_and(|found| found[at].differs) {
                differing.push(info.name.clone());
            } else {
                tensors += 1;
                elements += info.elements;
            }
        }
        let (of_model, compared) = (model.share(elements), self.base == Base::Original);
        let [differing, uncompared] =
            [differing, uncompared].map(|names| sorted_naturally(names.into_iter(), |name| name));
        Untouched { tensors, elements, of_model, compared, differing, uncompared }
    }

    /// Weights of the tensors that are not targets.
    pub fn outside(&self, model: &Model) -> Option<Outside> {
        let (mut zero, mut pruned, mut already_zero) = (0, Some(0), Some(0));
        for (pair, found) in self.pairs.iter().zip(self.found.as_ref()?) {
            if pair.planned.is_target() {
                continue;
            }
            let tally = found.tally();
            zero += tally.zeros;
            let [newly, before] = match (self.base, &pair.mismatch) {
                (Base::None, _) => [None, None],
                // Only targets were processed, as the journal states.
                (Base::Journal, _) => [Some(0), Some(tally.zeros)],
                (Base::Original, None) => [Some(tally.pruned), Some(tally.zeros - tally.pruned)],
                (Base::Original, Some(Mismatch::NotInOriginal)) => [Some(0), Some(0)],
                (Base::Original, Some(Mismatch::Shape(_) | Mismatch::Dtype(_))) => [None, None],
            };
            pruned = pruned.zip(newly).map(|(sum, more)| sum + more);
            already_zero = already_zero.zip(before).map(|(sum, more)| sum + more);
        }
        let of_model = |elements| OfModel { elements, of_model: model.share(elements) };
        let [pruned, already_zero] = [pruned, already_zero].map(|count| count.map(of_model));
        Some(Outside { zero: of_model(zero), pruned, already_zero })
    }

    /// Pruned weights that the conversion to another element type makes zero; `None` if no target is converted.
    pub fn pruned_by_conversion(&self) -> Option<u64> {
        let found = self.found.as_ref()?;
        let targets = self.pairs.iter().zip(found).filter(|(pair, _)| pair.planned.is_target());
        let mut cast = targets.filter(|(pair, _)| pair.cast().is_some()).peekable();
        cast.peek()?;
        Some(cast.map(|(_, found)| found.tally().by_conversion).sum())
    }

    /// Tile coverage: tiles expected by the auditor's geometry, tiles visited by the journal.
    pub fn tiles(&self) -> Option<TileCoverage> {
        let block_size = self.journal.usable()?.run.recipe.needs().tile_edge?;
        let mut coverage = TileCoverage { block_size, expected: 0, visited: 0, elements: 0 };
        let mut recorded = false;
        for tensor in self.plan.targets() {
            coverage.expected += tiles_of(tensor, block_size);
            let done = self.processed(&tensor.input.name);
            if let Some((done, tiles)) = done.and_then(|done| Some((done, done.tiles?))) {
                recorded = true;
                coverage.visited += tiles.visited;
                coverage.elements += done.processed;
            }
        }
        recorded.then_some(coverage)
    }
}

/// The targets by projection, sorted by name.
pub(crate) fn projections(tensors: &[Tensor]) -> Vec<Projection> {
    let mut groups: BTreeMap<&str, Vec<&Tensor>> = BTreeMap::new();
    for tensor in tensors {
        groups.entry(&tensor.role).or_default().push(tensor);
    }
    let project = |(name, group): (&str, Vec<&Tensor>)| {
        let elements = group.iter().map(|tensor| tensor.elements).sum();
        let pruned: Option<u64> = group.iter().map(|tensor| tensor.pruned).sum();
        // Per matrix: the sparsity of a whole stack would hide an expert that is all zero.
        let all: Vec<f64> = group.iter().flat_map(|tensor| tensor.sparsities()).collect();
        Projection {
            projection: name.to_owned(),
            tensors: group.len() as u64,
            elements,
            pruned,
            of_projection: pruned.map(|pruned| Share::new(pruned, elements, name)),
            sparsity_min: all.iter().copied().fold(1.0, f64::min),
            sparsity_mean: all.iter().sum::<f64>() / all.len() as f64,
            sparsity_max: all.iter().copied().fold(0.0, f64::max),
        }
    };
    groups.into_iter().map(project).collect()
}
