/*!
Evaluation: perplexity of a model on a text, and its distance from another model.

In: a model, a text and a protocol ([`EvalRequest`]). Out: an [`Evaluation`], which includes the protocol. The text
becomes tokens ([`tokens`]), the tokens become windows ([`windows`]), batches of windows pass through the layers, and
each scored position gets its negative log-likelihood ([`score`]). The scores can be kept in parts, which several processes
make ([`parts`]).
*/

mod documents;
mod encoding;
mod identity;
mod parts;
mod report;
mod score;
mod states;
mod text;
mod tokens;
mod windows;

use std::path::Path;
use std::time::{Duration, Instant};

use physarium_checkpoint::{Arithmetic, BosPlace, Malformed, printable};
use physarium_model::{Compute, Config, Decoder, Residency};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};
use crate::recipe::arithmetic::evaluating;

pub use parts::{PartsScored, PartsShare, evaluate_in_parts, score_parts};
pub use report::{Against, Evaluation, Protocol};
pub use score::{TokenComparison, TokenScore};
pub use text::TextUsed;

pub(crate) use identity::model_digests;
use report::Scored;
pub(crate) use score::{BATCH_TOKENS, Batch, ScoredWindow, Scorer};
pub(crate) use states::{KeptStates, States, StatesWriter};
pub(crate) use text::{Text, file_name, read as read_text};
pub(crate) use tokens::Tokens;
pub(crate) use windows::{Window, together};

/// The task of an evaluation in events.
const TASK: &str = "eval";
/// Default window in tokens, where the model supports as many.
const DEFAULT_WINDOW: usize = 2048;

/// What to evaluate, and how.
#[derive(Debug, Clone, Copy)]
pub struct EvalRequest<'a> {
    /// The checkpoint directory, or a packed file.
    pub model: &'a Path,
    /// Another model to compare with, usually the dense one.
    pub against: Option<&'a Path>,
    /// File with plain text or JSON Lines.
    pub text: &'a Path,
    /// Field of the JSON objects that holds the text. If given, any file is read as JSON Lines.
    pub field: Option<&'a str>,
    /// Tokens of a window, the context of the model. Default: 2048, or the model's maximum.
    pub window: Option<usize>,
    /// Tokens from the beginning of one window to that of the next. Default: the window.
    pub stride: Option<usize>,
    /// Tokens to use from the beginning of the text. Default: all.
    pub limit: Option<usize>,
    /// Where the token for the beginning of a text stands.
    pub bos: BosPlace,
    /// Threads to compute on.
    pub threads: usize,
    /// Arithmetic of the products. Default: the fastest one of the machine.
    pub arithmetic: Option<Arithmetic>,
}

/// Evaluates a model on a text.
///
/// If `cancel` is raised, it returns what it has after the current batch of windows, marked as partial.
///
/// # Errors
/// `Checkpoint` and `Model` for faults in files; `Usage` for a window or stride out of range, and for models whose
/// vocabularies differ in size; `Stopped` if `cancel` is raised before the first batch is done.
pub fn evaluate(
    request: &EvalRequest<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    evaluate_with(request, States::None, cancel, progress)
}

/// As [`evaluate`], keeping the model's states or using those of the other model. The result is the same.
///
/// # Errors
/// As [`evaluate`]; `Checkpoint` for states that cannot be written or read.
pub(crate) fn evaluate_with(
    request: &EvalRequest<'_>,
    states: States<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let began = Instant::now();
    let session = Session::open(request, cancel, progress)?;
    let mut scorer = session.scorer()?.with(states);
    let computing = Instant::now();
    let total = session.text.windows.iter().map(|window| window.tokens.len() as u64).sum();
    progress.event(Event::TokensStarted { task: TASK, tokens: total });
    let windows = scorer.score(session.text.batches(), |window| window, cancel, progress)?;
    progress.event(Event::Finished);
    let computing = computing.elapsed();
    session.evaluation(windows, computing, began)
}

/// An evaluation that can begin.
struct Session<'a> {
    request: &'a EvalRequest<'a>,
    decoder: Decoder,
    other: Option<Decoder>,
    text: WindowedText,
    compute: Compute,
}

