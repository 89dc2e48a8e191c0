//! `physarium run`: generates text.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use physarium::audit::grouped;
use physarium::{GenerateRequest, Generated, Prompt, Sampling, Stopped, generate};
use serde_json::json;

use crate::arguments::{
    ArithmeticArgument, DISPLAY, Format, FormatArgument, GENERATION, ThreadsArgument,
};
use crate::model::RevisionArgument;
use crate::output::{self, Outcome, size};
use crate::signals::{self, Reading};

/// Generate text with a checkpoint or a packed file
///
/// The text is streamed to stdout, without the prompt; the speed is printed on stderr. By default each token
/// is the most likely one, and a packed file then gives the same text as the directory it was packed from.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory, packed file or hub id (Llama, Mistral, Qwen2, Qwen3 or Gemma 3, with tokenizer.json)
    model: PathBuf,
    #[command(flatten)]
    revision: RevisionArgument,
    /// Prompt [default: stdin, without its final newline]
    #[arg(long, value_name = "TEXT", help_heading = GENERATION)]
    prompt: Option<String>,
    /// Format the prompt with the model's chat template
    #[arg(long, help_heading = GENERATION)]
    chat: bool,
    /// Maximum number of tokens to generate
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = GENERATION
    )]
    max_tokens: u32,
    /// Sampling temperature; 0 takes the most likely token
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true,
        help_heading = GENERATION
    )]
    temperature: f64,
    /// Sample from the most likely tokens with this total probability [default: 1]
    #[arg(long, value_name = "P", help_heading = GENERATION)]
    top_p: Option<f64>,
    /// Random seed of sampling [default: 0]
    #[arg(long, value_name = "N", help_heading = GENERATION)]
    seed: Option<u64>,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    arithmetic: ArithmeticArgument,
    #[command(flatten)]
    result: FormatArgument,
    /// Only errors on stderr
    #[arg(short, long, help_heading = DISPLAY)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  physarium run models/llama --prompt 'Once upon a time' --max-tokens 64
  physarium run pruned.physpack --chat --prompt 'What is a slime mould?' --temperature 0.7
  physarium run pruned.physpack < letter.txt";

/// Longest prompt that is read from stdin, in bytes.
const MAX_PROMPT: u64 = 64 << 20;

/// Generates text.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let sampling = arguments.sampling()?;
    let model = arguments.revision.find(&arguments.model)?;
    let reading = Reading::begin()?;
    let cancel = signals::cancel_on_signal()?;
    let text = match &arguments.prompt {
        Some(text) => text.clone(),
        None => read_stdin()?,
    };
    let request = GenerateRequest {
        model: &model.path,
        prompt: if arguments.chat { Prompt::Chat(&text) } else { Prompt::Text(&text) },
        max_tokens: arguments.max_tokens as usize,
        sampling,
        threads: arguments.threads.count(),
        arithmetic: arguments.arithmetic.given(),
    };
    let format = arguments.result.format;
    let streamed = format == Format::Text;
    let mut failed = None;
    let generated = generate(&request, &cancel, &mut |text| {
        reading.end();
        if streamed && failed.is_none() {
            failed = show(text).err();
        }
        if failed.is_some() {
            cancel.raise();
        }
        Ok(())
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    match format {
        Format::Json => {
            output::json(&output::with_notes(as_json(&generated), &generated.notes))?;
        }
        Format::Text => output::text("\n")?,
    }
    if !arguments.quiet {
        output::notes(&generated.notes);
        output::note(&speed(&generated));
    }
    Ok(if generated.stopped == Stopped::Cancelled { Outcome::Partial } else { Outcome::True })
}

impl Arguments {
    /// How tokens are chosen. An option of sampling without sampling is refused.
    fn sampling(&self) -> anyhow::Result<Sampling> {
        let options = [("--top-p", self.top_p.is_some()), ("--seed", self.seed.is_some())];
        for (option, _) in options.iter().filter(|(_, given)| *given) {
            ensure!(
                self.temperature != 0.0,
                "{option} has no effect without --temperature above 0"
            );
        }
        let (top_p, seed) = (self.top_p.unwrap_or(1.0), self.seed.unwrap_or(0));
        Ok(Sampling { temperature: self.temperature, top_p, seed })
    }
}

fn read_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        output::note("Enter a prompt, then Ctrl-D:");
    }
    let read = stdin.lock().take(MAX_PROMPT + 1).read_to_string(&mut text);
    read.context("stdin: cannot read the prompt as UTF-8")?;
    ensure!(text.len() as u64 <= MAX_PROMPT, "stdin: the prompt is longer than {MAX_PROMPT} bytes");
    // `echo` and editors end a file with a newline.
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.unwrap_or(&text).to_owned())
}

/// Writes a piece of text. On a terminal, control characters that the model generated are dropped; a program that
/// reads a pipe or a file gets them.
fn show(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if stdout.is_terminal() {
        stdout.write_all(output::spoken(text).as_bytes())?;
    } else {
        stdout.write_all(text.as_bytes())?;
    }
    stdout.flush()?;
    Ok(())
}

/// The speed, and why generation stopped.
pub fn speed(generated: &Generated) -> String {
    let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    // Processing the prompt gives the first token.
    let after = generated.generated_tokens.saturating_sub(1);
    let mut text = format!(
        "prompt: {} tokens, {:.1} tokens/s; first token after {:.2} s, of which {:.2} s loading weights",
        grouped(generated.prompt_tokens as u64),
        rate(generated.prompt_tokens, generated.prompt),
        generated.first_token.as_secs_f64(),
        generated.load.as_secs_f64(),
    );
    if after > 0 {
        text += &format!(
            "\ngeneration: {} tokens, {:.1} tokens/s ({:.2} ms each, {} of weights)",
            grouped(generated.generated_tokens as u64),
            rate(after, generated.generation),
            1e3 / rate(after, generated.generation),
            size(generated.weights_bytes as u64),
        );
    }
    let why = match generated.stopped {
        Stopped::EndOfText => "the model ended the text",
        Stopped::MaxTokens => "--max-tokens reached",
        Stopped::Positions => "context limit reached",
        Stopped::Cancelled => "interrupted",
    };
    text + "; " + why
}

fn as_json(generated: &Generated) -> serde_json::Value {
    let stopped = match generated.stopped {
        Stopped::EndOfText => "end_of_text",
        Stopped::MaxTokens => "max_tokens",
        Stopped::Positions => "positions",
        Stopped::Cancelled => "cancelled",
    };
    json!({
        "schema": "physarium.run/1",
        "text": generated.text,
        "stopped": stopped,
        "prompt_tokens": generated.prompt_tokens,
        "generated_tokens": generated.generated_tokens,
        "weights_bytes": generated.weights_bytes,
        "load_seconds": generated.load.as_secs_f64(),
        "prompt_seconds": generated.prompt.as_secs_f64(),
        "first_token_seconds": generated.first_token.as_secs_f64(),
        "generation_seconds": generated.generation.as_secs_f64(),
    })
}
