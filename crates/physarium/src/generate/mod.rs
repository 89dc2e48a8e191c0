/*!
Text generation, token by token.

In: a checkpoint directory or a packed file, and a prompt ([`GenerateRequest`]). Out: the text while it is generated,
and at the end the text with its figures ([`Generated`]). The same request gives the same text. At temperature 0 a
packed file gives the same text as the directory that it was packed from.
*/

mod chat;
mod python;
mod sampling;
mod stop;
mod template;

use std::panic::resume_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use physarium_checkpoint::{Arithmetic, start_thread};
use physarium_model::{Compute, Decoder, Generation, Residency};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::recipe::arithmetic::evaluating;
use crate::tokenizer::{ModelTokenizer, TokenizerConfig};

pub use sampling::Sampling;

use sampling::Sampler;

/// Tokens of a prompt that are processed at once; cancellation is checked in between.
const PROMPT_TOKENS: usize = 256;

/// The prompt of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// The beginning of a text to continue.
    Text(&'a str),
    /// A user's message, which is put into the model's own chat template.
    Chat(&'a str),
}

/// What to generate, and how.
#[derive(Debug, Clone, Copy)]
pub struct GenerateRequest<'a> {
    /// The checkpoint directory, or a packed file.
    pub model: &'a Path,
    /// The text to continue, or the message to answer.
    pub prompt: Prompt<'a>,
    /// Most tokens to generate. Fewer are generated if the model ends the text or reaches its context limit.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Threads to compute on. The text does not depend on their number.
    pub threads: usize,
    /// Arithmetic of the prompt's products. Default: the fastest one of the machine.
    pub arithmetic: Option<Arithmetic>,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The model ended the text.
    EndOfText,
    /// The requested number of tokens is generated.
    MaxTokens,
    /// The model's context limit is reached.
    Positions,
    /// The run was cancelled.
    Cancelled,
}

/// Generated text, and figures of its generation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Generated {
    /// The text, without the prompt and special tokens.
    pub text: String,
    /// Why generation ended.
    pub stopped: Stopped,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, including one that ends the text.
    pub generated_tokens: usize,
    /// Bytes of weights that are read for each token.
    pub weights_bytes: usize,
    /// Time for reading weights and tokenizer.
    pub load: Duration,
    /// Time from then to the first token, for processing the prompt.
    pub prompt: Duration,
    /// Time from the call to the first token.
    pub first_token: Duration,
    /// Time for all tokens after the first.
    pub generation: Duration,
    /// What the user should know about the model.
    pub notes: Vec<String>,
}

