//! The negative log-likelihood of each scored token.

use std::borrow::Cow;
use std::sync::Arc;

use physarium_checkpoint::start_thread;
use physarium_model::{Buffer, Compute, Config, Decoder, Head, Workspace, vector};

use super::states::{KeptStates, States, StatesWriter};
use super::windows::Window;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Bytes for the logits of one model.
const LOGITS_BYTES: usize = 64 << 20;
/// Tokens whose states are in memory together.
pub(crate) const BATCH_TOKENS: usize = 8192;
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
    /// Tokens of the window, scored or not.
    pub(crate) tokens: usize,
}

/// Windows whose states are in memory together, and the tokens that their positions are of.
pub(crate) struct Batch<'a> {
    pub(crate) windows: Cow<'a, [Window]>,
    pub(crate) ids: Cow<'a, [u32]>,
}

impl Batch<'_> {
    /// Tokens of the windows together.
    pub(crate) fn tokens(&self) -> u64 {
        self.windows.iter().map(|window| window.tokens.len() as u64).sum()
    }
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

    /// Scores windows, batch after batch, and keeps what `result` makes of each. Returns the batches that are done if
    /// `cancel` is raised.
    ///
    /// # Errors
    /// `Model` for weights that cannot be read; `Stopped` if `cancel` is raised before a batch is done.
    pub(crate) fn score<'b, T>(
        &mut self,
        batches: impl Iterator<Item = Batch<'b>>,
        result: impl Fn(ScoredWindow) -> T,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<T>> {
        let mut scored = Vec::new();
        for batch in batches {
            match self.batch(&batch, cancel, progress) {
                Ok(windows) => {
                    self.done += windows.len();
                    scored.extend(windows.into_iter().map(&result));
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
        batch: &Batch<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<ScoredWindow>> {
        let windows = &batch.windows[..];
        // A scored token need not be read: the last one of a window is not.
        for subject in &self.subjects {
            for window in windows {
                subject.decoder.refuse_unknown(&batch.ids[window.scored.clone()])?;
            }
        }
        let places = places(windows);
        let mut steps = self.steps(batch.tokens(), places.len() as u64);
        let mut tick = |products| {
            progress.event(Event::Tokens(steps.next(products)));
            if cancel.is_raised() { Err(Error::Stopped) } else { Ok(()) }
        };
        let mut states = Vec::new();
        for subject in &self.subjects {
            states.push(match subject.kept {
                Some(kept) => subject.kept_states(kept, self.done, windows)?,
                None => subject.states(batch, &mut tick)?,
            });
        }
        if let Some(writer) = &mut self.keep {
            states[0].iter().try_for_each(|window| writer.append(window))?;
        }
        let mut heads = Vec::new();
        for subject in &self.subjects {
            heads.push(subject.decoder.head()?);
        }
        let head_weights = self.head_weights();
        let mut scores = Vec::new();
        for places in places.chunks(self.rows) {
            scores.append(&mut self.scores(places, batch, &heads, &states));
            tick(head_weights * places.len() as u64)?;
        }
        let mut scores = scores.into_iter();
        let of = |window: &Window| ScoredWindow {
            scores: scores.by_ref().take(window.scored.len()).collect(),
            tokens: window.tokens.len(),
        };
        Ok(windows.iter().map(of).collect())
    }

    /// The work on `tokens` tokens, of which `places` have a prediction that is scored.
    fn steps(&self, tokens: u64, places: u64) -> Steps {
        let layers: u64 = self.subjects.iter().map(Subject::layer_weights).sum();
        Steps { tokens, products: layers * tokens + self.head_weights() * places, done: 0 }
    }

    /// Weights of the heads.
    fn head_weights(&self) -> u64 {
        let of = |config: &Config| (config.hidden * config.vocabulary) as u64;
        self.subjects.iter().map(|subject| of(subject.decoder.config())).sum()
    }

    /// Scores the tokens at some places, from the last states of each model: `[tokens, hidden]` of each window.
    ///
    /// One place is computed as two equal ones are: a product with a single row has sums of another order, and the score
    /// of a token would depend on how many there are with it.
    fn scores(
        &mut self,
        places: &[Place],
        batch: &Batch<'_>,
        heads: &[Arc<Head>],
        states: &[Vec<Vec<f32>>],
    ) -> Vec<TokenScore> {
        let twice = if places.len() == 1 { places } else { &[] };
        for ((subject, head), states) in self.subjects.iter_mut().zip(heads).zip(states) {
            let width = subject.decoder.config().hidden;
            let row = |place: &Place| {
                let begin = place.row * width;
                &states[place.window][begin..begin + width]
            };
            let rows: Vec<f32> = places.iter().chain(twice).flat_map(row).copied().collect();
            head.logits(&subject.workspace, &rows, &mut subject.logits);
        }
        let score = |place: &Place| {
            let position = batch.windows[place.window].tokens.start + place.row + 1;
            TokenScore { position, token: batch.ids[position], ..TokenScore::default() }
        };
        let mut scores: Vec<TokenScore> = places.iter().map(score).collect();
        let logits: Vec<&[f32]> = self.subjects.iter().map(|s| &s.logits[..]).collect();
        self.compute.each_chunk(&mut scores, 16, |index, scores| {
            for (row, score) in scores.iter_mut().enumerate() {
                judge(&logits, index * 16 + row, heads[0].vocabulary(), score);
            }
        });
        scores
    }
}

/// Where the prediction of a scored token is.
struct Place {
    /// Index of the window in its batch.
    window: usize,
    /// Row of the window's states: that of the position before the token.
    row: usize,
}

/// The places of all scored tokens of some windows.
fn places(windows: &[Window]) -> Vec<Place> {
    let of = |(index, window): (usize, &Window)| {
        let begin = window.tokens.start;
        let rows = window.scored.clone().map(move |position| position - 1 - begin);
        rows.map(move |row| Place { window: index, row })
    };
    windows.iter().enumerate().flat_map(of).collect()
}

/// Fills in a score from row `row` of each model's logits.
fn judge(logits: &[&[f32]], row: usize, vocabulary: usize, score: &mut TokenScore) {
    let row = row * vocabulary..(row + 1) * vocabulary;
    let own = &logits[0][row.clone()];
    let token = score.token as usize;
    score.nll = vector::LogSum::of(own).nll(own[token]);
    score.against = logits.get(1).map(|other| {
        let other = &other[row.clone()];
        let nll = vector::LogSum::of(other).nll(other[token]);
        // NaN has no largest logit.
        let agree =
            !score.nll.is_nan() && !nll.is_nan() && vector::argmax(own) == vector::argmax(other);
        TokenComparison { nll, kl: vector::kl(other, own), agree }
    });
}

impl Subject<'_> {
    /// Weights of the layers that run.
    fn layer_weights(&self) -> u64 {
        let config = self.decoder.config();
        if self.kept.is_some() { 0 } else { (config.layers() * config.layer_weights()) as u64 }
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
        batch: &Batch<'_>,
        tick: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let embedding = self.decoder.embedding()?;
        let embed = |window: &Window| embedding.of(&batch.ids[window.tokens.clone()]);
        let mut states = batch.windows.iter().map(embed).collect::<Result<Vec<_>, _>>()?;
        drop(embedding);
        let layers = self.decoder.config().layers();
        let layer_products = self.decoder.config().layer_weights() as u64 * batch.tokens();
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
            tick(layer_products)?;
        }
        Ok(states)
    }
}

/// Spreads the tokens of a batch over its steps by their products with weights, for progress.
struct Steps {
    tokens: u64,
    /// Of all steps.
    products: u64,
    done: u64,
}

impl Steps {
    /// Tokens of the next step, which has as many products with weights.
    fn next(&mut self, products: u64) -> u64 {
        let until = |done| {
            let share = u128::from(self.tokens) * u128::from(done) / u128::from(self.products);
            share as u64
        };
        let before = until(self.done);
        self.done += products;
        until(self.done) - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tokens_are_done_after_the_last_step() {
        let mut steps = Steps { tokens: 10, products: 4, done: 0 };
        assert_eq!([1, 2, 1].map(|products| steps.next(products)), [2, 5, 3]);
    }
}
