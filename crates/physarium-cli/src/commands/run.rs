//! `physarium run`: text out of a model.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use physarium::audit::grouped;
use physarium::{GenerateRequest, Generated, Prompt, Sampling, Stopped, generate};
use serde_json::json;

use crate::arguments::{Format, ThreadsArgument};
use crate::output::{self, Outcome, size};
use crate::signals;

/// Generate text with a checkpoint or a packed file
///
/// The text goes to stdout as it comes, without the prompt; how fast it came goes to stderr. Without a
/// --temperature the likeliest token is taken each time: a packed file then gives the text of the
/// directory that it was packed from.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory or packed file (Llama, Mistral, Qwen2 or Qwen3, with tokenizer.json)
    model: PathBuf,
    /// What the text begins with, or, with --chat, what a user says [default: stdin, without the
    /// newline at its end]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Put the prompt into the model's own chat template
    #[arg(long)]
    chat: bool,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// What logits are divided by before a token is drawn; 0 takes the likeliest one
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Where random numbers begin
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// How the result is written to stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  physarium run models/llama --prompt 'Once upon a time' --max-tokens 64
  physarium run pruned.physpack --chat --prompt 'What is a slime mould?' --temperature 0.7
  physarium run pruned.physpack < letter.txt";

/// Longest prompt that is read from stdin, in bytes.
const MAX_PROMPT: u64 = 64 << 20;

/// Runs it.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let cancel = signals::cancel_on_signal()?;
    let text = match &arguments.prompt {
        Some(text) => text.clone(),
        None => read_stdin()?,
    };
    let request = GenerateRequest {
        model: &arguments.model,
        prompt: if arguments.chat { Prompt::Chat(&text) } else { Prompt::Text(&text) },
        max_tokens: arguments.max_tokens as usize,
        sampling: Sampling {
            temperature: arguments.temperature,
            top_p: arguments.top_p,
            seed: arguments.seed,
        },
        threads: arguments.threads.count(),
    };
    let streamed = arguments.format == Format::Text;
    let mut failed = None;
    let generated = generate(&request, &cancel, &mut |text| {
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
    match arguments.format {
        Format::Json => output::json(&as_json(&generated))?,
        Format::Text => output::text("\n")?,
    }
    if !arguments.quiet {
        output::note(&speed(&generated));
    }
    Ok(if generated.stopped == Stopped::Cancelled { Outcome::Partial } else { Outcome::True })
}

fn read_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        output::note("the prompt, ended by Ctrl-D:");
    }
    let read = stdin.lock().take(MAX_PROMPT + 1).read_to_string(&mut text);
    read.context("stdin: cannot read the prompt as UTF-8")?;
    ensure!(text.len() as u64 <= MAX_PROMPT, "stdin: a prompt of over {MAX_PROMPT} bytes");
    // `echo` and editors put it there.
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.unwrap_or(&text).to_owned())
}

/// Writes text as it comes. A terminal gets no control characters that a model may have made up.
fn show(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if stdout.is_terminal() {
        let plain = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
        let shown: String = text.chars().filter(plain).collect();
        stdout.write_all(shown.as_bytes())?;
    } else {
        stdout.write_all(text.as_bytes())?;
    }
    stdout.flush()?;
    Ok(())
}

/// How fast it was.
pub fn speed(generated: &Generated) -> String {
    let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    // The first token comes of the prompt.
    let after = generated.generated_tokens.saturating_sub(1);
    let mut text = format!(
        "prompt: {} tokens, {:.1} tokens/s; first token after {:.2} s, {:.2} s of them reading weights",
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
        Stopped::Positions => "the model is made for no more positions",
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
