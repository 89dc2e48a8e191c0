/*!
An evaluation in parts, for several processes and for one that may be killed.

In: a request and a directory. Out: the same [`Evaluation`] as [`evaluate`](crate::evaluate) gives. A part is a batch of windows, whose
scores depend on nothing but its tokens. They are kept in a record, which names by its key everything that they depend on:
the models by the digests of their files, text, protocol and version. Whichever process finds a part without a record scores it.
*/

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use physarium_checkpoint::Error as Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::identity::model_digests;
use super::report::Evaluation;
use super::score::{Batch, ScoredWindow, Scorer, TokenComparison, TokenScore};
use super::{EvalRequest, Session, TASK};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Kept, Progress};
use crate::records::TOOL;
use crate::sealed::{KeyedRecords, difference, read_key_of, write_sealed};
use crate::units::Share;

/// Name of the record that says what the parts are of.
const KEY_NAME: &str = "physarium.eval-parts.json";
/// Schema of that record.
const SCHEMA: &str = "physarium.eval-parts/1";
/// Largest record that is read, in bytes: one of some 8,192 scores takes 0.7 MB.
const MAX_RECORD: u64 = 256 << 20;

/// The parts of an evaluation that a process scores, and where they are kept.
#[derive(Debug, Clone, Copy)]
pub struct PartsShare<'a> {
    /// The directory of all parts.
    pub dir: &'a Path,
    /// Which of them it scores.
    pub share: Share,
}

/// How much of an evaluation a process has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartsScored {
    /// Parts that this call has scored.
    pub scored: usize,
    /// Parts of its share that were on record before.
    pub kept: usize,
    /// Parts of the whole evaluation.
    pub of: usize,
}

/// Evaluates as [`evaluate`](crate::evaluate) does, with the parts that are on record in `dir`, and keeps there what it scores.
/// `dir` is created if it does not exist.
///
/// If `cancel` is raised, it returns the evaluation up to the first part that is not scored, marked as partial.
///
/// # Errors
/// As [`evaluate`](crate::evaluate); `Checkpoint` for a directory that holds anything else than parts of this evaluation.
pub fn evaluate_in_parts(
    request: &EvalRequest<'_>,
    dir: &Path,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let began = Instant::now();
    let session = Session::open(request, cancel, progress)?;
    let parts = Parts::open(&session, dir, cancel, progress)?;
    let (mut windows, mut computing) = (Vec::new(), Duration::ZERO);
    let mut take = |part: Part| {
        computing += Duration::from_secs_f64(part.seconds);
        windows.extend(part.windows.into_iter().map(ScoredWindow::from));
    };
    match parts.score(Share::ALL, &mut take, cancel, progress) {
        Err(Error::Stopped) if !windows.is_empty() => {}
        scored => drop(scored?),
    }
    session.evaluation(windows, computing, began)
}

/// Scores the parts of a share that are not on record. Once all shares are scored, [`evaluate_in_parts`] has nothing to
/// compute.
///
/// # Errors
/// As [`evaluate_in_parts`]; `Stopped` when `cancel` is raised.
pub fn score_parts(
    request: &EvalRequest<'_>,
    PartsShare { dir, share }: PartsShare<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<PartsScored> {
    let session = Session::open(request, cancel, progress)?;
    Parts::open(&session, dir, cancel, progress)?.score(share, &mut drop, cancel, progress)
}

/// The parts of an evaluation and their records.
struct Parts<'a> {
    session: &'a Session<'a>,
    records: KeyedRecords,
}

impl<'a> Parts<'a> {
    /// Begins or resumes the records of a session in `dir`.
    ///
    /// # Errors
    /// `Checkpoint` for models that cannot be read, for a directory that cannot be written, and for one that holds anything else.
    fn open(
        session: &'a Session<'a>,
        dir: &Path,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Parts<'a>> {
        refuse_other_files(dir)?;
        let EvalRequest { model, against, .. } = *session.request;
        let against = against.map(|model| model_digests(model, cancel, progress)).transpose()?;
        let key = json!({
            "version": TOOL,
            "model": model_digests(model, cancel, progress)?,
            "against": against,
            "evaluation": session.protocol()?.deciding(),
        });
        refuse_other_evaluation(dir, &key)?;
        fs::create_dir_all(dir).map_err(|e| Fault::io(dir, "create", e))?;
        if read_key(dir).is_none() {
            write_sealed(&dir.join(KEY_NAME), &json!({"schema": SCHEMA, "key": key}))?;
        }
        Ok(Parts { session, records: KeyedRecords::new(dir.to_owned(), &key) })
    }

