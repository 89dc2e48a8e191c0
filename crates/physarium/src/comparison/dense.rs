//! The dense model of a comparison: evaluated once, also over a resumed run.

use std::fs;
use std::path::Path;

use physarium_checkpoint::{Digest, Error as Fault, Source};
use serde::{Deserialize, Serialize};

use super::book::Book;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::eval::{EvalRequest, Evaluation, KeptStates, States, StatesWriter, evaluate_with};
use crate::progress::{Event, Progress};

/// The record of the dense model.
#[derive(Serialize, Deserialize)]
struct Record {
    evaluation: Evaluation,
    /// SHA-256 of its last states.
    states: Digest,
}

/// The dense model's evaluation, if it is on record.
pub(super) fn evaluated(book: &Book) -> Option<Evaluation> {
    Some(book.dense::<Record>()?.evaluation)
}

/// The dense model's evaluation and its last states: those on record if every byte of them is the same, else new ones.
///
/// # Errors
/// As [`evaluate`](crate::evaluate); `Stopped` if `cancel` is raised before the end.
pub(super) fn evaluate_dense(
    request: &EvalRequest<'_>,
    book: &Book,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(Evaluation, KeptStates)> {
    let path = book.states_path();
    if let Some(Record { evaluation, states }) = book.dense()
        && sha256(&path, cancel)? == Some(states)
    {
        return Ok((evaluation, KeptStates::open(&path)?));
    }
    remove(&path)?;
    progress.event(Event::Step("evaluating the dense model, once for all rows"));
    let mut writer = StatesWriter::create(&path)?;
    let request = EvalRequest { against: None, ..*request };
    let evaluation = evaluate_with(&request, States::Keep(&mut writer), cancel, progress)?;
    drop(writer);
    if evaluation.partial {
        return Err(Error::Stopped);
    }
    let states = sha256(&path, cancel)?.unwrap_or(Digest([0; 32]));
    book.record_dense(&Record { evaluation: evaluation.clone(), states })?;
    Ok((evaluation, KeptStates::open(&path)?))
}

/// Removes the states, which nothing needs once all rows are there.
pub(super) fn remove_states(book: &Book) -> Result<()> {
    remove(&book.states_path())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Fault::io(path, "remove", e).into())
        }
        _ => Ok(()),
    }
}

/// The digest of a file; `None` if it cannot be opened.
fn sha256(path: &Path, cancel: &Cancel) -> Result<Option<Digest>> {
    let Ok(source) = Source::open(path) else { return Ok(None) };
    Ok(Some(source.sha256(&mut |_| cancel.check())?))
}
