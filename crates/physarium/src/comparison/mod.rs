/*!
Comparison of several recipes on one model.

In: a dense model, recipes, a calibration text and an evaluation text. Out: for each recipe a row, with the pruned
model measured against the dense one, or why it could not be. Everything is checked before the first row
(`prepared`); the dense model is evaluated once (`dense`); rows run one after the other, exactly as
[`Surgery::prune`](crate::Surgery::prune) and [`evaluate`](crate::evaluate) run by themselves (`row`). What is done is
on record (`book`), so that a comparison that was killed or cancelled is resumed by the same call. Several processes can
share the rows: each has the records of its own.
*/

mod book;
mod dense;
mod prepared;
mod request;
mod result;
mod row;

use std::path::Path;

use physarium_checkpoint::{Error as Fault, ErrorKind};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

pub use request::{Begun, ComparisonRequest, Contender, Outputs};
pub use result::{ComparedRun, Comparison, ComparisonRecord, Ended, FailedRun, PrunedRun, Row};

use book::{Book, Stage};
use prepared::Prepared;
use row::{Known, Turn, measured_before};

/// Prunes and measures each contender of the request's share. Calls `changed` with all rows so far after each of them.
///
/// A row that fails does not stop the others. If `cancel` is raised, it returns the rows that it has. Outputs of
/// contenders, and files of `request.tables`, that this comparison did not make are refused, never replaced.
///
/// # Errors
/// Whatever can be known before the first row: as [`Surgery::plan`](crate::Surgery::plan),
/// [`Surgery::calibrate`](crate::Surgery::calibrate) and [`evaluate`](crate::evaluate), for any contender; `Checkpoint`
/// for names that are taken and for too little space; and faults of the dense model. `Interrupted` or `Stopped` when
/// `cancel` is raised before that.
pub fn compare(
    request: &ComparisonRequest<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
    mut changed: impl FnMut(&Comparison),
) -> Result<Comparison> {
    let prepared = Prepared::new(request, cancel, progress)?;
    if prepared.discards {
        discard(request.dir)?;
    }
    let book = Book::open(request.dir, &prepared.key, request.share)?;
    let mut comparison =
        Comparison { dense: dense::evaluated(&book), rows: Vec::new(), ended: Ended::Unfinished };
    let mut session = Session { request, prepared: &prepared, book: &book, cancel };
    match session.run(&mut comparison, progress, &mut changed) {
        Ok(()) => {
            comparison.ended = match comparison.rows.len() == request.contenders.len() {
                true => Ended::Complete,
                false => Ended::ShareDone,
            };
            changed(&comparison);
            if comparison.failed().next().is_none() {
                dense::remove_states(&book)?;
            }
        }
        Err(e) if e.kind() == ErrorKind::Interrupted => {}
        Err(e) => return Err(e),
    }
    Ok(comparison)
}

/// A comparison that has begun.
struct Session<'a> {
    request: &'a ComparisonRequest<'a>,
    prepared: &'a Prepared,
    book: &'a Book,
    cancel: &'a Cancel,
}

impl Session<'_> {
    fn run(
        &mut self,
        comparison: &mut Comparison,
        progress: &mut dyn Progress,
        changed: &mut dyn FnMut(&Comparison),
    ) -> Result<()> {
        let (contenders, mut states) = (self.request.contenders, None);
        let own =
            contenders.iter().enumerate().filter(|(index, _)| self.request.share.takes(*index));
        for (index, contender) in own {
            self.cancel.check()?;
            let (number, of) = (index + 1, contenders.len());
            let known = self.known(contender);
            let row = match measured_before(&known, progress) {
                Ok(Some(run)) => {
                    progress.event(Event::RunKept { name: &contender.name, number, of });
                    Ok(run)
                }
                Ok(None) => {
                    if states.is_none() {
                        let eval = &self.request.eval;
                        let (dense, kept) =
                            dense::evaluate_dense(eval, self.book, self.cancel, progress)?;
                        comparison.dense = Some(dense);
                        states = Some(kept);
                    }
                    progress.event(Event::Run { name: &contender.name, number, of });
                    let dense = states.as_ref().expect("just evaluated");
                    let surgery = &self.prepared.surgeries[index];
                    let Session { request, book, cancel, .. } = *self;
                    Turn { request, contender, surgery, book, dense, cancel }.run(progress)
                }
                Err(e) => Err(e),
            };
            comparison.rows.push(match row {
                Ok(run) => Row::Measured(Box::new(run)),
                Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
                Err(e) => Row::Failed(Box::new(failed(contender, &e))),
            });
            changed(comparison);
        }
        Ok(())
    }

    fn known<'b>(&'b self, contender: &'b Contender) -> Known<'b> {
        let Session { request, prepared, cancel, .. } = *self;
        Known { request, contender, key: &prepared.key, cancel }
    }
}

fn failed(contender: &Contender, error: &Error) -> FailedRun {
    let Contender { name, recipe } = contender.clone();
    FailedRun { name, recipe, error: error.to_string() }
}

/// Removes what an earlier comparison has made in `dir`: outputs by the digests of their manifests, and the records.
fn discard(dir: &Path) -> Result<()> {
    for (name, stage) in book::begun_by_earlier(dir) {
        if let Some(Stage::Pruned { manifest, .. } | Stage::Measured { manifest, .. }) = stage {
            row::remove_output(&dir.join(name), manifest)?;
        }
    }
    let records = dir.join(book::DIR_NAME);
    Ok(std::fs::remove_dir_all(&records).map_err(|e| Fault::io(&records, "remove", e))?)
}
