//! Counting: what was found in the bytes and what the journal says, as the numbers of one report.

use std::collections::{BTreeMap, HashMap};

use physarium_checkpoint::journal::{Journal, Processed, TensorRecord, Totals};
use physarium_checkpoint::{Action, MatrixView, PlannedTensor, TargetPlan};

use crate::compare::Tally;
use crate::identity::Identity;
use crate::journal_checks::{JOURNAL_UNREADABLE, agrees, tiles_of};
use crate::recount::{Found, Pair};
use crate::report::{
    Audit, Base, Basis, Changed, Counted, Matrix, Model, Projection, Pruned, SCHEMA, Skipped,
    Target, Tensor, TileCoverage, Untouched,
};
use crate::share::Share;

/// Everything that the report is made of.
pub(crate) struct Count<'a> {
    pub plan: &'a TargetPlan,
    pub pairs: &'a [Pair<'a>],
    /// By pair; absent when no weight was read.
    pub found: Option<Vec<Found>>,
    pub journal: Option<&'a Journal>,
    pub base: Base,
}

impl Count<'_> {
    pub fn report(&self, warnings: Vec<String>) -> Audit {
        let records = self.records();
        let tensors: Vec<Tensor> = self
            .pairs
            .iter()
            .enumerate()
            .filter(|(_, pair)| pair.planned.is_target())
            .map(|(i, pair)| self.tensor(i, pair, records.get(pair.planned.input.name.as_str())))
            .collect();
        let skipped = self.plan.tensors.iter().filter_map(skipped).collect::<Vec<_>>();
        let model =
            Model { tensors: self.plan.tensors.len() as u64, elements: self.plan.model_elements() };
        let target_elements = self.plan.target_elements();
        let target = Target {
            tensors: tensors.len() as u64,
            elements: target_elements,
            of_model: Share::new(target_elements, model.elements, "model"),
        };
        let among_targets = |elements: u64| Changed {
            elements,
            of_target: Share::new(elements, target.elements, "target"),
        };
        let sum =
            |field: fn(&Tensor) -> Option<u64>| -> Option<u64> { tensors.iter().map(field).sum() };
        let of_both = |elements: u64| {
            let of_target = Share::new(elements, target.elements, "target");
            (of_target, Share::new(elements, model.elements, "model"))
        };
        let processed = sum(|t| t.processed).map(|elements| {
            let (of_target, of_model) = of_both(elements);
            let visited = tensors.iter().filter(|t| t.processed.is_some_and(|n| n > 0));
            Counted { tensors: visited.count() as u64, elements, of_target, of_model }
        });
        let pruned = sum(|t| t.pruned).map(|elements| {
            let (of_target, of_model) = of_both(elements);
            Pruned { elements, of_target, of_model }
        });
        let mut audit = Audit {
            schema: SCHEMA.to_owned(),
            basis: if self.found.is_some() { Basis::Bytes } else { Basis::Journal },
            base: self.base,
            denominator_correct: false,
            identities: Vec::new(),
            zero: among_targets(tensors.iter().map(|t| t.zero).sum()),
            already_zero: sum(|t| t.already_zero).map(among_targets),
            sign_bit_zero: sum(|t| t.sign_bit_zero).map(among_targets),
            changed: sum(|t| t.changed).map(among_targets),
            untouched: self.untouched(&model),
            tiles: self.tiles(&records),
            projections: projections(&tensors),
            model,
            target,
            processed,
            pruned,
            tensors,
            skipped,
            warnings,
            claims: Vec::new(),
        };
        audit.identities = self.identities(&audit, &records);
        audit.denominator_correct = audit.identities.iter().all(|identity| identity.holds);
        audit
    }

    fn records(&self) -> HashMap<&str, &TensorRecord> {
        let records = self.journal.into_iter().flat_map(|journal| &journal.tensors);
        records.map(|record| (record.name.as_str(), record)).collect()
    }

    fn tensor(&self, at: usize, pair: &Pair<'_>, record: Option<&&TensorRecord>) -> Tensor {
        let (info, named) = (&pair.planned.input, pair.planned.projection());
        let done = record.and_then(|record| record.processed());
        let found = self.found.as_ref().map(|found| &found[at]);
        let tally = found.map(Found::tally);
        let compared = self.base == Base::Original && pair.mismatch.is_none();
        let stated = done.map(|done| Stated { pruned: done.pruned, zero: done.already_zero });
        let counts = self.counts(tally, stated, compared);
        let visited = match (self.journal, self.base) {
            (Some(_), _) => Some(done.map_or(0, |done| done.processed)),
            // Without a journal, what differs from the original has been processed.
            (None, Base::Original) => {
                let differs = found.is_some_and(|found| found.differs) || pair.mismatch.is_some();
                Some(if differs { info.elements } else { 0 })
            }
            (None, _) => None,
        };
        Tensor {
            name: info.name.clone(),
            role: named.projection.clone(),
            layer: named.site.layer,
            dtype: info.dtype,
            shape: info.shape.clone(),
            elements: info.elements,
            processed: visited,
            zero: counts.zero,
            pruned: counts.pruned(),
            already_zero: counts.already_zero,
            sign_bit_zero: tally.map(|tally| tally.sign_bit_zeros),
            changed: tally.filter(|_| compared).map(|tally| tally.changed),
            matrices: self.matrices(found, pair, done),
        }
    }

    /// Zeros by what the bytes say, or else the journal.
    fn counts(&self, tally: Option<Tally>, stated: Option<Stated>, compared: bool) -> Zeros {
        let zero = match (tally, stated) {
            (Some(tally), _) => tally.zeros,
            (None, stated) => stated.map_or(0, |stated| stated.pruned + stated.zero),
        };
        let already_zero = match self.base {
            Base::Original if compared => tally.map(|tally| tally.zeros - tally.pruned),
            Base::Journal => Some(stated.map_or(0, |stated| stated.zero)),
            Base::Original | Base::None => None,
        };
        Zeros { zero, already_zero }
    }

    /// The matrices of a tensor that has several; none where nothing is known of them one by one.
    fn matrices(
        &self,
        found: Option<&Found>,
        pair: &Pair<'_>,
        done: Option<&Processed>,
    ) -> Vec<Matrix> {
        let views = &pair.planned.views;
        let records = done.map_or(&[][..], |done| &done.matrices);
        let by_record = records.len() == views.len();
        if views.len() == 1 || (found.is_none() && !by_record) {
            return Vec::new();
        }
        let compared = self.base == Base::Original && pair.mismatch.is_none();
        let matrix = |(at, view): (usize, &MatrixView)| {
            let tally = found.map(|found| found.matrices[at]);
            let record = by_record.then(|| &records[at]);
            let stated = record.map(|r| Stated { pruned: r.pruned, zero: r.already_zero });
            let counts = self.counts(tally, stated, compared);
            // A journal without records of matrices tells nothing of what was zero before in one of them.
            let known = by_record || self.base == Base::Original;
            Matrix {
                map: view.site.map.name().to_owned(),
                expert: view.site.expert,
                elements: view.elements(),
                zero: counts.zero,
                pruned: counts.pruned().filter(|_| known),
            }
        };
        views.iter().enumerate().map(matrix).collect()
    }

    fn untouched(&self, model: &Model) -> Untouched {
        let (mut tensors, mut elements, mut differing) = (0, 0, Vec::new());
        for (i, pair) in self.pairs.iter().enumerate() {
            if pair.planned.is_target() {
                continue;
            }
            let differs = self.found.as_ref().is_some_and(|found| found[i].differs);
            if differs || pair.mismatch.is_some() {
                differing.push(pair.planned.input.name.clone());
            } else {
                tensors += 1;
                elements += pair.planned.input.elements;
            }
        }
        let of_model = Share::new(elements, model.elements, "model");
        let compared = self.base == Base::Original;
        Untouched { tensors, elements, of_model, compared, differing }
    }

    /// Tile coverage: the expected number by the auditor's own geometry, the visited by the journal.
    fn tiles(&self, records: &HashMap<&str, &TensorRecord>) -> Option<TileCoverage> {
        let block_size = self.journal?.run.recipe.needs().tile_edge?;
        let mut coverage = TileCoverage { block_size, expected: 0, visited: 0, elements: 0 };
        let mut known = false;
        for tensor in self.plan.targets() {
            coverage.expected += tiles_of(tensor, block_size);
            let done =
                records.get(tensor.input.name.as_str()).and_then(|record| record.processed());
            if let Some((done, tiles)) = done.and_then(|done| Some((done, done.tiles?))) {
                known = true;
                coverage.visited += tiles.visited;
                coverage.elements += done.processed;
            }
        }
        known.then_some(coverage)
    }

    fn identities(&self, audit: &Audit, records: &HashMap<&str, &TensorRecord>) -> Vec<Identity> {
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
        if let (Some(pruned), Some(already)) = (&audit.pruned, &audit.already_zero) {
            let sum = pruned.elements + already.elements;
            all.push(Identity::new("pruned + already zero = zero", sum, audit.zero.elements));
        }
        match self.journal {
            Some(journal) => all.extend(self.journal_identities(journal, audit, records)),
            None if audit.warnings.iter().any(|w| w.starts_with(JOURNAL_UNREADABLE)) => {
                all.push(Identity::new("journals that can be read = journals there", 0, 1));
            }
            None => {}
        }
        all
    }

    /// What the journal says against headers and bytes.
    fn journal_identities(
        &self,
        journal: &Journal,
        audit: &Audit,
        records: &HashMap<&str, &TensorRecord>,
    ) -> Vec<Identity> {
        let sums = Totals::of(&journal.tensors);
        let skipped: u64 = journal
            .tensors
            .iter()
            .filter(|record| record.processed().is_none())
            .map(|record| record.elements)
            .sum();
        let mut times: HashMap<&str, u64> = HashMap::new();
        for record in &journal.tensors {
            *times.entry(&record.name).or_default() += 1;
        }
        let named_once = times.values().filter(|&&n| n == 1).count() as u64;
        let same_decision = self.plan.tensors.iter().filter(|tensor| {
            let record = records.get(tensor.input.name.as_str());
            record
                .is_some_and(|record| agrees(record, tensor, journal.run.recipe.needs().tile_edge))
        });
        let mut all = vec![
            Identity::new(
                "journal: processed + skipped elements = model elements",
                sums.processed + skipped,
                audit.model.elements,
            ),
            Identity::new(
                "journal: tensors, each once = model tensors",
                named_once,
                audit.model.tensors,
            ),
            Identity::new(
                "journal: tensors that agree with headers and plan = model tensors",
                same_decision.count() as u64,
                audit.model.tensors,
            ),
            Identity::new(
                "journal: processed elements = target elements",
                sums.processed,
                audit.target.elements,
            ),
        ];
        if let Some(totals) = journal.totals {
            let agree = u64::from(totals == sums);
            all.push(Identity::new("journal: totals that are the sums of its records", agree, 1));
        } else {
            all.push(Identity::new("journal: totals records", 0, 1));
        }
        if let Some(tiles) = audit.tiles {
            all.push(Identity::new(
                "tiles visited = tiles expected",
                tiles.visited,
                tiles.expected,
            ));
            all.push(Identity::new(
                "weights in visited tiles = target elements",
                tiles.elements,
                audit.target.elements,
            ));
        }
        if self.found.is_some() {
            all.extend(self.recount_identities(audit, records));
        }
        all
    }

    /// Journal against recount, tensor by tensor.
    fn recount_identities(
        &self,
        audit: &Audit,
        records: &HashMap<&str, &TensorRecord>,
    ) -> Vec<Identity> {
        let agrees = |tensor: &&Tensor| {
            let done = records.get(tensor.name.as_str()).and_then(|record| record.processed());
            let (pruned, zeros) = done.map_or((0, 0), |d| (d.pruned, d.pruned + d.already_zero));
            zeros == tensor.zero && tensor.pruned.is_none_or(|counted| counted == pruned)
        };
        let agreeing = audit.tensors.iter().filter(agrees).count() as u64;
        let mut all = vec![Identity::new(
            "targets whose recount is the journal's = targets",
            agreeing,
            audit.target.tensors,
        )];
        if let Some(changed) = &audit.changed {
            // Only a method that refits says that it did.
            let refitted = self.journal.map_or(0, |journal| Totals::of(&journal.tensors).refitted);
            let name = match refitted {
                0 => "changed otherwise = 0",
                _ => "changed otherwise = refitted by the journal",
            };
            all.push(Identity::new(name, changed.elements, refitted));
            let differing = audit.untouched.differing.len() as u64;
            all.push(Identity::new("tensors that differ without being targets = 0", differing, 0));
        }
        all
    }
}

