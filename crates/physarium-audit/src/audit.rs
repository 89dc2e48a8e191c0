/*!
The audit: headers, recount and journal combined in one report.

The plan comes from the headers. The counts come from the weights, or from a journal if the weights are not
available. Identities compare numbers that were computed in different ways.
*/

use std::path::{Path, PathBuf};

use physarium_checkpoint::journal::{self, Checks};
use physarium_checkpoint::{Checkpoint, Encoded, Selection, TargetPlan, encoded_projections};

use crate::count::compare::Tally;
use crate::count::coverage::projections;
use crate::count::journal_checks::read_journal;
use crate::count::pairs::{Pairs, pair_up};
use crate::count::recount::{Found, recount};
use crate::count::relation::{swapped, unrelated};
use crate::count::sources::{JournalClaim, Sources};
use crate::error::Result;
use crate::notes::checkpoint::{
    beyond_note, checkpoint_notes, encoded_note, non_finite_note, rewritten_note,
};
use crate::notes::comparison::comparison_notes;
use crate::report::audit::{
    Audit, Base, Basis, Changed, Counted, Model, Pruned, SCHEMA, Skipped, Target, Tensor,
};
use crate::report::provenance::Provenance;
use crate::step::Step;
use crate::tiles::MagnifiedTile;
use crate::tiles::grid::edge_for;
use crate::tiles::magnified::magnified;

/// What the counts are taken from.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// The weights.
    Bytes,
    /// This journal, together with the checkpoint's headers; no weights are read.
    Journal(PathBuf),
}

/// What to audit.
#[derive(Debug, Clone)]
pub struct AuditRequest<'a> {
    /// The checkpoint.
    pub dir: &'a Path,
    /// The checkpoint that it was made from.
    pub against: Option<&'a Path>,
    /// What the counts are taken from.
    pub evidence: Evidence,
    /// Which tensors are targets. `None` uses the patterns of the journal's recipe, or the defaults without a
    /// journal.
    pub selection: Option<Selection>,
    /// Number of threads that read and count.
    pub threads: usize,
}

/// Makes an audit. `on_step` receives the progress; an error from it stops the work.
///
/// # Errors
/// `Checkpoint` if something cannot be read. A *false* number is in the report, not an error.
pub fn audit(
    request: &AuditRequest<'_>,
    on_step: &mut dyn FnMut(Step) -> Result<(), physarium_checkpoint::Error>,
) -> Result<Audit> {
    let checkpoint = Checkpoint::open(request.dir)?;
    let original = request.against.map(Checkpoint::open).transpose()?;
    let (journal, plan) = plan_targets(request, &checkpoint)?;
    let edge = edge_for(&plan);
    let pairs = pair_up(&checkpoint, &plan, original.as_ref());
    let found = match request.evidence {
        Evidence::Bytes => Some(recount(&pairs.all, edge, request.threads, on_step)?),
        Evidence::Journal(_) => None,
    };
    let magnified = match request.evidence {
        Evidence::Bytes => magnified(&pairs.all)?,
        Evidence::Journal(_) => Vec::new(),
    };
    let encoded = encoded_projections(&checkpoint);
    let mut notes = checkpoint_notes(&checkpoint);
    if let JournalClaim::Unusable(reason) = &journal {
        notes.push(reason.clone());
    }
    let targets = plan.targets().map(|target| target.input.name.as_str()).collect();
    notes.extend(encoded_note(&encoded, &targets));
    notes.extend(beyond_note(&plan));
    notes.extend(found.as_ref().and_then(|found| non_finite_note(&pairs.all, found)));
    notes.extend(rewritten_note(request.dir));
    let sides = original.as_ref().map(|original| [&checkpoint, original]);
    let comparison =
        sides.map(|sides| compare(&pairs, found.as_deref(), sides)).unwrap_or_default();
    notes.extend(comparison.notes);
    let base = match (&original, journal.usable()) {
        (Some(_), _) if found.is_some() => Base::Original,
        (_, Some(_)) => Base::Journal,
        (_, None) => Base::None,
    };
    let records = journal.usable().into_iter().flat_map(|journal| &journal.tensors);
    let records = records.map(|record| (record.name.as_str(), record)).collect();
    let plan = &plan;
    let pairs = &pairs.all;
    let sources = Sources { plan, pairs, found, edge, journal: &journal, records, base };
    let models =
        Models { model: Model::of(&checkpoint), original: original.as_ref().map(Model::of) };
    let remarks = Remarks {
        unrelated: comparison.unrelated,
        encoded,
        warnings: notes,
        provenance: Provenance::of(request.dir, request.against, journal.usable()),
        magnified,
    };
    Ok(report(&sources, models, remarks))
}

/// The size of both sides.
struct Models {
    model: Model,
    original: Option<Model>,
}

/// What an audit says beside its numbers.
struct Remarks {
    unrelated: Option<String>,
    encoded: Vec<Encoded>,
    warnings: Vec<String>,
    provenance: Provenance,
    magnified: Vec<MagnifiedTile>,
}

/// How a checkpoint compares with its original, beside the counts.
#[derive(Default)]
struct Compared {
    /// Why the original is none.
    unrelated: Option<String>,
    notes: Vec<String>,
}

