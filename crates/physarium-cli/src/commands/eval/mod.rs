//! `physarium eval`: perplexity and multiple-choice accuracy, with the protocol of the measurement.

mod choices;

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use physarium::audit::grouped;
use physarium::checkpoint::printable;
use physarium::{
    Cancel, Choices, ChoicesRequest, ChoicesResult, Error, EvalRequest, Evaluation, PartsScored,
    PartsShare, Progress, Share, evaluate, evaluate_in_parts, peak_resident_bytes, score_parts,
};
use serde::Serialize;
use serde_json::json;

use crate::arguments::{
    ArithmeticArgument, BosChoice, Display, EVALUATION, Format, OUTPUT, ThreadsArgument, share,
};
use crate::model::{RevisionArgument, refuse_in_model};
use crate::output::{self, Outcome};
use crate::signals::{self, Reading, UntilScoring};
use crate::terminal;

/// Measure perplexity on a text and accuracy on multiple-choice items
///
/// Perplexity is exp of the mean negative log-likelihood per predicted token. The result states the whole
/// protocol. --against also evaluates a second model, usually the dense one, on the same windows, and adds the
/// ratio of perplexities with its standard error over windows, the mean KL divergence, and the share of tokens
/// for which both models have the same most likely token.
///
/// A multiple-choice item is right if its answer is the choice with the highest log-likelihood after the context;
/// for the normalised accuracy, the highest log-likelihood per character of the choice. These are acc and acc_norm
/// of lm-evaluation-harness. With --text and --choices, both are measured.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("data").args(["text", "choices"]).required(true).multiple(true)))]
pub struct Arguments {
    /// Checkpoint directory, packed file or hub id (Llama, Mistral, Qwen2, Qwen3 or Gemma 3, with tokenizer.json)
    model: PathBuf,
    /// Text to measure perplexity on: plain UTF-8, or documents in JSON (JSON Lines, array)
    #[arg(long, value_name = "FILE", help_heading = EVALUATION)]
    text: Option<PathBuf>,
    /// Multiple-choice items: JSON Lines with "context", "choices" and "answer" (index from 0)
    #[arg(long, value_name = "FILE", help_heading = EVALUATION)]
    choices: Option<PathBuf>,
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
    /// Where the tokenizer's token for the beginning of a text stands, if it adds one [default: text]
    #[arg(long, value_enum, value_name = "PLACE", help_heading = EVALUATION)]
    bos: Option<BosChoice>,
    /// Second model to compare with, usually the dense one
    #[arg(long, value_name = "MODEL", help_heading = EVALUATION)]
    against: Option<PathBuf>,
    #[command(flatten)]
    revision: RevisionArgument,
    /// Keep the scores of --text in this directory, part by part; the same command resumes
    #[arg(long, value_name = "DIR", requires = "text", help_heading = OUTPUT)]
    parts: Option<PathBuf>,
    /// Score every N-th part only, from number I on, and print no result; without, the same command then prints it
    #[arg(
        long,
        value_name = "I/N",
        value_parser = share,
        requires = "parts",
        conflicts_with_all = ["choices", "per_token"],
        help_heading = OUTPUT
    )]
    worker: Option<Share>,
    /// Write every scored token with its negative log-likelihood to this file (JSON Lines)
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    per_token: Option<PathBuf>,
    /// Write every item with the log-likelihoods of its choices to this file (JSON Lines)
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    per_item: Option<PathBuf>,
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
  physarium eval models/pruned --text c4.jsonl --limit 100000 --format json
  physarium eval models/pruned --against models/llama --choices arc.jsonl
  physarium eval models/llama --text wiki.test.txt --parts scores --worker 0/4";

/// Parses a number of tokens.
fn tokens() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=1 << 40)
}

