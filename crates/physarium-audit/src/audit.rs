/*!
The audit: headers, recount and journal brought together in one report.

Data flows one way: the plan comes from the headers, counts from the bytes (or, where only a
journal is at hand, from that), and the identities compare what was come by in two ways.
*/

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use physarium_checkpoint::journal::{self, Checks, Journal, TensorRecord, Totals};
use physarium_checkpoint::{Checkpoint, Decision, PlannedTensor, Selection, TargetPlan, printable};

use crate::Step;
use crate::error::Result;
use crate::identity::Identity;
use crate::journal_checks::{agrees, read_journal};
use crate::recount::{Found, Pair, pair_up, recount};
use crate::report::{
    Audit, Base, Basis, Changed, Counted, Model, Projection, Pruned, SCHEMA, Skipped, Target,
    Tensor, TileCoverage, Untouched,
};
use crate::share::Share;

/// What the counts are taken from.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// The weights themselves.
    Bytes,
    /// This journal, with the checkpoint's headers; no weight is read.
    Journal(PathBuf),
}

/// What is to be audited.
#[derive(Debug, Clone)]
pub struct AuditRequest<'a> {
    /// The checkpoint.
    pub dir: &'a Path,
    /// What it was made from.
    pub against: Option<&'a Path>,
    /// What the counts are taken from.
    pub evidence: Evidence,
    /// Which tensors are targets; `None` takes the journal's recipe, or the defaults without one.
    pub selection: Option<Selection>,
    /// Threads that read and count.
    pub threads: usize,
}

/// Makes an audit. `on_step` is told of the work and stops it by returning an error.
///
/// # Errors
/// `Checkpoint` when something cannot be read. What is *false* is in the report.
pub fn audit(
    request: &AuditRequest<'_>,
    on_step: &mut dyn FnMut(Step) -> Result<(), physarium_checkpoint::Error>,
) -> Result<Audit> {
    let checkpoint = Checkpoint::open(request.dir)?;
    let original = request.against.map(Checkpoint::open).transpose()?;
    let (journal, unreadable) = find_journal(request)?;
    let selection = request.selection.clone().unwrap_or_else(|| {
        journal.as_ref().map_or_else(Selection::default, |journal| journal.run.recipe.selection())
    });
    let plan = TargetPlan::new(&checkpoint, &selection)?;
    let pairs = pair_up(&checkpoint, &plan, original.as_ref());
    let found = match request.evidence {
        Evidence::Bytes => {
            let sides = if original.is_some() { 2 } else { 1 };
            let all = plan.tensors.iter().filter(|t| sides == 2 || t.target().is_some());
            on_step(Step::Total(all.map(|t| sides * t.info.size_bytes()).sum()))?;
            Some(recount(&pairs, request.threads, &mut |bytes| on_step(Step::Read(bytes)))?)
        }
        Evidence::Journal(_) => None,
    };
    let mut warnings: Vec<String> = checkpoint.warnings().iter().map(ToString::to_string).collect();
    warnings.extend(unreadable);
    warnings.extend(unmatched(&pairs, &checkpoint, original.as_ref()));
    let base = match (&original, &journal) {
        (Some(_), _) if found.is_some() => Base::Original,
        (_, Some(_)) => Base::Journal,
        (_, None) => Base::None,
    };
    let count = Count { plan: &plan, pairs: &pairs, found, journal: journal.as_ref(), base };
    Ok(count.report(warnings))
}

/// The journal to compare with, and what is wrong with it if it cannot be read. Only a journal that
/// the user names is an error then: the one in the directory is a claim that turned out false.
fn find_journal(request: &AuditRequest<'_>) -> Result<(Option<Journal>, Option<String>)> {
    if let Evidence::Journal(path) = &request.evidence {
        return Ok((Some(read_journal(path, Checks::IfPresent)?), None));
    }
    let path = request.dir.join(journal::FILE_NAME);
    if path.symlink_metadata().is_err() {
        return Ok((None, None));
    }
    Ok(match read_journal(&path, Checks::Required) {
        Ok(journal) => (Some(journal), None),
        Err(e) => (None, Some(format!("{JOURNAL_UNREADABLE}: {e}"))),
    })
}

/// How a warning about an unreadable journal begins.
const JOURNAL_UNREADABLE: &str = "the journal cannot be read";

