//! `physarium eval`: perplexity, with the protocol of its measurement.

use std::path::{Path, PathBuf};

use clap::Args;
use physarium::audit::grouped;
use physarium::checkpoint::printable;
use physarium::{EvalRequest, Evaluation, evaluate};
use serde_json::json;

use crate::arguments::{ArithmeticArgument, Display, EVALUATION, Format, OUTPUT, ThreadsArgument};
use crate::output::{self, Outcome};
use crate::signals::{self, Reading, UntilScoring};
use crate::terminal;

/// Measure the perplexity of a checkpoint or a packed file on a text
///
/// Perplexity is exp of the mean negative log-likelihood per predicted token. The result states the whole
/// protocol. --against also evaluates a second model, usually the dense one, on the same windows, and adds the
/// ratio of perplexities with its standard error over windows, the mean KL divergence, and the share of tokens
/// for which both models have the same most likely token.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory or packed file (Llama, Mistral, Qwen2 or Qwen3, with tokenizer.json)
    model: PathBuf,
    /// Text to measure perplexity on: plain UTF-8, or documents in JSON (JSON Lines, array)
    #[arg(long, value_name = "FILE", help_heading = EVALUATION)]
    text: PathBuf,
    /// Field of the JSON documents that holds the text; FILE is then read as JSON [default: text]
    #[arg(long, value_name = "NAME", help_heading = EVALUATION)]
    field: Option<String>,
    /// Context window [default: 2048, or the model's maximum]
    #[arg(long, value_name = "TOKENS", value_parser = tokens(), help_heading = EVALUATION)]
    window: Option<u64>,
    /// Stride between windows; smaller gives more context [default: the window]
    #[arg(long, value_name = "TOKENS", value_parser = tokens(), help_heading = EVALUATION)]
    stride: Option<u64>,
    /// Number of tokens to use from the start of the text, in whole windows [default: all]
    #[arg(long, value_name = "TOKENS", value_parser = tokens(), help_heading = EVALUATION)]
    limit: Option<u64>,
    /// Second model to compare with, usually the dense one
    #[arg(long, value_name = "MODEL", help_heading = EVALUATION)]
    against: Option<PathBuf>,
    /// Write every scored token with its negative log-likelihood to this file (JSON Lines)
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    per_token: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    arithmetic: ArithmeticArgument,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium eval models/llama --text wiki.test.txt
  physarium eval models/pruned --against models/llama --text wiki.test.txt --window 1024
  physarium eval models/pruned --text c4.jsonl --limit 100000 --format json";

/// Parses a number of tokens.
fn tokens() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=1 << 40)
}

/// Evaluates.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let reading = Reading::begin()?;
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let request = EvalRequest {
        model: &arguments.model,
        against: arguments.against.as_deref(),
        text: &arguments.text,
        field: arguments.field.as_deref(),
        window: arguments.window.map(|tokens| tokens as usize),
        stride: arguments.stride.map(|tokens| tokens as usize),
        limit: arguments.limit.map(|tokens| tokens as usize),
        threads: arguments.threads.count(),
        arithmetic: arguments.arithmetic.given(),
    };
    let mut until_scoring = UntilScoring { progress: &mut *progress, reading };
    let evaluation = evaluate(&request, &cancel, &mut until_scoring)?;
    drop(progress);
    if !arguments.display.quiet {
        output::notes(&evaluation.notes);
    }
    if let Some(path) = &arguments.per_token {
        write_tokens(path, &evaluation)?;
    }
    match arguments.display.format() {
        Format::Json => output::json(&evaluation)?,
        Format::Text => output::text(&as_text(&evaluation))?,
    }
    Ok(if evaluation.partial { Outcome::Partial } else { Outcome::True })
}

/// The evaluation for a terminal.
pub fn as_text(evaluation: &Evaluation) -> String {
    let protocol = &evaluation.protocol;
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<18}{value}\n"));
    let number = |count: usize| grouped(count as u64);
    if evaluation.partial {
        line("PARTIAL", "interrupted before all windows were scored".to_owned());
    }
    let nats = format!("mean NLL {:.5} nats per token", evaluation.mean_nll_nats);
    line("perplexity", format!("{:.4}  ({nats})", evaluation.perplexity));
    if let Some(bits) = evaluation.bits_per_byte {
        line("bits per byte", format!("{bits:.4}"));
    }
    let (scored, windows) = (number(evaluation.tokens_scored), number(evaluation.windows));
    let (window, tail) = (number(protocol.window), number(protocol.tail_tokens));
    line("tokens scored", format!("{scored}, {}", protocol.scored));
    let stride = match protocol.stride == protocol.window {
        true => String::new(),
        false => format!(", stride {}", number(protocol.stride)),
    };
    line(
        "windows",
        format!("{windows} of {window} tokens{stride}; {tail} tokens after the last are dropped"),
    );
    if let Some(against) = &evaluation.against {
        line("against", format!("perplexity {:.4}", against.perplexity));
        let error =
            against.ratio_stderr.map(|e| format!(" ± {e:.4} (standard error over windows)"));
        line("ratio", format!("{:.4}{}", against.ratio, error.unwrap_or_default()));
        line("KL divergence", format!("{:.5} nats per token", against.kl_nats));
        let share = 100.0 * against.top1_agreement;
        line("top-1 agreement", format!("{share:.2} % of tokens scored"));
    }
    let text = &protocol.text;
    line("text", format!("{}, sha256 {}", printable(&text.file), text.sha256));
    let bos = match &protocol.bos.token {
        Some(token) => format!("{} before the text", printable(token)),
        None => "none added".to_owned(),
    };
    line("BOS", format!("{bos} ({})", protocol.bos.said_by));
    let (weights, arithmetic) = (protocol.weights, &protocol.arithmetic);
    line("computed", format!("{weights} weights, {arithmetic}"));
    let memory = evaluation.peak_rss_bytes.map(|bytes| format!(", peak {}", output::size(bytes)));
    let (seconds, rate) = (evaluation.seconds, evaluation.tokens_per_second);
    line("time", format!("{seconds:.1} s, {rate:.0} tokens/s{}", memory.unwrap_or_default()));
    lines.concat()
}

fn write_tokens(path: &Path, evaluation: &Evaluation) -> anyhow::Result<()> {
    let mut text = String::new();
    for score in &evaluation.tokens {
        let mut line =
            json!({"position": score.position, "token": score.token, "nll_nats": score.nll});
        if let Some(against) = score.against {
            line["against_nll_nats"] = json!(against.nll);
            line["kl_nats"] = json!(against.kl);
        }
        text += &format!("{line}\n");
    }
    output::file(path, &text)
}
