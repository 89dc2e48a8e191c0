//! From windows of tokens to the negative log-likelihood of each.

use std::sync::Arc;

use physarium_checkpoint::start_thread;
use physarium_model::{Buffer, Compute, Decoder, Head, Workspace, vector};

use super::tokens::Tokens;
use super::windows::Window;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Bytes that the logits of one model may take.
const LOGITS_BYTES: usize = 64 << 20;
/// Most rows of logits at once.
const LOGITS_ROWS: usize = 256;

/// What is known of a scored token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenScore {
    /// Its position in the text.
    pub position: usize,
    /// Its id.
    pub token: u32,
    /// Negative log-likelihood in nats.
    pub nll: f64,
    /// The same and more by the model that it is compared with.
    pub against: Option<Comparison>,
}

/// How two models see the same position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Negative log-likelihood by the other model, in nats.
    pub nll: f64,
    /// Kullback–Leibler divergence of the model's distribution from the other's, in nats.
    pub kl: f64,
    /// Whether both put the same token first.
    pub agree: bool,
}

/// A window with its scores.
pub(crate) struct ScoredWindow {
    pub(crate) scores: Vec<TokenScore>,
    /// Bytes of text that the scored tokens stand for.
    pub(crate) bytes: usize,
    pub(crate) tokens: usize,
}

/// One or two models that look at the same windows.
pub(crate) struct Scorer<'a> {
    subjects: Vec<Subject<'a>>,
    compute: &'a Compute,
    rows: usize,
}

/// A model at work.
struct Subject<'a> {
    decoder: &'a Decoder,
    run: Workspace<'a>,
    logits: Buffer,
}

impl<'a> Scorer<'a> {
    /// For windows of at most `window` tokens.
    pub(crate) fn new(
        compute: &'a Compute,
        decoder: &'a Decoder,
        against: Option<&'a Decoder>,
        window: usize,
    ) -> Result<Scorer<'a>> {
        let vocabulary = decoder.config().vocabulary;
        if let Some(other) = against.filter(|other| other.config().vocabulary != vocabulary) {
            return Err(Error::Usage(format!(
                "the models have vocabularies of {vocabulary} and {} tokens, and cannot be compared",
                other.config().vocabulary
            )));
        }
        let subject = |decoder: &'a Decoder| {
            let run = Workspace::new(compute, decoder.config(), window);
            Subject { decoder, run, logits: Buffer::default() }
        };
        let subjects = std::iter::once(decoder).chain(against).map(subject).collect();
        let rows = (LOGITS_BYTES / (4 * vocabulary)).clamp(1, LOGITS_ROWS);
        Ok(Scorer { subjects, compute, rows })
    }

    /// Scores windows, whose states are in memory together.
    pub(crate) fn batch(
        &mut self,
        windows: &[Window],
        tokens: &Tokens,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<ScoredWindow>> {
        let total: usize = windows.iter().map(|window| window.tokens.len()).sum();
        let layers: usize = self.subjects.iter().map(|s| s.decoder.config().layers()).sum();
        let mut steps = Steps::new(total, layers + windows.len());
        let mut tick = || {
            progress.event(Event::Tokens(steps.next()));
            if cancel.is_raised() { Err(Error::Stopped) } else { Ok(()) }
        };
        let mut states = Vec::new();
        for subject in &self.subjects {
            states.push(subject.states(windows, tokens, &mut tick)?);
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

    /// Scores one window from the last states of each model.
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
                // A token is predicted by the position before it.
                let first = here.start - 1 - window.tokens.start;
                let rows = &states[first * width..(first + here.len()) * width];
                head.logits(&subject.run, rows, &mut subject.logits);
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

/// Fills in a score from row `row` of the logits of one model or two.
fn judge(logits: &[&[f32]], row: usize, vocabulary: usize, score: &mut TokenScore) {
    let row = row * vocabulary..(row + 1) * vocabulary;
    let own = &logits[0][row.clone()];
    let token = score.token as usize;
    score.nll = vector::LogSum::of(own).nll(own[token]);
    score.against = logits.get(1).map(|other| {
        let other = &other[row.clone()];
        Comparison {
            nll: vector::LogSum::of(other).nll(other[token]),
            kl: vector::kl(other, own),
            agree: vector::argmax(own) == vector::argmax(other),
        }
    });
}

impl Subject<'_> {
    /// The last states `[tokens, hidden]` of each window; a layer is read once for all of them.
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
                // The next layer is read meanwhile.
                let decoder = self.decoder;
                let read =
                    move || if next < layers { decoder.layer(next).map(Some) } else { Ok(None) };
                let reader = start_thread(scope, read)?;
                layer.prepare(self.run.compute());
                self.run.compute().each_chunk(&mut states, 1, |_, hidden| {
                    layer.forward(&self.run, &mut hidden[0]);
                });
                let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                Ok(read?.unwrap_or_else(|| Arc::clone(&layer)))
            })?;
            tick()?;
        }
        Ok(states)
    }
}

/// Spreads tokens over the steps that a batch takes, for the progress.
struct Steps {
    tokens: usize,
    steps: usize,
    done: usize,
}

impl Steps {
    fn new(tokens: usize, steps: usize) -> Steps {
        Steps { tokens, steps, done: 0 }
    }

    /// Tokens that the next step counts for.
    fn next(&mut self) -> u64 {
        let until = |done| self.tokens * done / self.steps;
        let before = until(self.done);
        self.done += 1;
        (until(self.done) - before) as u64
    }
}