/// Tensors without a counterpart, on either side.
fn unmatched(pairs: &[Pair<'_>], here: &Checkpoint, original: Option<&Checkpoint>) -> Vec<String> {
    let mut said: Vec<String> = pairs
        .iter()
        .filter_map(|pair| {
            let name = printable(&pair.planned.info.name);
            Some(format!("tensor {name}: cannot be compared: {}", pair.mismatch.as_ref()?))
        })
        .collect();
    let names: std::collections::HashSet<&str> =
        here.tensors().map(|(_, tensor)| tensor.name.as_str()).collect();
    let lost = original.into_iter().flat_map(Checkpoint::tensors);
    let lost = lost.filter(|(_, tensor)| !names.contains(tensor.name.as_str()));
    said.extend(lost.map(|(_, tensor)| {
        format!("tensor {}: in the original, not in this checkpoint", printable(&tensor.name))
    }));
    said
}

/// Everything that the report is made of.
struct Count<'a> {
    plan: &'a TargetPlan,
    pairs: &'a [Pair<'a>],
    /// By pair; absent when no weight was read.
    found: Option<Vec<Found>>,
    journal: Option<&'a Journal>,
    base: Base,
}

impl Count<'_> {
    fn report(&self, warnings: Vec<String>) -> Audit {
        let records = self.records();
        let tensors: Vec<Tensor> = self
            .pairs
            .iter()
            .enumerate()
            .filter(|(_, pair)| pair.planned.target().is_some())
            .map(|(i, pair)| self.tensor(i, pair, records.get(pair.planned.info.name.as_str())))
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
        let PlannedTensor { info, role, .. } = pair.planned;
        let role = role.as_ref().expect("a target has a role");
        let done = record.and_then(|record| record.processed());
        let found = self.found.as_ref().map(|found| found[at]);
        let tally = found.map(|found| found.tally);
        let compared = self.base == Base::Original && pair.mismatch.is_none();
        let zero = match (tally, done) {
            (Some(tally), _) => tally.zeros,
            (None, done) => done.map_or(0, |done| done.pruned + done.already_zero),
        };
        let already_zero = match self.base {
            Base::Original if compared => tally.map(|tally| tally.zeros - tally.pruned),
            Base::Journal => Some(done.map_or(0, |done| done.already_zero)),
            Base::Original | Base::None => None,
        };
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
            role: role.projection.clone(),
            layer: role.layer,
            dtype: info.dtype,
            shape: info.shape.clone(),
            elements: info.elements,
            processed: visited,
            zero,
            pruned: already_zero.map(|already| zero.saturating_sub(already)),
            already_zero,
            sign_bit_zero: tally.map(|tally| tally.sign_bit_zeros),
            changed: tally.filter(|_| compared).map(|tally| tally.changed),
        }
    }

    fn untouched(&self, model: &Model) -> Untouched {
        let (mut tensors, mut elements, mut differing) = (0, 0, Vec::new());
        for (i, pair) in self.pairs.iter().enumerate() {
            if pair.planned.target().is_some() {
                continue;
            }
            let differs = self.found.as_ref().is_some_and(|found| found[i].differs);
            if differs || pair.mismatch.is_some() {
                differing.push(pair.planned.info.name.clone());
            } else {
                tensors += 1;
                elements += pair.planned.info.elements;
            }
        }
        let of_model = Share::new(elements, model.elements, "model");
        let compared = self.base == Base::Original;
        Untouched { tensors, elements, of_model, compared, differing }
    }

    /// Tile coverage: the expected number by the auditor's own geometry, the visited by the journal.
    fn tiles(&self, records: &HashMap<&str, &TensorRecord>) -> Option<TileCoverage> {
        let block_size = self.journal?.run.recipe.tile_edge()?;
        let mut coverage = TileCoverage { block_size, expected: 0, visited: 0, elements: 0 };
        let mut known = false;
        for (tensor, shape) in self.plan.targets() {
            coverage.expected += shape.rows.div_ceil(block_size) * shape.cols.div_ceil(block_size);
            let done = records.get(tensor.info.name.as_str()).and_then(|record| record.processed());
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
            let record = records.get(tensor.info.name.as_str());
            record.is_some_and(|record| agrees(record, tensor, journal.run.recipe.tile_edge()))
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

pub(crate) fn skipped(planned: &PlannedTensor) -> Option<Skipped> {
    match &planned.decision {
        Decision::Target(_) => None,
        Decision::Skip(reason) => Some(Skipped {
            name: planned.info.name.clone(),
            elements: planned.info.elements,
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
        let sparsity = |tensor: &&Tensor| tensor.zero as f64 / tensor.elements as f64;
        let all = group.iter().map(sparsity);
        Projection {
            projection: name.to_owned(),
            tensors: group.len() as u64,
            elements,
            pruned,
            of_projection: pruned.map(|pruned| Share::new(pruned, elements, name)),
            sparsity_min: all.clone().fold(1.0, f64::min),
            sparsity_mean: all.clone().sum::<f64>() / group.len() as f64,
            sparsity_max: all.fold(0.0, f64::max),
        }
    };
    groups.into_iter().map(project).collect()
}
