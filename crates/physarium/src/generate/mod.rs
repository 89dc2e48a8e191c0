/*!
Text out of a model, token by token.

In: a checkpoint directory or a packed file, and a prompt ([`GenerateRequest`]). Out: the text, as it
comes, and what it took ([`Generated`]). The same request gives the same text; greedily, a packed file
gives the text of the directory that it was packed from, since the sums are the same bits.
*/

mod chat;
mod sampling;
mod stop;

use std::path::Path;
use std::time::{Duration, Instant};

use physarium_checkpoint::printable;
use physarium_model::{Compute, Decoder, Generation, Residency};
use tokenizers::Tokenizer;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::tokenizer::{self, TokenizerConfig};

pub use sampling::Sampling;

use sampling::Sampler;

/// Tokens of a prompt that are read before anyone can stop it.
const PROMPT_TOKENS: usize = 256;

/// What the model is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// The beginning of a text to go on with.
    Text(&'a str),
    /// What a user says, put into the model's own chat template.
    Chat(&'a str),
}

/// What to generate, and how.
#[derive(Debug, Clone, Copy)]
pub struct GenerateRequest<'a> {
    /// Checkpoint directory or packed file.
    pub model: &'a Path,
    /// What it goes on with.
    pub prompt: Prompt<'a>,
    /// Most tokens that are generated; fewer where the model says that it is done, or is made for no
    /// more positions.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Threads that compute; the text does not depend on it.
    pub threads: usize,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The model said that the text is complete.
    EndOfText,
    /// As many tokens as were asked for.
    MaxTokens,
    /// No position is left that the model is made for.
    Positions,
    /// The caller asked to stop.
    Cancelled,
}

/// What was generated, and what it took.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Generated {
    /// The text, without the prompt and special tokens.
    pub text: String,
    /// Why it ended.
    pub stopped: Stopped,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were generated, one for the end of the text among them.
    pub generated_tokens: usize,
    /// Bytes of weights that one token reads.
    pub weights_bytes: usize,
    /// Reading weights and tokenizer.
    pub load: Duration,
    /// The prompt through the layers.
    pub prompt: Duration,
    /// From the call to the first token.
    pub first_token: Duration,
    /// All tokens after the first.
    pub generation: Duration,
}

/// Generates. `on_text` is told of text as soon as its characters are complete; it stops the work by an
/// error.
///
/// # Errors
/// `Checkpoint` and `Model` for what is wrong with files, `Usage` for a prompt of no tokens or too many,
/// and sampling parameters out of range, `NonFiniteLogits` for a model that computes NaN.
pub fn generate(
    request: &GenerateRequest<'_>,
    cancel: &Cancel,
    on_text: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Generated> {
    let began = Instant::now();
    let mut sampler = Sampler::new(request.sampling)?;
    let decoder = Decoder::open(request.model, Residency::Resident)?;
    let compute = Compute::new(request.threads)?.sparing_memory();
    // The tokenizer is read beside the weights.
    let (read, loaded) = std::thread::scope(|scope| {
        let reader = physarium_checkpoint::start_thread(scope, || read_prompt(&decoder, request));
        let loaded = decoder.load(&compute);
        let read = reader
            .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (read, loaded)
    });
    let (tokenizer, config, prompt) = read??;
    loaded?;
    let ends = stop::tokens(decoder.files(), &tokenizer, &config)?;
    let room = decoder.config().max_positions.unwrap_or(usize::MAX);
    if prompt.is_empty() || prompt.len() >= room {
        let most = room - 1;
        let found = prompt.len();
        return Err(Error::Usage(format!("a prompt of {found} tokens: expected 1 to {most}")));
    }
    let most = request.max_tokens.min(room - prompt.len());
    let mut generation = Generation::new(&compute, &decoder, prompt.len() + most)?;
    let load = began.elapsed();
    let mut stream = tokenizer.decode_stream(true);
    let mut done = Generated {
        text: String::new(),
        stopped: if most < request.max_tokens { Stopped::Positions } else { Stopped::MaxTokens },
        prompt_tokens: prompt.len(),
        generated_tokens: 0,
        weights_bytes: generation.weights_bytes(),
        load,
        prompt: Duration::ZERO,
        first_token: Duration::ZERO,
        generation: Duration::ZERO,
    };
    // A long prompt can be stopped on the way.
    let begin = (prompt.len() - 1) / PROMPT_TOKENS * PROMPT_TOKENS;
    for tokens in prompt[..begin].chunks(PROMPT_TOKENS) {
        if cancel.is_raised() {
            return Ok(Generated { stopped: Stopped::Cancelled, ..done });
        }
        generation.feed(tokens)?;
    }
    let mut next = prompt[begin..].to_vec();
    let mut first = Instant::now();
    while done.generated_tokens < most {
        let logits = generation.feed(&next)?;
        if logits.iter().any(|logit| logit.is_nan()) {
            let tokens = generation.seen();
            return Err(Error::NonFiniteLogits { model: request.model.to_owned(), tokens });
        }
        let token = sampler.choose(logits);
        if done.generated_tokens == 0 {
            done.first_token = began.elapsed();
            done.prompt = done.first_token - load;
            first = Instant::now();
        }
        done.generated_tokens += 1;
        if ends.contains(&token) {
            done.stopped = Stopped::EndOfText;
            break;
        }
        let text = stream.step(token);
        let text = text.map_err(|e| tokenizer::fault(decoder.files(), &e.to_string()))?;
        if let Some(text) = text {
            on_text(&text)?;
            done.text += &text;
        }
        if cancel.is_raised() {
            done.stopped = Stopped::Cancelled;
            break;
        }
        next = vec![token];
    }
    done.generation = first.elapsed();
    Ok(done)
}

/// The model's tokenizer, what its config says, and the prompt's tokens.
fn read_prompt(
    decoder: &Decoder,
    request: &GenerateRequest<'_>,
) -> Result<(Tokenizer, TokenizerConfig, Vec<u32>)> {
    let files = decoder.files();
    let (tokenizer, _) = tokenizer::read(files)?;
    let config = TokenizerConfig::read(files)?;
    let encode = |text: &str| {
        let encoding = tokenizer.encode(text, false);
        let encoding = encoding.map_err(|e| {
            tokenizer::fault(files, &format!("on the prompt: {}", printable(&e.to_string())))
        })?;
        Ok::<_, Error>(encoding.get_ids().to_vec())
    };
    let tokens = match request.prompt {
        Prompt::Text(text) => {
            let (_, first) = tokenizer::bos(&config, &tokenizer)?;
            first.into_iter().chain(encode(text)?).collect()
        }
        // The template writes its special tokens itself.
        Prompt::Chat(text) => encode(&chat::render(files, &config, text)?)?,
    };
    Ok((tokenizer, config, tokens))
}
