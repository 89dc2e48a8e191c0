/*!
Everything that a comparison can know before the first minute of its work.

In: a request. Out: a planned run for each contender, the plan of the evaluation, and the key of the comparison; or the
first fault. Nothing is written and nothing of the directory is changed.
*/

use std::path::Path;

use physarium_checkpoint::{Disk, Error as Fault, Found, LinkPolicy, Occupant};
use serde_json::{Value, json};

use super::book::{Book, Earlier, in_the_way};
use super::request::{Begun, ComparisonRequest, Contender, Outputs};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::eval::{EvalPlan, EvalRequest, model_digests};
use crate::progress::Progress;
use crate::records::TOOL;
use crate::surgery::{Options, Strictness, Surgery};

/// A comparison that can begin.
pub(super) struct Prepared {
    /// The planned run of each contender.
    pub(super) surgeries: Vec<Surgery>,
    /// Everything that the results depend on.
    pub(super) key: Value,
    /// Whether the directory holds an earlier comparison that is discarded.
    pub(super) discards: bool,
}

impl Prepared {
    /// Checks names, recipes, texts, tokenizer, windows, paths and free space.
    ///
    /// # Errors
    /// As [`Surgery::plan`], [`Surgery::calibrate`] and [`evaluate`](crate::evaluate); `Checkpoint` for a path that is
    /// taken by something that this comparison did not make, and for too little space; `Usage` for a name that is
    /// none.
    pub(super) fn new(
        request: &ComparisonRequest<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Prepared> {
        refuse_names(request.contenders)?;
        let surgeries = plan_all(request)?;
        refuse_inside(request.dir, request.eval.model)?;
        let eval = EvalPlan::new(&EvalRequest { against: None, ..request.eval }, progress)?;
        let key = key(request, &eval, cancel, progress)?;
        let earlier = Earlier::look(request.dir, &key)?;
        let is_begun = matches!(earlier, Earlier::Same);
        let discards = refuse_other_comparison(request, earlier)?;
        if !discards {
            refuse_taken(request, &key, is_begun)?;
        }
        check_space(request, &key, &surgeries, &eval)?;
        Ok(Prepared { surgeries, key, discards })
    }
}

/// The planned run of each contender.
///
/// # Errors
/// As [`Prepared::new`]; if several need more memory than they may take, that which needs most.
fn plan_all(request: &ComparisonRequest<'_>) -> Result<Vec<Surgery>> {
    let mut surgeries: Vec<Surgery> = Vec::new();
    let mut too_large: Option<(u64, Error)> = None;
    for contender in request.contenders {
        match plan(request, contender, &surgeries).map_err(|e| named(&contender.name, e)) {
            Ok(surgery) => surgeries.push(surgery),
            Err(e @ Error::NoMemory { least, .. }) => {
                too_large = too_large.filter(|(most, _)| *most >= least).or(Some((least, e)));
            }
            Err(e) => return Err(e),
        }
    }
    too_large.map_or(Ok(surgeries), |(_, e)| Err(e))
}

/// The planned run of a contender, after those of `earlier` ones.
fn plan(
    request: &ComparisonRequest<'_>,
    contender: &Contender,
    earlier: &[Surgery],
) -> Result<Surgery> {
    let mut surgery = Surgery::plan(request.eval.model, contender.recipe.clone(), request.options)?;
    if let Some(calibration) = contender.recipe.needs().calibration {
        let same = |other: &&Surgery| other.recipe.needs().calibration == Some(calibration);
        surgery.calibrate_like(request.calibration, earlier.iter().find(same))?;
    }
    Ok(surgery)
}

/// An error of one contender's options, with its name.
fn named(contender: &str, error: Error) -> Error {
    match error {
        Error::Usage(what) => Error::Usage(format!("{contender}: {what}")),
        other => other,
    }
}

/// A contender's name is that of a directory and of a record.
fn refuse_names(contenders: &[Contender]) -> Result<()> {
    for (index, Contender { name, .. }) in contenders.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || name.len() > 100 || !name.chars().all(plain)
        {
            let what = format!("{name:?}: expected a name of letters, digits, -, _ and .");
            return Err(Error::Usage(what));
        }
        if contenders[..index].iter().any(|other| other.name == *name) {
            return Err(Error::Usage(format!("{name}: listed twice, expected one row for each")));
        }
    }
    Ok(())
}

