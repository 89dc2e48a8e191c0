//! `physarium compare`: several pruning methods in one table.

pub mod table;

use std::path::PathBuf;

use clap::Args;
use physarium::checkpoint::{Arithmetic, Calibration, NmPattern, Sparsity};
use physarium::{
    Allocation, Begun, CalibrationText, Case, Comparison, ComparisonRequest, Contender, Effort,
    Ended, Error, EvalRequest, FailedRun, MethodName, NoEffect, Options, Outputs, RecipeError,
    RecipeOption, RecipeOptions, Share, compare,
};

use crate::arguments::{
    ArithmeticChoice, BosChoice, DISPLAY, Display, EVALUATION, Format, METHOD, MemoryArgument,
    OUTPUT, SelectionArguments, ThreadsArgument, share,
};
use crate::model::{RevisionArgument, refuse_in_model};
use crate::output::{self, Outcome, counted};
use crate::recipe::{AllocationChoice, CalibrationArguments, EffortChoice, MethodChoice};
use crate::{signals, terminal};

/// Prune with several methods, evaluate each, and print one table
///
/// Every method is run at every sparsity and every pattern, and evaluated against the dense model. The table is
/// also written to OUT/physarium.compare.md, with charts to OUT/compare.html and, with recipes and protocols, to
/// OUT/physarium.compare.json; all are updated after every row. If interrupted, rerun the same command to resume.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory or hub id of the dense model; never written to
    model: PathBuf,
    #[command(flatten)]
    revision: RevisionArgument,
    /// Output directory for the table; each pruned model is there while it is evaluated
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    /// Keep the pruned models as OUT/NAME, one for each row
    #[arg(long, help_heading = OUTPUT)]
    keep: bool,
    /// Discard an interrupted or another comparison in OUT, with the models that it wrote
    #[arg(long, help_heading = OUTPUT)]
    restart: bool,
    /// Make every N-th row only, from number I on, and no table; without, the same command then prints the table
    #[arg(
        long,
        value_name = "I/N",
        value_parser = share,
        conflicts_with = "restart",
        help_heading = OUTPUT
    )]
    worker: Option<Share>,
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
    /// Efforts of activation-flow, comma-separated [default: standard]
    #[arg(long, value_enum, value_delimiter = ',', help_heading = METHOD)]
    effort: Vec<EffortChoice>,
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
    /// Where the tokenizer's token for the beginning of a text stands in evaluation, if it adds one [default: text]
    #[arg(long, value_enum, value_name = "PLACE", help_heading = EVALUATION)]
    eval_bos: Option<BosChoice>,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    memory: MemoryArgument,
    /// Arithmetic of calibrations and evaluations, of which bf16 evaluates in f32; one gives the same table on every machine
    /// that has it [default: bf16x2 on Intel AMX, bf16 on AVX-512 BF16 of AMD, f32 elsewhere]
    #[arg(long, value_enum, help_heading = DISPLAY)]
    arithmetic: Option<ArithmeticChoice>,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium compare models/llama --out table --text wiki.test.txt --sparsity 0.5
  physarium compare models/llama --out table --text wiki.test.txt --calibration wiki.train.txt \\
      --methods wanda,sparsegpt,activation-flow --sparsity 0.5,0.7 --pattern 2:4";

/// Compares.
pub fn run(mut arguments: Arguments) -> anyhow::Result<Outcome> {
    arguments.refuse_idle_options()?;
    refuse_in_model(&arguments.out)?;
    arguments.model = arguments.revision.find(&arguments.model)?.path;
    let (text, calibration) = arguments.calibration()?;
    let contenders = arguments.contenders(calibration)?;
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
            bos: arguments.eval_bos.unwrap_or_default().into(),
            threads,
            arithmetic: arguments.arithmetic.map(Arithmetic::from),
        },
        dir: &arguments.out,
        tables: &table::FILES,
        outputs: if arguments.keep { Outputs::Keep } else { Outputs::Discard },
        begun: if arguments.restart { Begun::Discard } else { Begun::Resume },
        share: arguments.worker.unwrap_or(Share::ALL),
        options: Options { threads, memory: arguments.memory.limit(), ..Options::default() },
    };
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let mut written = Ok(());
    let comparison = compare(&request, &cancel, &mut *progress, |comparison| {
        if arguments.worker.is_none() {
            written = table::write(&arguments.out, comparison);
        }
    })?;
    drop(progress);
    // Of the last call: it has written all rows.
    written?;
    arguments.report(&comparison, contenders.len())
}