/// Compares a checkpoint with its original, which is the second of `sides`.
fn compare(pairs: &Pairs<'_>, found: Option<&[Found]>, sides: [&Checkpoint; 2]) -> Compared {
    let Some(counts) = found else {
        return Compared { unrelated: None, notes: comparison_notes(pairs, None, sides) };
    };
    if let Some(unrelated) = unrelated(&pairs.all, counts, sides) {
        return Compared { unrelated: Some(unrelated), notes: Vec::new() };
    }
    let mut notes = comparison_notes(pairs, found, sides);
    let mut total = Tally::default();
    let compared = pairs.all.iter().zip(counts).filter(|(pair, _)| pair.original.is_some());
    compared.for_each(|(_, found)| total += found.tally());
    notes.extend(swapped(total, sides));
    Compared { unrelated: None, notes }
}

/// The journal to compare with, and the plan by the requested selection or by the journal's.
fn plan_targets(
    request: &AuditRequest<'_>,
    checkpoint: &Checkpoint,
) -> Result<(JournalClaim, TargetPlan)> {
    let journal = find_journal(request)?;
    if let Some(selection) = &request.selection {
        return Ok((journal, TargetPlan::new(checkpoint, selection)?));
    }
    let recipe = journal.usable().map(|journal| journal.run.recipe.selection());
    match (recipe.map(|selection| TargetPlan::new(checkpoint, &selection)), &request.evidence) {
        (Some(Ok(plan)), _) => Ok((journal, plan)),
        (Some(Err(e)), Evidence::Journal(_)) => Err(e.into()),
        (Some(Err(e)), Evidence::Bytes) => {
            let reason = format!("the journal cannot be used: its recipe does not fit: {e}");
            let plan = TargetPlan::new(checkpoint, &Selection::default())?;
            Ok((JournalClaim::Unusable(reason), plan))
        }
        (None, _) => Ok((journal, TargetPlan::new(checkpoint, &Selection::default())?)),
    }
}

/// Finds the journal to compare with. A journal that cannot be used is an error only if the user names it;
/// the one in the directory is a false claim.
fn find_journal(request: &AuditRequest<'_>) -> Result<JournalClaim> {
    if let Evidence::Journal(path) = &request.evidence {
        return Ok(JournalClaim::Usable(Box::new(read_journal(path, Checks::IfPresent)?)));
    }
    let path = request.dir.join(journal::FILE_NAME);
    if path.symlink_metadata().is_err() {
        return Ok(JournalClaim::Absent);
    }
    Ok(match read_journal(&path, Checks::Required) {
        Ok(journal) => JournalClaim::Usable(Box::new(journal)),
        Err(e) => JournalClaim::Unusable(format!("the journal cannot be read: {e}")),
    })
}

/// Combines everything that was counted.
fn report(sources: &Sources<'_>, models: Models, remarks: Remarks) -> Audit {
    let Models { model, original } = models;
    let target = Target::of(sources.plan, &model);
    let tensors = sources.tensors();
    // Of no targets nothing is known, not that nothing is pruned.
    let sum = |field: fn(&Tensor) -> Option<u64>| {
        tensors.iter().map(field).sum::<Option<u64>>().filter(|_| !tensors.is_empty())
    };
    let among_targets = |elements| Changed { elements, of_target: target.share(elements) };
    let processed = |elements| Counted {
        basis: if sources.journal.usable().is_some() { Basis::Journal } else { Basis::Bytes },
        tensors: tensors.iter().filter(|t| t.processed.is_some_and(|n| n > 0)).count() as u64,
        elements,
        of_target: target.share(elements),
        of_model: model.share(elements),
    };
    let pruned = |elements| Pruned {
        elements,
        of_target: target.share(elements),
        of_model: model.share(elements),
    };
    let mut audit = Audit {
        schema: SCHEMA.to_owned(),
        basis: if sources.found.is_some() { Basis::Bytes } else { Basis::Journal },
        base: sources.base,
        denominator_correct: false,
        unrelated: remarks.unrelated,
        identities: Vec::new(),
        processed: sum(|t| t.processed).map(processed),
        zero: among_targets(tensors.iter().map(|t| t.zero).sum()),
        pruned: sum(|t| t.pruned).map(pruned),
        pruned_by_conversion: sources.pruned_by_conversion().map(among_targets),
        already_zero: sum(|t| t.already_zero).map(among_targets),
        zero_before: sum(|t| Some(t.already_zero? + t.no_longer_zero.unwrap_or(0)))
            .map(among_targets),
        no_longer_zero: sum(|t| t.no_longer_zero).map(among_targets),
        sign_bit_zero: sum(|t| t.sign_bit_zero).map(among_targets),
        changed: sum(|t| t.changed).map(among_targets),
        untouched: sources.untouched(&model),
        outside: sources.outside(&model),
        tiles: sources.tiles(),
        projections: projections(&tensors),
        skipped: Skipped::all(sources.plan),
        encoded: remarks.encoded,
        model,
        original,
        target,
        tensors,
        warnings: remarks.warnings,
        claims: Vec::new(),
        magnified: remarks.magnified,
        provenance: Some(remarks.provenance),
    };
    audit.identities = sources.identities(&audit);
    audit.denominator_correct = audit.identities.iter().all(|identity| identity.holds);
    audit
}
