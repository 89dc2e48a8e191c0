//! Equations between the numbers of an audit: headers, weights and journal against each other.

use std::collections::HashMap;

use physarium_checkpoint::journal::{Journal, Processed, Totals};

use super::journal_checks::agrees;
use super::sources::{JournalClaim, Sources};
use crate::report::audit::{Audit, Projection, Tensor};
use crate::report::identity::Identity;
use crate::request::bounds::{Request, Weights, Where};

impl Sources<'_> {
    /// All equations between the numbers of `audit`.
    pub fn identities(&self, audit: &Audit) -> Vec<Identity> {
        let mut all = count_identities(audit);
        match self.journal {
            JournalClaim::Absent => {}
            JournalClaim::Unusable(_) => all.push(Identity::new("journal is usable", 0, 1)),
            JournalClaim::Usable(journal) => {
                all.extend(self.record_identities(journal, audit));
                all.push(totals_identity(journal));
                all.extend(tile_identities(audit));
                all.extend(self.request_identity(journal, audit));
                if self.found.is_some() {
                    all.extend(self.recount_identities(journal, audit));
                }
            }
        }
        all
    }

    /// The journal's records against headers and plan.
    fn record_identities(&self, journal: &Journal, audit: &Audit) -> [Identity; 4] {
        let sums = Totals::of(&journal.tensors);
        let skipped = journal.tensors.iter().filter(|record| record.processed().is_none());
        let skipped: u64 = skipped.map(|record| record.elements).sum();
        let mut times: HashMap<&str, u64> = HashMap::new();
        for record in &journal.tensors {
            *times.entry(&record.name).or_default() += 1;
        }
        let recorded_once = times.values().filter(|&&n| n == 1).count() as u64;
        let tile_edge = journal.run.recipe.needs().tile_edge;
        let consistent = self.plan.tensors.iter().filter(|tensor| {
            let record = self.records.get(tensor.input.name.as_str());
            record.is_some_and(|record| agrees(record, tensor, tile_edge))
        });
        [
            Identity::new(
                "journal: processed + skipped elements = model elements",
                sums.processed + skipped,
                audit.model.elements,
            ),
            Identity::new(
                "journal: tensors recorded exactly once = model tensors",
                recorded_once,
                audit.model.tensors,
            ),
            Identity::new(
                "journal: records consistent with headers and plan = model tensors",
                consistent.count() as u64,
                audit.model.tensors,
            ),
            Identity::new(
                "journal: processed elements = target elements",
                sums.processed,
                audit.target.elements,
            ),
        ]
    }

    /// The zeros of each target, or of all together, against what the journal's recipe requests; `None` if its
    /// sparsity is not fixed in advance. `verify` looks at each tile and group.
    fn request_identity(&self, journal: &Journal, audit: &Audit) -> Option<Identity> {
        let request = Request::of(&journal.run.recipe)?;
        let weights: HashMap<&str, Weights> = audit
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), self.weights(tensor)))
            .collect();
        if let Where::Model(sparsity) = request.place {
            let mut all = Weights::default();
            weights.values().for_each(|weights| all += *weights);
            let missed = request.check(sparsity.count(all.elements), all);
            let says = "all targets have the zeros that the recipe requests";
            return Some(Identity::new(says, u64::from(missed.is_none()), 1));
        }
        let as_requested = self.plan.targets().filter(|target| {
            let wanted = target.views.iter().map(|view| request.of_matrix(view)).sum();
            let weights = weights.get(target.input.name.as_str());
            weights.is_some_and(|weights| request.check_sum(wanted, *weights).is_none())
        });
        let says = "targets with the zeros that the recipe requests = targets";
        Some(Identity::new(says, as_requested.count() as u64, audit.target.tensors))
    }

    fn weights(&self, tensor: &Tensor) -> Weights {
        let revived = tensor.no_longer_zero.unwrap_or(0);
        Weights {
            elements: tensor.elements,
            zeros: tensor.zero,
            zeros_before: tensor.already_zero.unwrap_or(0).saturating_add(revived),
            non_finite: self.processed(&tensor.name).map_or(0, |done| done.non_finite),
        }
    }

    /// The journal's counts against the recount.
    fn recount_identities(&self, journal: &Journal, audit: &Audit) -> Vec<Identity> {
        let equal = |tensor: &&Tensor| counts_equal(tensor, self.processed(&tensor.name));
        let equal = audit.tensors.iter().filter(equal).count() as u64;
        let says = "targets whose recount equals the journal = targets";
        let mut all = vec![Identity::new(says, equal, audit.target.tensors)];
        if let Some(changed) = &audit.changed {
            // Only methods that refit record such weights.
            let refitted = Totals::of(&journal.tensors).refitted;
            let says = match refitted {
                0 => "changed otherwise = 0",
                _ => "changed otherwise = refitted by the journal",
            };
            all.push(Identity::new(says, changed.elements, refitted));
            let differing = audit.untouched.differing.len() as u64;
            all.push(Identity::new("tensors that differ but are not targets = 0", differing, 0));
        }
        all
    }
}

