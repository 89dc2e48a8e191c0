//! `physarium compare`: several pruning methods in one table.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use physarium::audit::grouped;
use physarium::checkpoint::manifest;
use physarium::checkpoint::{Calibration, NmPattern, Sparsity, markdown, printable};
use physarium::{
    Allocation, CalibrationText, ComparedRun, ComparisonRequest, Contender, Error, EvalRequest,
    MethodName, NoEffect, Options, Outputs, RecipeError, RecipeOption, RecipeOptions, compare,
};
use serde_json::json;

use crate::arguments::{
    Display, EVALUATION, Format, METHOD, OUTPUT, SelectionArguments, ThreadsArgument,
};
use crate::output::{self, Outcome, size};
use crate::recipe::{AllocationChoice, CalibrationArguments, MethodChoice};
use crate::{signals, terminal};

/// Prune with several methods, evaluate each, and print one table
///
/// Every method is run at every sparsity and every pattern, and evaluated against the dense model. The table is
/// also written to OUT/physarium.compare.md and, with recipes and protocols, to OUT/physarium.compare.json;
/// both are updated after every row.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory of the dense model; never written to
    model: PathBuf,
    /// Output directory for the table; each pruned model is there while it is evaluated
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    /// Keep the pruned models as OUT/NAME, one for each row
    #[arg(long, help_heading = OUTPUT)]
    keep: bool,
    /// Pruning methods, comma-separated
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "magnitude,wanda,sparsegpt,activation-flow",
        help_heading = METHOD
    )]
    methods: Vec<MethodChoice>,
    /// Fractions of weights to zero (0–1), comma-separated
    #[arg(long, value_name = "S", value_delimiter = ',', help_heading = METHOD)]
    sparsity: Vec<Sparsity>,
    /// N:M patterns, comma-separated
    #[arg(long, value_name = "N:M", value_delimiter = ',', help_heading = METHOD)]
    pattern: Vec<NmPattern>,
    /// Distributions of --sparsity over tensors, comma-separated [default: uniform]
    #[arg(long, value_enum, value_delimiter = ',', help_heading = METHOD)]
    allocation: Vec<AllocationChoice>,
    #[command(flatten)]
    selection: SelectionArguments,
    #[command(flatten)]
    calibration: CalibrationArguments,
    /// Text to measure perplexity on: plain UTF-8, or JSON documents with field "text"
    #[arg(long, value_name = "FILE", help_heading = EVALUATION)]
    text: PathBuf,
    /// Context window in evaluation [default: 2048, or the model's maximum]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(2..),
          help_heading = EVALUATION)]
    eval_window: Option<u64>,
    /// Number of tokens to use from the start of --text, in whole windows [default: all]
    #[arg(long, value_name = "TOKENS", help_heading = EVALUATION)]
    limit: Option<u64>,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium compare models/llama --out table --text wiki.test.txt --sparsity 0.5
  physarium compare models/llama --out table --text wiki.test.txt --calibration wiki.train.txt \\
      --methods wanda,sparsegpt,activation-flow --sparsity 0.5,0.7 --pattern 2:4";

/// Compares.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    arguments.refuse_idle_options()?;
    refuse_pruned_model(&arguments.out)?;
    let (text, calibration) = arguments.calibration()?;
    let contenders = arguments.contenders(calibration)?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("{}: cannot create", arguments.out.display()))?;
    let threads = arguments.threads.count();
    let request = ComparisonRequest {
        contenders: &contenders,
        calibration: &text,
        eval: EvalRequest {
            model: &arguments.model,
            against: None,
            text: &arguments.text,
            field: None,
            window: arguments.eval_window.map(|tokens| tokens as usize),
            stride: None,
            limit: arguments.limit.map(|tokens| tokens as usize),
            threads,
        },
        dir: &arguments.out,
        outputs: if arguments.keep { Outputs::Keep } else { Outputs::Discard },
        options: Options { threads, ..Options::default() },
    };
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let mut runs = Vec::new();
    let mut written = Ok(());
    compare(&request, &cancel, &mut *progress, |run| {
        runs.push(run);
        written = write_table(&arguments.out, &runs);
    })?;
    written?;
    drop(progress);
    if let Some(first) = runs.first()
        && !arguments.display.quiet
    {
        output::notes(&first.evaluation.notes);
    }
    match arguments.display.format() {
        Format::Json => output::json(&as_json(&runs))?,
        Format::Text => output::text(&as_text(&runs))?,
    }
    Ok(Outcome::True)
}

/// Fails if a table would be written into the output of `prune`, which could then not be verified.
fn refuse_pruned_model(out: &Path) -> anyhow::Result<()> {
    let what = "a pruned model, expected a directory for the table";
    ensure!(!out.join(manifest::FILE_NAME).exists(), "{}: {what}", out.display());
    Ok(())
}

impl Arguments {
    fn has_activation_aware_method(&self) -> bool {
        self.methods.iter().any(|method| MethodName::from(*method).is_activation_aware())
    }

