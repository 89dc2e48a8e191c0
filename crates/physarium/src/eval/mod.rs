/*!
Perplexity of a checkpoint on a text, and how far it is from another checkpoint.

In: a checkpoint, a text, a protocol ([`EvalRequest`]). Out: an [`Evaluation`], which has the protocol
in it. The text becomes tokens ([`tokens`]), tokens become windows ([`windows`]), a batch of windows
goes through the layers, and every scored position gets its negative log-likelihood ([`score`]).
*/

mod report;
mod score;
mod text;
mod tokens;
mod windows;

use std::path::Path;
use std::time::Instant;

use physarium_checkpoint::Malformed;
use physarium_model::{Compute, Decoder, Residency};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

pub use report::{Against, Evaluation, Protocol};
pub use score::TokenScore;

use report::Totals;
use score::Scorer;
pub(crate) use text::Text;
pub(crate) use tokens::Tokens;

/// Window in tokens where none is asked for and the model allows it.
const DEFAULT_WINDOW: usize = 2048;
/// Tokens whose states are in memory at once.
const BATCH_TOKENS: usize = 8192;

/// What to evaluate, and how.
#[derive(Debug, Clone, Copy)]
pub struct EvalRequest<'a> {
    /// The checkpoint directory, or a packed file.
    pub model: &'a Path,
    /// Another checkpoint, usually the dense one, to compare it with.
    pub against: Option<&'a Path>,
    /// Plain text, or JSON Lines.
    pub text: &'a Path,
    /// Field of the JSON objects that holds the text; makes any file JSON Lines.
    pub field: Option<&'a str>,
    /// Tokens that the model sees at once; 2048 or what the model is made for when `None`.
    pub window: Option<usize>,
    /// Tokens from one window to the next; a whole window when `None`.
    pub stride: Option<usize>,
    /// Tokens of the text to use, from its beginning; all when `None`.
    pub limit: Option<usize>,
    /// Threads that compute.
    pub threads: usize,
}

/// Scores a text.
///
/// Stopped by `cancel`, it returns what it has, marked partial, once a batch of windows is done.
///
/// # Errors
/// `Checkpoint` and `Model` for what is wrong with files, `Usage` for a window that does not fit,
/// `Stopped` when `cancel` comes before there is anything to return.
pub fn evaluate(
    request: &EvalRequest<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let began = Instant::now();
    let decoder = Decoder::open(request.model, Residency::Streamed)?;
    let other = request.against.map(|dir| Decoder::open(dir, Residency::Streamed)).transpose()?;
    let window = window(request, &[Some(&decoder), other.as_ref()])?;
    let stride = request.stride.unwrap_or(window);
    if stride > window {
        let what = format!("--stride {stride}: expected at most the window of {window} tokens");
        return Err(Error::Usage(what));
    }
    let text = Text::read(request.text, request.field)?;
    progress.event(Event::Step("tokenizing"));
    let tokens = Tokens::of(decoder.files(), &text, request.limit)?;
    if let Some(other) = &other {
        tokens.refuse_other_tokenizer(&text, request.limit, other.files())?;
    }
    let windows = windows::cut(tokens.ids.len(), window, stride);
    let Some(last) = windows.last() else {
        let expected = format!("at least one window of {window} tokens");
        let found = format!("{} tokens", tokens.ids.len());
        let hint = "a smaller --window, a larger --limit or a longer text";
        return Err(Malformed::new(request.text, "text too short", expected, found)
            .with_hint(hint)
            .into());
    };
    let tail = tokens.ids.len() - last.tokens.end;

    let compute = Compute::new(request.threads)?;
    let mut scorer = Scorer::new(&compute, &decoder, other.as_ref(), window)?;
    let mut totals = Totals::default();
    let computing = Instant::now();
    progress.event(Event::TokensStarted { task: "eval", tokens: (windows.len() * window) as u64 });
    let batch = (BATCH_TOKENS / window).max(1);
    for windows in windows.chunks(batch) {
        match scorer.batch(windows, &tokens, cancel, progress) {
            Ok(scored) => totals.add(scored),
            Err(Error::Stopped) if !totals.is_empty() => break,
            Err(e) => return Err(e),
        }
    }
    progress.event(Event::Finished);
    let protocol = Protocol {
        text: text.describe(),
        tokenizer_sha256: tokens.tokenizer_sha256.clone(),
        bos: tokens.bos.clone(),
        window,
        stride,
        limit: request.limit,
        tail_rule: "tokens after the last whole window are dropped",
        tail_tokens: tail,
        scored: "every token that a window is the first to hold, but for the text's first",
        weights: decoder.dtype()?,
        arithmetic: compute.instructions().arithmetic(),
        instructions: compute.instructions().name(),
        threads: compute.threads(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let protocol = Protocol {
        scored: if stride == window {
            "all but the first token of each window"
        } else {
            protocol.scored
        },
        ..protocol
    };
    Ok(totals.finish(protocol, windows.len(), computing.elapsed(), began.elapsed()))
}

/// The window: what is asked for, if the models are made for it.
fn window(request: &EvalRequest<'_>, decoders: &[Option<&Decoder>]) -> Result<usize> {
    let limits = decoders.iter().flatten().filter_map(|decoder| decoder.config().max_positions);
    let most = limits.min().unwrap_or(usize::MAX);
    let window = request.window.unwrap_or(DEFAULT_WINDOW.min(most));
    if window > most {
        let what = format!("--window {window}: the model is made for at most {most} positions");
        return Err(Error::Usage(what));
    }
    if window < 2 {
        return Err(Error::Usage(format!("--window {window}: expected at least 2 tokens")));
    }
    Ok(window)
}