impl<'a> Session<'a> {
    /// Opens the models and reads the text.
    ///
    /// # Errors
    /// As [`evaluate`].
    fn open(
        request: &'a EvalRequest<'a>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Session<'a>> {
        let decoder = Decoder::open(request.model, Residency::Streamed)?;
        let other =
            request.against.map(|dir| Decoder::open(dir, Residency::Streamed)).transpose()?;
        let text = WindowedText::read(request, &decoder, other.as_ref(), progress)?;
        let compute =
            evaluating(request.threads, request.arithmetic)?.stopping_when(cancel.asked());
        Ok(Session { request, decoder, other, text, compute })
    }

    /// A scorer of the text's windows.
    ///
    /// # Errors
    /// `Usage` for models whose vocabularies differ in size.
    fn scorer(&self) -> Result<Scorer<'_>> {
        let window = self.text.spacing.window;
        Scorer::new(&self.compute, &self.decoder, self.other.as_ref(), window)
    }

    /// Everything that the result depends on, beside the models.
    ///
    /// # Errors
    /// `Model` for a projection that is missing.
    fn protocol(&self) -> Result<Protocol> {
        self.text.protocol(self.request, &self.decoder, &self.compute)
    }

    /// The result, from the scores of the first windows, which took `computing`.
    ///
    /// # Errors
    /// As [`Session::protocol`].
    fn evaluation(
        &self,
        windows: Vec<ScoredWindow>,
        computing: Duration,
        began: Instant,
    ) -> Result<Evaluation> {
        let bytes = self.text.bytes(windows.len());
        let mut notes = notes(&self.decoder, self.other.as_ref());
        notes.extend(self.text.missing_bos(self.decoder.config()));
        let planned = self.text.windows.len();
        let scored = Scored { windows, bytes, planned, computing, notes };
        Ok(scored.evaluation(self.protocol()?, began.elapsed()))
    }
}

/// What an evaluation of one model would be, if nothing fails from here on.
pub(crate) struct EvalPlan {
    /// Everything that its numbers depend on.
    pub(crate) protocol: Protocol,
    /// Bytes of the model's last states.
    pub(crate) states_bytes: u64,
}

impl EvalPlan {
    /// Checks everything that [`evaluate`] checks before it computes.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub(crate) fn new(request: &EvalRequest<'_>, progress: &mut dyn Progress) -> Result<EvalPlan> {
        let decoder = Decoder::open(request.model, Residency::Streamed)?;
        let text = WindowedText::read(request, &decoder, None, progress)?;
        let compute = evaluating(request.threads, request.arithmetic)?;
        let states = text.windows.len() * text.spacing.window * decoder.config().hidden;
        Ok(EvalPlan {
            protocol: text.protocol(request, &decoder, &compute)?,
            states_bytes: (states * size_of::<f32>()) as u64,
        })
    }
}

/// What the user should know about a model, and about the one that it is compared with what differs.
pub(crate) fn notes(decoder: &Decoder, other: Option<&Decoder>) -> Vec<String> {
    let mut notes: Vec<String> = decoder.notes().iter().map(ToString::to_string).collect();
    if let Some(other) = other {
        let dir = printable(&other.files().path().to_string_lossy());
        let new = other.notes().iter().filter(|note| !decoder.notes().contains(note));
        notes.extend(new.map(|note| format!("{dir}: {note}")));
    }
    notes
}

/// A text as windows of tokens.
struct WindowedText {
    text: Text,
    tokens: Tokens,
    spacing: Spacing,
    windows: Vec<Window>,
}

impl WindowedText {
    /// Reads a request's text with the tokenizer of `decoder`.
    ///
    /// # Errors
    /// As [`evaluate`].
    fn read(
        request: &EvalRequest<'_>,
        decoder: &Decoder,
        other: Option<&Decoder>,
        progress: &mut dyn Progress,
    ) -> Result<WindowedText> {
        let spacing = Spacing::of(request, &[Some(decoder), other])?;
        let text = Text::read(request.text, request.field)?;
        progress.event(Event::Step("tokenizing"));
        let mut tokens = Tokens::of(decoder.files(), &text, request.limit)?;
        if let Some(other) = other {
            tokens.refuse_other_tokenizer(&text, request.limit, other.files())?;
        }
        if request.bos == BosPlace::EachWindow {
            tokens.begin_windows(spacing.window);
            tokens.truncate(request.limit.unwrap_or(usize::MAX));
        }
        let windows = windows::cut(tokens.ids.len(), spacing.window, spacing.stride);
        if windows.is_empty() {
            let expected = format!("at least one window of {} tokens", spacing.window);
            let found = format!("{} tokens", tokens.ids.len());
            let hint = "a smaller window, a larger --limit or a longer text";
            return Err(Malformed::new(request.text, "text too short", expected, found)
                .with_hint(hint)
                .into());
        }
        Ok(WindowedText { text, tokens, spacing, windows })
    }