    /// # Errors
    /// For missing options and for options that would have no effect.
    fn refuse_idle_options(&self) -> Result<(), Error> {
        if self.sparsity.is_empty() && self.pattern.is_empty() {
            let what = "expected at least one --sparsity S or --pattern N:M";
            return Err(Error::Usage(what.to_owned()));
        }
        let allocation = (!self.allocation.is_empty()).then_some(RecipeOption::Allocation);
        let idle = match (self.has_activation_aware_method(), self.sparsity.is_empty()) {
            (false, _) => allocation
                .or(self.calibration.given())
                .map(|option| (option, NoEffect::WeightsOnly)),
            (true, true) => allocation.map(|option| (option, NoEffect::WithoutSparsity)),
            (true, false) => None,
        };
        match idle {
            Some((option, why)) => Err(RecipeError::NoEffect { option, why }.into()),
            None => Ok(()),
        }
    }

    /// The calibration text, and what of it the activation-aware methods use.
    fn calibration(&self) -> Result<(CalibrationText, Option<Calibration>), Error> {
        let text = self.calibration.text()?;
        if !self.has_activation_aware_method() {
            return Ok((text, None));
        }
        let calibration = self.calibration.options().resolve(&self.model, &text)?;
        if !self.display.quiet {
            self.calibration.note(&calibration);
        }
        Ok((text, Some(calibration)))
    }

    /// Every method with every sparsity and pattern.
    fn contenders(&self, calibration: Option<Calibration>) -> Result<Vec<Contender>, Error> {
        let mut contenders: Vec<Contender> = Vec::new();
        let mut add = |name: String, options: RecipeOptions| -> Result<(), Error> {
            let SelectionArguments { target, skip } = self.selection.clone();
            let options = RecipeOptions { target, skip, ..options };
            contenders.push(Contender { name, recipe: options.build(calibration)? });
            Ok(())
        };
        let methods = || self.methods.iter().map(|method| MethodName::from(*method));
        for sparsity in &self.sparsity {
            for method in methods() {
                // Allocation needs activations.
                let allocations = match method.is_activation_aware() {
                    true if !self.allocation.is_empty() => {
                        self.allocation.iter().map(|choice| Some((*choice).into())).collect()
                    }
                    _ => vec![None],
                };
                for allocation in allocations {
                    let kind = match allocation {
                        Some(Allocation::Flow) => "-allocated",
                        Some(Allocation::Uniform) | None => "",
                    };
                    let name = format!("{}-{}{kind}", method.text(), f64::from(*sparsity));
                    let sparsity = Some(*sparsity);
                    let none = RecipeOptions::default();
                    add(name, RecipeOptions { method, sparsity, allocation, ..none })?;
                }
            }
        }
        for pattern in &self.pattern {
            for method in methods() {
                let name = format!("{}-{}of{}", method.text(), pattern.keep(), pattern.group());
                let pattern = Some(*pattern);
                add(name, RecipeOptions { method, pattern, ..RecipeOptions::default() })?;
            }
        }
        Ok(contenders)
    }
}

fn as_json(runs: &[ComparedRun]) -> serde_json::Value {
    json!({"schema": "physarium.compare/1", "runs": runs})
}

/// Writes the rows so far.
fn write_table(out: &Path, runs: &[ComparedRun]) -> anyhow::Result<()> {
    output::file(&out.join("physarium.compare.md"), &as_text(runs))?;
    output::file(&out.join("physarium.compare.json"), &output::json_text(&as_json(runs))?)
}

/// The table, in Markdown.
pub fn as_text(runs: &[ComparedRun]) -> String {
    let mut text = "\
| method | zero, of target | updated | perplexity | ratio to dense | KL, nats | top-1 | layer error | seconds | peak memory |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"
    .to_owned();
    for (index, run) in runs.iter().enumerate() {
        let eval = &run.evaluation;
        let Some(against) = &eval.against else { continue };
        if index == 0 {
            text += &format!("| dense | | | {:.3} | | | | | | |\n", against.perplexity);
        }
        let zero = run.totals.pruned + run.totals.already_zero;
        let error = against.ratio_stderr.map_or(String::new(), |error| format!(" ± {error:.4}"));
        let share = 100.0 * against.top1_agreement;
        let layer_error = run.output_error.map_or("–".to_owned(), |error| format!("{error:.4}"));
        let memory = run.prune_peak_rss_bytes.map_or("–".to_owned(), size);
        text += &format!(
            "| {} | {:.2} % | {} | {:.3} | {:.4}{error} | {:.4} | {share:.2} % | {layer_error} | {:.1} | {memory} |\n",
            run.name,
            100.0 * zero as f64 / run.target.max(1) as f64,
            grouped(run.totals.refitted),
            eval.perplexity,
            against.ratio,
            against.kl_nats,
            run.prune_seconds,
        );
    }
    let Some(run) = runs.first() else { return text };
    let protocol = &run.evaluation.protocol;
    text += &format!(
        "\nMeasured on {}: {} tokens in windows of {}. \"Zero\" includes weights that were zero before; \
         \"updated\" counts weights updated to compensate. Layer error: ‖X(Ŵ−W)ᵀ‖² ÷ ‖XWᵀ‖², mean over the \
         targets. Peak memory is that of the process while pruning; it includes memory kept from earlier \
         rows.\n",
        markdown(&printable(&protocol.text.file)),
        grouped(run.evaluation.tokens_scored as u64),
        protocol.window,
    );
    if let Some(calibration) = runs.iter().find_map(|run| run.recipe.needs().calibration) {
        text += &format!(
            "Calibrated on {} tokens in windows of {}, seed {}, of the text with SHA-256 {}.\n",
            grouped(calibration.tokens),
            calibration.window,
            calibration.seed,
            calibration.text_sha256,
        );
    }
    text
}
