/*!
The audit: headers, recount and journal brought together in one report.

Data flows one way: the plan comes from the headers, counts from the bytes (or, where only a
journal is at hand, from that), and the identities compare what was come by in two ways.
*/

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use physarium_checkpoint::journal::{self, Checks, Journal};
use physarium_checkpoint::{Checkpoint, Selection, TargetPlan, printable};

use crate::Step;
use crate::count::Count;
use crate::error::Result;
use crate::journal_checks::{JOURNAL_UNREADABLE, read_journal};
use crate::recount::{Pair, pair_up, recount};
use crate::report::{Audit, Base};

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
            let all = plan.tensors.iter().filter(|t| sides == 2 || t.is_target());
            on_step(Step::Total(all.map(|t| sides * t.input.size_bytes()).sum()))?;
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

/// Tensors without a counterpart, on either side.
fn unmatched(pairs: &[Pair<'_>], here: &Checkpoint, original: Option<&Checkpoint>) -> Vec<String> {
    let mut said: Vec<String> = pairs
        .iter()
        .filter_map(|pair| {
            let name = printable(&pair.planned.input.name);
            Some(format!("tensor {name}: cannot be compared: {}", pair.mismatch.as_ref()?))
        })
        .collect();
    let names: HashSet<&str> = here.tensors().map(|(_, tensor)| tensor.name.as_str()).collect();
    let lost = original.into_iter().flat_map(Checkpoint::tensors);
    let lost = lost.filter(|(_, tensor)| !names.contains(tensor.name.as_str()));
    said.extend(lost.map(|(_, tensor)| {
        format!("tensor {}: in the original, not in this checkpoint", printable(&tensor.name))
    }));
    said
}
