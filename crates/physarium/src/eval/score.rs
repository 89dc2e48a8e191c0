//! The negative log-likelihood of each scored token.

use std::sync::Arc;

use physarium_checkpoint::start_thread;
use physarium_model::{Buffer, Compute, Decoder, Head, Workspace, vector};

use super::states::{KeptStates, States, StatesWriter};
use super::tokens::Tokens;
use super::windows::Window;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Bytes for the logits of one model.
const LOGITS_BYTES: usize = 64 << 20;
/// Tokens whose states are in memory together.
const BATCH_TOKENS: usize = 8192;
/// Most rows of logits at once.
const LOGITS_ROWS: usize = 256;

/// The score of a token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenScore {
    /// Its position in the text.
    pub position: usize,
    /// Its id.
    pub token: u32,
    /// Negative log-likelihood in nats.
    pub nll: f64,
    /// The comparison with another model, if there is one.
    pub against: Option<TokenComparison>,
}

/// The comparison of two models at a position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenComparison {
    /// Negative log-likelihood by the other model, in nats.
    pub nll: f64,
    /// Kullback–Leibler divergence of the model's distribution from the other's, in nats.
    pub kl: f64,
    /// Whether both models predict the same token.
    pub agree: bool,
}

/// A window with its scores.
pub(crate) struct ScoredWindow {
    pub(crate) scores: Vec<TokenScore>,
    /// Bytes of the text of the scored tokens.
    pub(crate) bytes: usize,
    /// Tokens of the window, scored or not.
    pub(crate) tokens: usize,
}

/// Scores windows by one model or two.
pub(crate) struct Scorer<'a> {
    subjects: Vec<Subject<'a>>,
    compute: &'a Compute,
    rows: usize,
    keep: Option<&'a mut StatesWriter>,
    /// Windows that are scored.
    done: usize,
}

/// A model with its memory.
struct Subject<'a> {
    decoder: &'a Decoder,
    workspace: Workspace<'a>,
    logits: Buffer,
    /// Its last states, if its layers need not run.
    kept: Option<&'a KeptStates>,
}