/// Nothing may be written into the dense model.
fn refuse_inside(dir: &Path, model: &Path) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path);
    let model = real(model).map_err(|e| Fault::io(model, "resolve", e))?;
    let absolute = std::path::absolute(dir).map_err(|e| Fault::io(dir, "resolve", e))?;
    let existing = absolute.ancestors().find_map(|above| real(above).ok());
    match existing.filter(|existing| existing.starts_with(&model)) {
        None => Ok(()),
        Some(_) => Err(Fault::Output {
            path: dir.to_owned(),
            what: "output is inside the input",
            expected: "a path outside the checkpoint".to_owned(),
            found: model.display().to_string(),
        }
        .into()),
    }
}

/// Everything that the results depend on.
fn key(
    request: &ComparisonRequest<'_>,
    eval: &EvalPlan,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Value> {
    let Options { strictness, links, .. } = request.options;
    Ok(json!({
        "version": TOOL,
        "model": model_digests(request.eval.model, cancel, progress)?,
        "contenders": request.contenders,
        "evaluation": eval.protocol.deciding(),
        "outputs": request.outputs,
        "strict": strictness == Strictness::Refuse,
        "links": links == LinkPolicy::Follow,
    }))
}

/// Whether an earlier comparison in the directory is discarded.
///
/// # Errors
/// `Checkpoint` for another comparison that is not to be discarded.
fn refuse_other_comparison(request: &ComparisonRequest<'_>, earlier: Earlier) -> Result<bool> {
    match (earlier, request.begun) {
        (Earlier::None, _) | (Earlier::Same, Begun::Resume) => Ok(false),
        (Earlier::Same | Earlier::Other(_), Begun::Discard) => Ok(true),
        (Earlier::Other(what), Begun::Resume) => Err(in_the_way(
            request.dir,
            "a new directory, or this comparison (or --restart to discard the other one)",
            &format!("another comparison, which differs in: {what}"),
        )),
    }
}

/// Fails if something that this comparison did not make has a name that it needs. `is_begun`: its own records are there.
fn refuse_taken(request: &ComparisonRequest<'_>, key: &Value, is_begun: bool) -> Result<()> {
    for name in request.tables.iter().filter(|_| !is_begun) {
        for path in [request.dir.join(name), request.dir.join(format!("{name}.part"))] {
            if path.symlink_metadata().is_ok() {
                return Err(in_the_way(&path, "nothing there", "a file"));
            }
        }
    }
    if !request.dir.is_dir() {
        return Ok(());
    }
    for Contender { name, .. } in request.contenders {
        let out = request.dir.join(name);
        let found = Found::at(&out, request.eval.model)?;
        let lock = request.dir.join(format!("{name}.lock"));
        let is_locked = lock.symlink_metadata().is_ok();
        // The record is looked at last: another worker writes it before anything else of this row.
        if Book::stage(request.dir, key, name).is_some() {
            continue;
        }
        if let Some(unfinished) = found.unfinished {
            return Err(in_the_way(&unfinished, "nothing there", "an unfinished run"));
        }
        if found.output == Occupant::Finished {
            return Err(in_the_way(&out, "nothing there", "a finished physarium output"));
        }
        if is_locked {
            return Err(in_the_way(&lock, "nothing there", "a file"));
        }
    }
    Ok(())
}

/// Fails if the pruned models that are on disk together, and the dense model's states, do not fit.
fn check_space(
    request: &ComparisonRequest<'_>,
    key: &Value,
    surgeries: &[Surgery],
    eval: &EvalPlan,
) -> Result<()> {
    let is_new = |name: &str| Book::stage(request.dir, key, name).is_none();
    let sizes = request.contenders.iter().zip(surgeries);
    let sizes = sizes.filter(|(contender, _)| is_new(&contender.name));
    let sizes: Vec<[u64; 2]> =
        sizes.map(|(_, surgery)| [surgery.output_bytes(), surgery.solved_bytes()]).collect();
    let most = |size: fn(&[u64; 2]) -> u64| sizes.iter().map(size).max().unwrap_or(0);
    let outputs = match request.outputs {
        Outputs::Keep => {
            sizes.iter().map(|[output, _]| output).sum::<u64>() + most(|[_, solved]| *solved)
        }
        Outputs::Discard => most(|[output, solved]| output + solved),
    };
    if outputs == 0 {
        return Ok(());
    }
    let absolute =
        std::path::absolute(request.dir).map_err(|e| Fault::io(request.dir, "resolve", e))?;
    let path = absolute.ancestors().find(|above| above.is_dir()).unwrap_or(request.dir);
    Ok(Disk::check(path, outputs + eval.states_bytes)?)
}