/// Generates text. Calls `on_text` with each piece of text as soon as its characters are complete; an error from it
/// stops the run.
///
/// If `cancel` is raised, it returns what it has.
///
/// # Errors
/// `Stopped` if `cancel` is raised while the model is read. `Checkpoint` and `Model` for faults in files; `Usage` for a prompt that is empty or too long, and for sampling
/// parameters out of range; `NonFiniteLogits` for a model that computes NaN; what `on_text` returns.
pub fn generate(
    request: &GenerateRequest<'_>,
    cancel: &Cancel,
    on_text: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Generated> {
    let began = Instant::now();
    let sampler = Sampler::new(request.sampling)?;
    let decoder = Decoder::open(request.model, Residency::Resident)?;
    let compute = evaluating(request.threads, request.arithmetic)?;
    let compute = compute.sparing_memory().stopping_when(cancel.asked());
    let Loaded { tokenizer, ends, prompt } = Loaded::read(&decoder, &compute, request)?;
    if cancel.is_raised() {
        return Err(Error::Stopped);
    }
    let room = decoder.config().max_positions.unwrap_or(usize::MAX);
    if prompt.is_empty() || prompt.len() >= room {
        let (found, most) = (prompt.len(), room - 1);
        return Err(Error::Usage(format!("a prompt of {found} tokens: expected 1 to {most}")));
    }
    let most = request.max_tokens.min(room - prompt.len());
    let generation = Generation::new(&compute, &decoder, prompt.len() + most)?;
    let generated = Generated {
        text: String::new(),
        stopped: if most < request.max_tokens { Stopped::Positions } else { Stopped::MaxTokens },
        prompt_tokens: prompt.len(),
        generated_tokens: 0,
        weights_bytes: generation.weights_bytes(),
        load: began.elapsed(),
        prompt: Duration::ZERO,
        first_token: Duration::ZERO,
        generation: Duration::ZERO,
        notes: decoder.notes().iter().map(ToString::to_string).collect(),
    };
    let session = Session {
        model: request.model,
        tokenizer: &tokenizer,
        ends,
        most,
        cancel,
        generation,
        sampler,
        began,
        generated,
    };
    session.run(&prompt, on_text)
}

/// What the model's files and the request give: a tokenizer, the tokens that end a text, and the prompt's tokens.
struct Loaded {
    tokenizer: ModelTokenizer,
    ends: Vec<u32>,
    prompt: Vec<u32>,
}

impl Loaded {
    /// Reads the tokenizer while another thread reads the weights.
    fn read(decoder: &Decoder, compute: &Compute, request: &GenerateRequest<'_>) -> Result<Loaded> {
        // First, while nothing else takes time: a template that does not end is left running.
        let chat = match request.prompt {
            Prompt::Text(_) => None,
            Prompt::Chat(message) => {
                let files = decoder.files();
                Some(chat::render(files, &TokenizerConfig::read(files)?, message)?)
            }
        };
        let (loaded, weights) = std::thread::scope(|scope| {
            let reader = start_thread(scope, || Loaded::read_prompt(decoder, request, chat));
            let weights = decoder.load(compute);
            let loaded =
                reader.map(|reader| reader.join().unwrap_or_else(|panic| resume_unwind(panic)));
            (loaded, weights)
        });
        let loaded = loaded??;
        weights?;
        Ok(loaded)
    }

    /// Reads the tokenizer. `chat` is the prompt if it comes from the chat template.
    fn read_prompt(
        decoder: &Decoder,
        request: &GenerateRequest<'_>,
        chat: Option<String>,
    ) -> Result<Loaded> {
        let files = decoder.files();
        let tokenizer = ModelTokenizer::read(files)?;
        let encode =
            |text: &str| Ok::<_, Error>(tokenizer.encode(text, "the prompt")?.get_ids().to_vec());
        let prompt = match (request.prompt, chat) {
            // The template writes its special tokens itself.
            (_, Some(chat)) => encode(&chat)?,
            (Prompt::Text(text) | Prompt::Chat(text), None) => {
                let (_, first) = tokenizer.bos()?;
                first.into_iter().chain(encode(text)?).collect()
            }
        };
        let ends = stop::tokens(files, &tokenizer)?;
        Ok(Loaded { tokenizer, ends, prompt })
    }
}

/// A run in progress.
struct Session<'a> {
    model: &'a Path,
    tokenizer: &'a ModelTokenizer,
    /// Tokens that end the text.
    ends: Vec<u32>,
    /// Most tokens to generate.
    most: usize,
    cancel: &'a Cancel,
    generation: Generation<'a>,
    sampler: Sampler,
    began: Instant,
    generated: Generated,
}

impl Session<'_> {
    /// Generates until the text ends, the limit is reached, or the run is cancelled.
    fn run(
        mut self,
        prompt: &[u32],
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Generated> {
        // All but the last part of a long prompt, so that the run can be cancelled in between.
        let begin = (prompt.len() - 1) / PROMPT_TOKENS * PROMPT_TOKENS;
        for tokens in prompt[..begin].chunks(PROMPT_TOKENS) {
            if self.cancel.is_raised() {
                return Ok(Generated { stopped: Stopped::Cancelled, ..self.generated });
            }
            self.generation.feed(tokens)?;
        }
        let mut next = prompt[begin..].to_vec();
        let mut stream = self.tokenizer.tokenizer.decode_stream(true);
        let mut first = Instant::now();
        while self.generated.generated_tokens < self.most {
            let Some(token) = self.token_after(&next)? else {
                self.generated.stopped = Stopped::Cancelled;
                break;
            };
            if self.generated.generated_tokens == 0 {
                self.generated.first_token = self.began.elapsed();
                self.generated.prompt = self.generated.first_token - self.generated.load;
                first = Instant::now();
            }
            self.generated.generated_tokens += 1;
            if self.ends.contains(&token) {
                self.generated.stopped = Stopped::EndOfText;
                break;
            }
            if let Some(text) = self.tokenizer.step(&mut stream, token)? {
                on_text(&text)?;
                self.generated.text += &text;
            }
            if self.cancel.is_raised() {
                self.generated.stopped = Stopped::Cancelled;
                break;
            }
            next = vec![token];
        }
        self.generated.generation = first.elapsed();
        Ok(self.generated)
    }

    /// Feeds tokens and chooses the next one; `None` if the run is cancelled.
    fn token_after(&mut self, tokens: &[u32]) -> Result<Option<u32>> {
        let logits = self.generation.feed(tokens)?;
        if self.cancel.is_raised() {
            return Ok(None);
        }
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            let tokens = self.generation.seen();
            return Err(Error::NonFiniteLogits {
                model: self.model.to_owned(),
                tokens,
                line: None,
            });
        }
        Ok(Some(self.sampler.choose(logits)))
    }
}