    /// Scores what is not on record of a share, and hands all parts of the share to `take`, in order.
    ///
    /// # Errors
    /// `Stopped` when `cancel` is raised; `Model` for weights that cannot be read; `Checkpoint` for a record that cannot be
    /// written.
    fn score(
        &self,
        share: Share,
        take: &mut dyn FnMut(Part),
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<PartsScored> {
        let batches: Vec<Batch<'_>> = self.session.text.batches().collect();
        let own = batches.iter().enumerate().filter(|(number, _)| share.takes(*number));
        let find = |number: usize| self.records.read::<Part>(&name(number), MAX_RECORD);
        let own: Vec<_> = own.map(|(number, batch)| (number, batch, find(number))).collect();
        let kept = own.iter().filter(|(_, _, found)| found.is_some()).count();
        if kept > 0 {
            progress.event(Event::Resumed { kept: Kept::Parts, count: kept, of: own.len() });
        }
        let tokens = own.iter().map(|(_, batch, _)| batch.tokens()).sum();
        progress.event(Event::TokensStarted { task: TASK, tokens });
        let mut scorer = self.session.scorer()?;
        let mut scored = 0;
        for (number, batch, found) in own {
            let part = match found {
                Some(part) => {
                    progress.event(Event::Tokens(batch.tokens()));
                    part
                }
                None => {
                    scored += 1;
                    let part = Part::score(&mut scorer, batch, cancel, progress)?;
                    self.records.write(&name(number), &part)?;
                    part
                }
            };
            take(part);
        }
        progress.event(Event::Finished);
        Ok(PartsScored { scored, kept, of: batches.len() })
    }
}

/// The name of a part's record.
fn name(number: usize) -> String {
    format!("part-{:05}.json", number + 1)
}

/// The key of the evaluation whose parts are in `dir`.
fn read_key(dir: &Path) -> Option<Value> {
    read_key_of(&dir.join(KEY_NAME), MAX_RECORD)
}

/// Fails if `dir` holds files, and none that says that they are parts. Another process may be about to write that one.
fn refuse_other_files(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Fault::io(dir, "list", e).into()),
    };
    let mut names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let other = names
        .find(|name| !name.as_ref().is_ok_and(|name| name.to_string_lossy().starts_with(KEY_NAME)));
    match other {
        Some(_) if read_key(dir).is_none() => {
            Err(in_the_way(dir, "an empty directory, or parts of this evaluation", "other files"))
        }
        _ => Ok(()),
    }
}

/// Fails if `dir` holds the parts of an evaluation with another key.
fn refuse_other_evaluation(dir: &Path, key: &Value) -> Result<()> {
    match read_key(dir) {
        Some(theirs) if theirs != *key => {
            let what = difference(key, &theirs);
            let found = format!("those of another evaluation, which differs in: {what}");
            Err(in_the_way(dir, "parts of this evaluation, or a new directory", &found))
        }
        _ => Ok(()),
    }
}

fn in_the_way(dir: &Path, expected: &str, found: &str) -> Error {
    Fault::Output {
        path: dir.to_owned(),
        what: "not made by this evaluation",
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
    .into()
}

/// The scores of a part as its record holds them.
#[derive(Serialize, Deserialize)]
struct Part {
    /// Time that computing them took.
    seconds: f64,
    windows: Vec<WindowRecord>,
}

#[derive(Serialize, Deserialize)]
struct WindowRecord {
    tokens: usize,
    scores: Vec<ScoreRecord>,
}

/// A token's score. Floats are their bits, since JSON has no NaN.
#[derive(Serialize, Deserialize)]
struct ScoreRecord {
    position: usize,
    token: u32,
    nll: u64,
    /// Negative log-likelihood by the other model, divergence, and whether both predict the same token.
    against: Option<(u64, u64, bool)>,
}

impl Part {
    /// Scores the windows of a part.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score(
        scorer: &mut Scorer<'_>,
        batch: &Batch<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Part> {
        let began = Instant::now();
        let batch = Batch { windows: batch.windows[..].into(), ids: batch.ids[..].into() };
        let windows = scorer.score(std::iter::once(batch), WindowRecord::from, cancel, progress)?;
        Ok(Part { seconds: began.elapsed().as_secs_f64(), windows })
    }
}

impl From<ScoredWindow> for WindowRecord {
    fn from(window: ScoredWindow) -> WindowRecord {
        let record = |score: TokenScore| ScoreRecord {
            position: score.position,
            token: score.token,
            nll: score.nll.to_bits(),
            against: score
                .against
                .map(|against| (against.nll.to_bits(), against.kl.to_bits(), against.agree)),
        };
        let scores = window.scores.into_iter().map(record).collect();
        WindowRecord { tokens: window.tokens, scores }
    }
}

impl From<WindowRecord> for ScoredWindow {
    fn from(window: WindowRecord) -> ScoredWindow {
        let score = |record: ScoreRecord| TokenScore {
            position: record.position,
            token: record.token,
            nll: f64::from_bits(record.nll),
            against: record.against.map(|(nll, kl, agree)| TokenComparison {
                nll: f64::from_bits(nll),
                kl: f64::from_bits(kl),
                agree,
            }),
        };
        let scores = window.scores.into_iter().map(score).collect();
        ScoredWindow { scores, tokens: window.tokens }
    }
}