impl Arguments {
    /// Prints the rows. Those that failed, and how to resume an unfinished comparison, go to stderr.
    fn report(&self, comparison: &Comparison, of: usize) -> anyhow::Result<Outcome> {
        if let Some(first) = comparison.runs().next()
            && !self.display.quiet
        {
            output::notes(&first.evaluation.notes);
        }
        match (self.display.format(), self.worker) {
            (Format::Json, _) => output::json(&comparison.record())?,
            (Format::Text, None) => output::text(&table::as_text(comparison))?,
            (Format::Text, Some(_)) if comparison.ended == Ended::Unfinished => {}
            (Format::Text, Some(_)) => output::text(&format!(
                "made {} of {of}; once all workers have ended, the same command without --worker prints the table\n",
                counted(comparison.runs().count() as u64, "row"),
            ))?,
        }
        for FailedRun { name, error, .. } in comparison.failed() {
            output::note(&format!("error: {name}: {error}"));
        }
        if comparison.ended == Ended::Unfinished {
            let rows = comparison.rows.len();
            let dir = self.out.display();
            output::note(&format!(
                "interrupted; {rows} of {} are kept in {dir}\nto resume: {}",
                counted(of as u64, "row"),
                signals::command_line()
            ));
            return Ok(Outcome::Partial);
        }
        match comparison.failed().next() {
            None => Ok(Outcome::True),
            Some(_) => Ok(Outcome::Failed),
        }
    }

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
        let effort = (!self.effort.is_empty()).then_some(RecipeOption::Effort);
        for option in allocation.into_iter().chain(effort).chain(self.calibration.given()) {
            self.effect_of(option).map_err(|why| RecipeError::NoEffect { option, why })?;
        }
        Ok(())
    }

    /// Whether an option has an effect on one of the rows.
    ///
    /// # Errors
    /// Why it has none; of several reasons the one that another option could mend.
    fn effect_of(&self, option: RecipeOption) -> Result<(), NoEffect> {
        let mut reason = NoEffect::WeightsOnly;
        for amount in self.amounts() {
            for method in &self.methods {
                match Case::new((*method).into(), Some(amount)).effect_of(option) {
                    Ok(()) => return Ok(()),
                    Err(NoEffect::WeightsOnly) => {}
                    Err(why) => reason = why,
                }
            }
        }
        Err(reason)
    }

    /// The options that set the amount of some row.
    fn amounts(&self) -> Vec<RecipeOption> {
        let sparsity = self.sparsity.first().map(|_| RecipeOption::Sparsity);
        let pattern = self.pattern.first().map(|_| RecipeOption::Pattern);
        sparsity.into_iter().chain(pattern).collect()
    }

    /// The calibration text, and what of it the activation-aware methods use.
    fn calibration(&self) -> Result<(CalibrationText, Option<Calibration>), Error> {
        let text = self.calibration.text()?;
        if !self.has_activation_aware_method() {
            return Ok((text, None));
        }
        let tokens = self.default_tokens();
        let calibration = self.calibration.options().resolve(&self.model, &text, tokens)?;
        if !self.display.quiet {
            self.calibration.note(&calibration, tokens);
        }
        Ok((text, Some(calibration)))
    }

    /// The default number of calibration tokens: every row has the most that one of them would take alone.
    fn default_tokens(&self) -> u64 {
        let methods = self.methods.iter().map(|method| MethodName::from(*method));
        let efforts = methods.filter(|method| method.is_activation_aware()).flat_map(|method| {
            choices(Case::new(method, None), RecipeOption::Effort, &self.effort)
        });
        let tokens =
            efforts.map(|effort: Option<Effort>| effort.unwrap_or_default().calibration_tokens());
        tokens.max().unwrap_or_default()
    }

    /// Every method with every amount, allocation and effort.
    fn contenders(&self, calibration: Option<Calibration>) -> Result<Vec<Contender>, Error> {
        let mut contenders: Vec<Contender> = Vec::new();
        let mut add = |name: String, options: RecipeOptions| -> Result<(), Error> {
            let SelectionArguments { target, skip } = self.selection.clone();
            // Methods without calibration have no arithmetic; that of the evaluation is in its protocol.
            let case = Case::new(options.method, None);
            let arithmetic = match case.effect_of(RecipeOption::Arithmetic) {
                Ok(()) => self.arithmetic.map(Arithmetic::from),
                Err(_) => None,
            };
            let options = RecipeOptions { target, skip, arithmetic, ..options };
            if contenders.iter().any(|other| other.name == name) {
                return Err(Error::Usage(format!(
                    "{name}: listed twice, expected one row for each"
                )));
            }
            contenders.push(Contender { name, recipe: options.build(calibration)? });
            Ok(())
        };
        for (amount, name_of_amount, options) in self.amount_options() {
            for method in self.methods.iter().map(|method| MethodName::from(*method)) {
                let case = Case::new(method, Some(amount));
                for allocation in choices(case, RecipeOption::Allocation, &self.allocation) {
                    for effort in choices(case, RecipeOption::Effort, &self.effort) {
                        let allocated = match allocation {
                            Some(Allocation::Flow) => "-allocated",
                            Some(Allocation::Uniform) | None => "",
                        };
                        let effort_name = match effort {
                            Some(Effort::Standard) | None => String::new(),
                            Some(other) => format!("-{}", other.text()),
                        };
                        let name =
                            format!("{}-{name_of_amount}{allocated}{effort_name}", method.text());
                        add(name, RecipeOptions { method, allocation, effort, ..options.clone() })?;
                    }
                }
            }
        }
        Ok(contenders)
    }

    /// Every amount: the option that sets it, its part of a row's name, and a recipe with it.
    fn amount_options(&self) -> impl Iterator<Item = (RecipeOption, String, RecipeOptions)> + '_ {
        let none = RecipeOptions::default;
        let sparsity = move |sparsity: &Sparsity| {
            let options = RecipeOptions { sparsity: Some(*sparsity), ..none() };
            (RecipeOption::Sparsity, f64::from(*sparsity).to_string(), options)
        };
        let pattern = move |pattern: &NmPattern| {
            let options = RecipeOptions { pattern: Some(*pattern), ..none() };
            (RecipeOption::Pattern, format!("{}of{}", pattern.keep(), pattern.group()), options)
        };
        self.sparsity.iter().map(sparsity).chain(self.pattern.iter().map(pattern))
    }
}

/// The choices that were made for an option; one of none where it has no effect.
fn choices<C: Copy, T: From<C>>(case: Case, option: RecipeOption, chosen: &[C]) -> Vec<Option<T>> {
    match case.effect_of(option) {
        Ok(()) if !chosen.is_empty() => {
            chosen.iter().map(|choice| Some(T::from(*choice))).collect()
        }
        _ => vec![None],
    }
}