/// What a journal says of a tensor or a matrix.
#[derive(Clone, Copy)]
struct Stated {
    pruned: u64,
    /// Weights that were zero before.
    zero: u64,
}

/// Zeros of a tensor or a matrix.
struct Zeros {
    zero: u64,
    already_zero: Option<u64>,
}

impl Zeros {
    fn pruned(&self) -> Option<u64> {
        self.already_zero.map(|already| self.zero.saturating_sub(already))
    }
}

pub(crate) fn skipped(planned: &PlannedTensor) -> Option<Skipped> {
    match &planned.action {
        Action::Prune => None,
        Action::Copy(reason) => Some(Skipped {
            name: planned.input.name.clone(),
            elements: planned.input.elements,
            reason: reason.to_string(),
        }),
    }
}

fn projections(tensors: &[Tensor]) -> Vec<Projection> {
    let mut groups: BTreeMap<&str, Vec<&Tensor>> = BTreeMap::new();
    for tensor in tensors {
        groups.entry(&tensor.role).or_default().push(tensor);
    }
    let project = |(name, group): (&str, Vec<&Tensor>)| {
        let elements = group.iter().map(|tensor| tensor.elements).sum();
        let pruned: Option<u64> = group.iter().map(|tensor| tensor.pruned).sum();
        // One for each matrix: that of a stack of experts would hide an expert that is all zero.
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