/// The counts against each other.
fn count_identities(audit: &Audit) -> Vec<Identity> {
    let skipped: u64 = audit.skipped.iter().map(|tensor| tensor.elements).sum();
    let by_projection =
        |field: fn(&Projection) -> u64| audit.projections.iter().map(field).sum::<u64>();
    let mut all = vec![
        Identity::new(
            "target + skipped elements = model elements",
            audit.target.elements + skipped,
            audit.model.elements,
        ),
        Identity::new(
            "elements by projection = target elements",
            by_projection(|p| p.elements),
            audit.target.elements,
        ),
    ];
    if let Some(pruned) = &audit.pruned {
        let sum = by_projection(|p| p.pruned.unwrap_or(0));
        all.push(Identity::new("pruned by projection = pruned", sum, pruned.elements));
    }
    if let (Some(pruned), Some(before)) = (&audit.pruned, &audit.zero_before) {
        let revived = audit.no_longer_zero.as_ref().map_or(0, |revived| revived.elements);
        let says = match revived {
            0 => "zero now = pruned + zero before",
            _ => "zero now = pruned + zero before - no longer zero",
        };
        let sum = pruned.elements.saturating_add(before.elements).saturating_sub(revived);
        all.push(Identity::new(says, audit.zero.elements, sum));
    }
    all
}

/// The journal's totals against its records.
fn totals_identity(journal: &Journal) -> Identity {
    let says = "journal: totals equal the sums of its records";
    match journal.totals {
        Some(totals) => {
            let equal = u64::from(totals == Totals::of(&journal.tensors));
            Identity::new(says, equal, 1)
        }
        None => Identity::new("journal: has a totals record", 0, 1),
    }
}

/// Tiles by the journal against tiles by the shapes.
fn tile_identities(audit: &Audit) -> Vec<Identity> {
    let Some(tiles) = audit.tiles else { return Vec::new() };
    let target = audit.target.elements;
    vec![
        Identity::new("tiles visited = tiles expected", tiles.visited, tiles.expected),
        Identity::new("weights in visited tiles = target elements", tiles.elements, target),
    ]
}

/// Whether the recount of a target and of each of its matrices equals what the journal states.
fn counts_equal(tensor: &Tensor, done: Option<&Processed>) -> bool {
    let equal = |[zero, pruned]: [u64; 2], counted_zero: u64, counted_pruned: Option<u64>| {
        zero == counted_zero && counted_pruned.is_none_or(|counted| counted == pruned)
    };
    let Some(done) = done else { return equal([0, 0], tensor.zero, tensor.pruned) };
    let matrices = tensor.matrices.iter().zip(&done.matrices);
    equal([done.pruned + done.already_zero, done.pruned], tensor.zero, tensor.pruned)
        && tensor.changed.is_none_or(|counted| counted == done.refitted)
        && matrices.into_iter().all(|(matrix, stated)| {
            let zero = stated.pruned + stated.already_zero;
            equal([zero, stated.pruned], matrix.zero, matrix.pruned)
        })
}