/// Evaluates.
pub fn run(mut arguments: Arguments) -> anyhow::Result<Outcome> {
    arguments.refuse_options_without_effect()?;
    let (model, against) =
        arguments.revision.find_both(&arguments.model, arguments.against.as_deref())?;
    (arguments.model, arguments.against) = (model.path, against.map(|model| model.path));
    let Arguments { per_token, per_item, parts, .. } = &arguments;
    for out in per_token.iter().chain(per_item).chain(parts) {
        refuse_in_model(out)?;
    }
    arguments.refuse_lost_results()?;
    let reading = Reading::begin()?;
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let mut until_scoring = UntilScoring { progress: &mut *progress, reading };
    if let (Some(dir), Some(share)) = (&arguments.parts, arguments.worker) {
        let parts = PartsShare { dir, share };
        let scored = arguments.score_share(parts, &cancel, &mut until_scoring)?;
        drop(progress);
        return arguments.report_share(scored);
    }
    let measured = arguments.measure(&cancel, &mut until_scoring)?;
    drop(progress);
    if !arguments.display.quiet {
        output::notes(measured.notes());
    }
    match arguments.display.format() {
        Format::Json => measured.write_json()?,
        Format::Text => output::text(&measured.as_text())?,
    }
    if let (Some(path), Some(evaluation)) = (&arguments.per_token, &measured.text) {
        write_tokens(path, evaluation)?;
    }
    if let (Some(path), Some(result)) = (&arguments.per_item, &measured.choices) {
        choices::write_items(path, result)?;
    }
    if let (Some(parts), true) = (&arguments.parts, measured.partial) {
        let (parts, again) = (parts.display(), signals::command_line());
        output::note(&format!("finished parts are kept in {parts}\nto resume: {again}"));
    }
    Ok(if measured.partial { Outcome::Partial } else { Outcome::True })
}

impl Arguments {
    /// Refuses options of a text without one, and of items without any.
    fn refuse_options_without_effect(&self) -> Result<(), Error> {
        let of_text = [
            ("--field", self.field.is_some()),
            ("--window", self.window.is_some()),
            ("--stride", self.stride.is_some()),
            ("--limit", self.limit.is_some()),
            ("--bos", self.bos.is_some()),
            ("--per-token", self.per_token.is_some()),
        ];
        for (option, _) in of_text.iter().filter(|(_, given)| *given) {
            if self.text.is_none() {
                return Err(Error::Usage(format!("{option} has no effect without --text")));
            }
        }
        match self.per_item.is_some() && self.choices.is_none() {
            true => Err(Error::Usage("--per-item has no effect without --choices".to_owned())),
            false => Ok(()),
        }
    }

    /// Refuses files that could not be written in the end, and those that would replace an input or each other.
    fn refuse_lost_results(&self) -> anyhow::Result<()> {
        let models = [Some(&self.model), self.against.as_ref()];
        let texts = [self.text.as_ref(), self.choices.as_ref()];
        let mut others: Vec<&Path> =
            models.into_iter().chain(texts).flatten().map(PathBuf::as_path).collect();
        for (option, path) in [("--per-token", &self.per_token), ("--per-item", &self.per_item)] {
            let Some(path) = path else { continue };
            output::refuse_lost(option, path, &others)?;
            others.push(path);
        }
        Ok(())
    }

    /// Measures what was asked for. The items are checked before the text is scored.
    fn measure(&self, cancel: &Cancel, progress: &mut dyn Progress) -> anyhow::Result<Measured> {
        let choices = self.choices.as_ref().map(|file| {
            let request = ChoicesRequest {
                model: &self.model,
                against: self.against.as_deref(),
                file,
                threads: self.threads.count(),
                arithmetic: self.arithmetic.given(),
            };
            Choices::read(&request, progress)
        });
        let choices = choices.transpose()?;
        let mut measured = Measured { text: None, choices: None, partial: false };
        if let Some(text) = &self.text {
            let request = self.of_text(text);
            let evaluation = match &self.parts {
                Some(parts) => evaluate_in_parts(&request, parts, cancel, progress)?,
                None => evaluate(&request, cancel, progress)?,
            };
            measured.partial = evaluation.partial;
            measured.text = Some(evaluation);
        }
        let Some(choices) = choices.filter(|_| !measured.partial) else { return Ok(measured) };
        match choices.score(cancel, progress) {
            Ok(result) => {
                measured.partial = result.partial;
                measured.choices = Some(result);
            }
            // What the text gave is kept.
            Err(Error::Stopped) if measured.text.is_some() => measured.partial = true,
            Err(e) => return Err(e.into()),
        }
        Ok(measured)
    }