    /// What to know of windows without the token for the beginning of a text, where the model needs it.
    fn missing_bos(&self, config: &Config) -> Option<String> {
        let bos = &self.tokens.bos;
        let is_missing = !bos.added || bos.place == BosPlace::Text && self.windows.len() > 1;
        (config.needs_bos && is_missing).then(|| {
            let family = &config.model_type;
            let place = match bos.added {
                true => "--bos each-window (compare: --eval-bos each-window)",
                false => "a tokenizer that adds it",
            };
            format!(
                "windows without BOS: {family} was trained with it, and without it the perplexity is far higher; \
                 expected {place}"
            )
        })
    }

    /// Windows that are scored together.
    fn batches(&self) -> impl Iterator<Item = Batch<'_>> {
        let lengths = self.windows.iter().map(|window| window.tokens.len());
        let ranges = together(lengths, BATCH_TOKENS).into_iter();
        ranges.map(|range| Batch {
            windows: self.windows[range].into(),
            ids: self.tokens.ids[..].into(),
        })
    }

    /// Bytes of the text of the tokens that are scored in the first `count` windows.
    fn bytes(&self, count: usize) -> usize {
        let ends = &self.tokens.ends;
        let scored = self.windows[..count].iter().map(|window| &window.scored);
        scored.map(|scored| ends[scored.end - 1] - ends[scored.start - 1]).sum()
    }

    /// Everything that the result depends on.
    fn protocol(
        &self,
        request: &EvalRequest<'_>,
        decoder: &Decoder,
        compute: &Compute,
    ) -> Result<Protocol> {
        let Spacing { window, stride } = self.spacing;
        let end = self.windows.last().map_or(0, |last| last.tokens.end);
        Ok(Protocol {
            text: self.text.describe(),
            tokenizer_sha256: self.tokens.tokenizer_sha256.clone(),
            bos: self.tokens.bos.clone(),
            window,
            stride,
            limit: request.limit,
            tail_rule: "tokens after the last whole window are dropped".into(),
            tail_tokens: self.tokens.ids.len() - end,
            scored: if stride == window {
                "all but the first token of each window".into()
            } else {
                "each token once, except the first of the text".into()
            },
            weights: decoder.dtype()?,
            arithmetic: in_words(compute.arithmetic()).into(),
            instructions: compute.instructions().into(),
            threads: compute.threads(),
            version: env!("CARGO_PKG_VERSION").into(),
        })
    }
}

/// The name of an arithmetic, and what it does.
pub(crate) fn in_words(arithmetic: physarium_model::Arithmetic) -> String {
    format!("{} ({})", arithmetic.name(), arithmetic.description())
}

/// Size and distance of windows, in tokens.
#[derive(Clone, Copy)]
struct Spacing {
    window: usize,
    stride: usize,
}

impl Spacing {
    /// The window and stride of a request.
    ///
    /// # Errors
    /// `Usage` for a window that one of the models does not support, and for a stride of zero or beyond the window.
    fn of(request: &EvalRequest<'_>, decoders: &[Option<&Decoder>]) -> Result<Spacing> {
        let limits = decoders.iter().flatten().filter_map(|decoder| decoder.config().max_positions);
        let most = limits.min().unwrap_or(usize::MAX);
        let window = request.window.unwrap_or(DEFAULT_WINDOW.min(most));
        if window > most {
            let what =
                format!("a window of {window} tokens: the model supports at most {most} positions");
            return Err(Error::Usage(what));
        }
        if window < 2 {
            return Err(Error::Usage(format!("--window {window}: expected at least 2 tokens")));
        }
        let stride = request.stride.unwrap_or(window);
        if !(1..=window).contains(&stride) {
            let what = format!("--stride {stride}: expected 1 to {window} tokens, the window");
            return Err(Error::Usage(what));
        }
        if request.bos == BosPlace::EachWindow && stride != window {
            let what = format!(
                "--bos each-window: expected a stride of the window, {window}, found {stride}"
            );
            return Err(Error::Usage(what));
        }
        Ok(Spacing { window, stride })
    }
}