impl<'a> Scorer<'a> {
    /// A scorer for windows of at most `window` tokens.
    ///
    /// # Errors
    /// `Usage` for models whose vocabularies differ in size.
    pub(crate) fn new(
        compute: &'a Compute,
        decoder: &'a Decoder,
        against: Option<&'a Decoder>,
        window: usize,
    ) -> Result<Scorer<'a>> {
        let vocabulary = decoder.config().vocabulary;
        if let Some(other) = against.filter(|other| other.config().vocabulary != vocabulary) {
            return Err(Error::Usage(format!(
                "the two models have vocabularies of {vocabulary} and {} tokens and cannot be compared",
                other.config().vocabulary
            )));
        }
        let subject = |decoder: &'a Decoder| {
            let workspace = Workspace::new(compute, decoder.config(), window);
            Subject { decoder, workspace, logits: Buffer::default(), kept: None }
        };
        let subjects = std::iter::once(decoder).chain(against).map(subject).collect();
        let rows = (LOGITS_BYTES / (4 * vocabulary)).clamp(1, LOGITS_ROWS);
        Ok(Scorer { subjects, compute, rows, keep: None, done: 0 })
    }

    /// Keeps the states of the model, or takes those of the other model.
    pub(crate) fn with(mut self, states: States<'a>) -> Self {
        match states {
            States::None => {}
            States::Keep(writer) => self.keep = Some(writer),
            States::OfOther(kept) => {
                self.subjects.iter_mut().skip(1).for_each(|other| other.kept = Some(kept));
            }
        }
        self
    }

    /// Scores windows. Returns the batches that are done if `cancel` is raised.
    ///
    /// # Errors
    /// `Model` for weights that cannot be read; `Stopped` if `cancel` is raised before a batch is done.
    pub(crate) fn score(
        &mut self,
        windows: &[Window],
        tokens: &Tokens,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<ScoredWindow>> {
        let total = windows.iter().map(|window| window.tokens.len() as u64).sum();
        progress.event(Event::TokensStarted { task: "eval", tokens: total });
        let per_batch = windows.first().map_or(1, |window| BATCH_TOKENS / window.tokens.len());
        let mut scored = Vec::new();
        for batch in windows.chunks(per_batch.max(1)) {
            match self.batch(batch, tokens, cancel, progress) {
                Ok(windows) => {
                    self.done += windows.len();
                    scored.extend(windows);
                }
                Err(Error::Stopped) if !scored.is_empty() => break,
                Err(e) => return Err(e),
            }
        }
        Ok(scored)
    }

    /// Scores windows that are in memory together.
    fn batch(
        &mut self,
        windows: &[Window],
        tokens: &Tokens,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<ScoredWindow>> {
        let total: usize = windows.iter().map(|window| window.tokens.len()).sum();
        let layers: usize = self.subjects.iter().map(Subject::layers).sum();
        let mut steps = Steps::new(total, layers + windows.len());
        let mut tick = || {
            progress.event(Event::Tokens(steps.next()));
            if cancel.is_raised() { Err(Error::Stopped) } else { Ok(()) }
        };
        let mut states = Vec::new();
        for subject in &self.subjects {
            states.push(match subject.kept {
                Some(kept) => subject.kept_states(kept, self.done, windows)?,
                None => subject.states(windows, tokens, &mut tick)?,
            });
        }
        if let Some(writer) = &mut self.keep {
            states[0].iter().try_for_each(|window| writer.append(window))?;
        }
        let mut heads = Vec::new();
        for subject in &self.subjects {
            heads.push(subject.decoder.head()?);
        }
        let mut scored = Vec::new();
        for (index, window) in windows.iter().enumerate() {
            let states: Vec<&[f32]> = states.iter().map(|states| &states[index][..]).collect();
            scored.push(self.window(window, tokens, &heads, &states));
            tick()?;
        }
        Ok(scored)
    }

    /// Scores a window from the last states of each model, `[tokens, hidden]`.
    fn window(
        &mut self,
        window: &Window,
        tokens: &Tokens,
        heads: &[Arc<Head>],
        states: &[&[f32]],
    ) -> ScoredWindow {
        let mut scores = Vec::new();
        let mut at = window.scored.start;
        while at < window.scored.end {
            let here = at..(at + self.rows).min(window.scored.end);
            for ((subject, head), states) in self.subjects.iter_mut().zip(heads).zip(states) {
                let width = subject.decoder.config().hidden;
                // The position before a token predicts it.
                let first = here.start - 1 - window.tokens.start;
                let rows = &states[first * width..(first + here.len()) * width];
                head.logits(&subject.workspace, rows, &mut subject.logits);
            }
            let mut rows: Vec<TokenScore> = here
                .clone()
                .map(|position| TokenScore {
                    position,
                    token: tokens.ids[position],
                    ..TokenScore::default()
                })
                .collect();
            let logits: Vec<&[f32]> = self.subjects.iter().map(|s| &s.logits[..]).collect();
            self.compute.each_chunk(&mut rows, 16, |index, rows| {
                for (row, score) in rows.iter_mut().enumerate() {
                    judge(&logits, index * 16 + row, heads[0].vocabulary(), score);
                }
            });
            scores.append(&mut rows);
            at = here.end;
        }
        let bytes = tokens.ends[window.scored.end - 1] - tokens.ends[window.scored.start - 1];
        ScoredWindow { scores, bytes, tokens: window.tokens.len() }
    }
}

/// Fills in a score from row `row` of each model's logits.
fn judge(logits: &[&[f32]], row: usize, vocabulary: usize, score: &mut TokenScore) {
    let row = row * vocabulary..(row + 1) * vocabulary;
    let own = &logits[0][row.clone()];
    let token = score.token as usize;
    score.nll = vector::LogSum::of(own).nll(own[token]);
    score.against = logits.get(1).map(|other| {
        let other = &other[row.clone()];
        TokenComparison {
            nll: vector::LogSum::of(other).nll(other[token]),
            kl: vector::kl(other, own),
            agree: vector::argmax(own) == vector::argmax(other),
        }
    });
}

impl Subject<'_> {
    /// Layers that run.
    fn layers(&self) -> usize {
        if self.kept.is_some() { 0 } else { self.decoder.config().layers() }
    }

    /// The last states `[tokens, hidden]` of each window, of which the first has the index `first`.
    fn kept_states(
        &self,
        kept: &KeptStates,
        first: usize,
        windows: &[Window],
    ) -> Result<Vec<Vec<f32>>> {
        let width = self.decoder.config().hidden;
        let of = |(index, window): (usize, &Window)| {
            kept.of_window(first + index, window.tokens.len() * width)
        };
        windows.iter().enumerate().map(of).collect()
    }

    /// The last states `[tokens, hidden]` of each window. Each layer is read once for all windows.
    fn states(
        &self,
        windows: &[Window],
        tokens: &Tokens,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let embed = |window: &Window| self.decoder.embed(&tokens.ids[window.tokens.clone()]);
        let mut states = windows.iter().map(embed).collect::<Result<Vec<_>, _>>()?;
        let layers = self.decoder.config().layers();
        let mut layer = self.decoder.layer(0)?;
        for next in 1..=layers {
            layer = std::thread::scope(|scope| -> Result<_> {
                // The next layer is read in the meantime.
                let decoder = self.decoder;
                let read =
                    move || if next < layers { decoder.layer(next).map(Some) } else { Ok(None) };
                let reader = start_thread(scope, read)?;
                layer.prepare(self.workspace.compute());
                self.workspace.compute().each_chunk(&mut states, 1, |_, hidden| {
                    layer.forward(&self.workspace, &mut hidden[0]);
                });
                let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                Ok(read?.unwrap_or_else(|| Arc::clone(&layer)))
            })?;
            tick()?;
        }
        Ok(states)
    }
}

/// Spreads the tokens of a batch over its steps, for progress.
struct Steps {
    tokens: usize,
    steps: usize,
    done: usize,
}

impl Steps {
    fn new(tokens: usize, steps: usize) -> Steps {
        Steps { tokens, steps, done: 0 }
    }

    /// Tokens of the next step.
    fn next(&mut self) -> u64 {
        let until = |done| self.tokens * done / self.steps;
        let before = until(self.done);
        self.done += 1;
        (until(self.done) - before) as u64
    }
}