    /// The evaluation of a text.
    fn of_text<'a>(&'a self, text: &'a Path) -> EvalRequest<'a> {
        EvalRequest {
            model: &self.model,
            against: self.against.as_deref(),
            text,
            field: self.field.as_deref(),
            window: self.window.map(|tokens| tokens as usize),
            stride: self.stride.map(|tokens| tokens as usize),
            limit: self.limit.map(|tokens| tokens as usize),
            bos: self.bos.unwrap_or_default().into(),
            threads: self.threads.count(),
            arithmetic: self.arithmetic.given(),
        }
    }

    /// Scores the parts of a worker's share.
    fn score_share(
        &self,
        parts: PartsShare<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> anyhow::Result<PartsScored> {
        let text = self.text.as_deref().expect("--parts requires --text");
        Ok(score_parts(&self.of_text(text), parts, cancel, progress)?)
    }

    /// Prints what a worker has done.
    fn report_share(&self, done: PartsScored) -> anyhow::Result<Outcome> {
        let PartsScored { scored, kept, of } = done;
        match self.display.format() {
            Format::Json => output::json(&json!({
                "schema": "physarium.eval-parts-run/1",
                "scored": scored,
                "kept": kept,
                "of": of,
                "peak_rss_bytes": peak_resident_bytes(),
            }))?,
            Format::Text => output::text(&format!(
                "scored {} of {of}, {kept} were scored before; once all workers have ended, the same \
                 command without --worker prints the result\n",
                output::counted(scored as u64, "part"),
            ))?,
        }
        Ok(Outcome::True)
    }
}

/// What was measured.
struct Measured {
    text: Option<Evaluation>,
    choices: Option<ChoicesResult>,
    /// Whether a part of what was asked for is missing.
    partial: bool,
}

/// The evaluation of a text, and that of items beside it, or null if none was scored.
#[derive(Serialize)]
struct Both<'a> {
    #[serde(flatten)]
    text: &'a Evaluation,
    choices: Option<&'a ChoicesResult>,
}

impl Measured {
    /// What the user should know about the models.
    fn notes(&self) -> &[String] {
        let of_choices = self.choices.as_ref().map(|result| &result.notes[..]);
        self.text.as_ref().map(|evaluation| &evaluation.notes[..]).or(of_choices).unwrap_or(&[])
    }

    /// Whether the text was scored, and then the evaluation of items interrupted before the first.
    fn lacks_items(&self) -> bool {
        self.partial && self.choices.is_none() && self.text.as_ref().is_some_and(|t| !t.partial)
    }

    fn write_json(&self) -> anyhow::Result<()> {
        let choices = self.choices.as_ref();
        match &self.text {
            Some(text) if choices.is_some() || self.lacks_items() => {
                output::json(&Both { text, choices })
            }
            Some(text) => output::json(text),
            None => output::json(&choices),
        }
    }

    fn as_text(&self) -> String {
        let text = self.text.as_ref().map(as_text);
        let lacking = || "PARTIAL           interrupted before an item was scored\n".to_owned();
        let choices = self.choices.as_ref().map(choices::as_text);
        let choices = choices.or_else(|| self.lacks_items().then(lacking));
        text.into_iter().chain(choices).collect::<Vec<_>>().join("\n")
    }
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
    let bos = printable(&protocol.bos.to_string());
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
