//! `physarium prune`: the surgery.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use physarium::audit::{Share, grouped};
use physarium::checkpoint::{
    Amount, Calibrated, Disposition, FlowRecipe, LinkPolicy, Method, NmPattern, NonFinite,
    Overwrite, Price, Recipe, Resume, Scope, Sparsity, printable,
};
use physarium::{CalibrationText, Error, Options, Strictness, Summary, Surgery, default_method};
use serde_json::json;

use super::output::{self, Outcome, size};
use super::{Display, Format, SelectionArguments, signals, terminal};

/// Prune a checkpoint into a new directory
///
/// Every weight of the target projections is a tube of a slime mould: conductances adapt under a
/// conserved flow, and the weights of dead tubes are set to +0.0. With neither --sparsity nor
/// --pattern nobody sets the sparsity: it emerges from the flow.
///
/// The output is a plain Hugging Face checkpoint that differs from the input in pruned weights
/// only. It appears under its name when it is complete; a run that is killed is continued by the
/// same command. Beside the weights it holds physarium.journal.jsonl and physarium.manifest.json.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory; never written to
    model: PathBuf,
    /// Directory to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How weights are chosen
    #[arg(long, value_enum, default_value_t = MethodName::MagnitudeFlow)]
    method: MethodName,
    /// Share of weights that shall be zero, between 0 and 1; exact, ties by position
    #[arg(long, value_name = "S", conflicts_with = "pattern")]
    sparsity: Option<Sparsity>,
    /// Keep N of each M consecutive inputs, as N:M
    #[arg(long, value_name = "N:M")]
    pattern: Option<NmPattern>,
    /// Whether the sparsity is every tensor's, or the model's, spent where its predictions feel it least
    /// (with --calibration) [default: uniform]
    #[arg(long, value_enum, requires_all = ["sparsity", "calibration"])]
    allocation: Option<AllocationName>,
    /// What a weight must be worth to stay, as a multiple of the mean worth: sets the sparsity of
    /// activation-flow where nobody does [default: 0.02]
    #[arg(long, value_name = "P", requires = "calibration", conflicts_with_all = ["sparsity", "pattern"])]
    price: Option<Price>,
    /// Over what the sparsity is taken [default: tile for magnitude-flow, tensor for magnitude]
    #[arg(long, value_enum, requires = "sparsity")]
    scope: Option<ScopeName>,
    /// Edge of the square tiles that are decided one by one, 1 to 1024 [default: 256]
    #[arg(long, value_name = "N")]
    block_size: Option<u64>,
    /// Steps of the flow [default: 30]
    #[arg(long, value_name = "N")]
    iterations: Option<u32>,
    /// Exponent of the response, above 1 [default: 2]
    #[arg(long, value_name = "B")]
    beta: Option<f64>,
    /// Mean flow per tube [default: 5.16, which takes 2/9 of a Gaussian tile]
    #[arg(long, value_name = "I")]
    inflow: Option<f64>,
    /// Text that wanda, sparsegpt and activation-flow take statistics from: UTF-8, or JSON Lines where
    /// the name ends in .jsonl
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Tokens of it that are used, in whole windows [default: 131072]
    #[arg(long, value_name = "TOKENS", requires = "calibration")]
    calibration_tokens: Option<u64>,
    /// Tokens that the model sees at once [default: 2048, or what the model is made for]
    #[arg(long, value_name = "TOKENS", requires = "calibration", value_parser = clap::value_parser!(u64).range(2..))]
    window: Option<u64>,
    /// Which windows are used where the text has more than enough [default: 0]
    #[arg(long, value_name = "N", requires = "calibration")]
    seed: Option<u64>,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Refuse the checkpoint if a projection cannot be pruned (FP8, packed, stacked), instead of
    /// carrying it as it is
    #[arg(long)]
    strict: bool,
    /// Keep NaN and infinite weights as they are and prune around them, instead of refusing
    #[arg(long)]
    allow_nonfinite: bool,
    /// Threads that decide tiles; the result is the same for any number [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the plan, the bytes and the memory it will use; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace an earlier physarium output, once the new one is complete
    #[arg(long)]
    force: bool,
    /// Throw away what an interrupted run left, instead of going on with it
    #[arg(long)]
    restart: bool,
    /// Copy files that links out of the checkpoint point to, instead of leaving them out
    #[arg(long)]
    follow_links: bool,
    #[command(flatten)]
    display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium prune models/llama --out models/pruned
  physarium prune models/llama --out models/half --method magnitude --sparsity 0.5
  physarium prune models/llama --out models/half --method activation-flow --sparsity 0.5 \\
      --calibration text.txt
  physarium prune models/llama --out models/24 --pattern 2:4 --skip '*.k_proj.weight'
  physarium prune models/llama --out models/pruned --dry-run";

/// Tokens that statistics come from unless the user says otherwise.
const DEFAULT_CALIBRATION_TOKENS: u64 = 131_072;

/// Price of a weight where nothing else sets the sparsity.
const DEFAULT_PRICE: f64 = 0.02;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodName {
    /// Conductances adapt under a conserved flow in each tile (sees magnitudes only)
    MagnitudeFlow,
    /// The smallest magnitudes; needs --sparsity or --pattern
    Magnitude,
    /// The smallest |w| times the norm of its input, row by row; needs --calibration
    Wanda,
    /// Column by column, what stays makes up for what goes; needs --calibration
    Sparsegpt,
    /// Conductances adapt to the flow that reproduces the dense outputs; needs --calibration
    ActivationFlow,
}

impl MethodName {
    fn sees_activations(self) -> bool {
        matches!(self, MethodName::Wanda | MethodName::Sparsegpt | MethodName::ActivationFlow)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AllocationName {
    /// The same share of each tensor
    Uniform,
    /// One budget for all tensors, by what the model's predictions lose
    Flow,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeName {
    /// Each tile by itself
    Tile,
    /// Each tensor by itself
    Tensor,
    /// All targets together
    Model,
}

/// Runs it.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let options = Options {
        threads: arguments.threads.map_or(Options::default().threads, usize::from),
        strictness: if arguments.strict { Strictness::Refuse } else { Strictness::Skip },
        links: if arguments.follow_links { LinkPolicy::Follow } else { LinkPolicy::LeaveOut },
    };
    let text = arguments.calibration.as_deref();
    let text = text.map(|path| CalibrationText::read(path, None)).transpose()?;
    let recipe = arguments.recipe(text.as_ref())?;
    let mut surgery = Surgery::plan(&arguments.model, recipe, options)?;
    if let Some(text) = &text {
        surgery.calibrate(text)?;
    }
    if !arguments.display.quiet {
        notes(&surgery);
    }
    if arguments.dry_run {
        match arguments.display.format {
            Format::Json => output::json(&dry_run_json(&surgery))?,
            Format::Text => output::text(&dry_run_text(&surgery, &arguments.out))?,
        }
        return Ok(Outcome::True);
    }
    let cancel = signals::cancel_on_signal()?;
    let overwrite = if arguments.force { Overwrite::Replace } else { Overwrite::Refuse };
    let resume = if arguments.restart { Resume::Restart } else { Resume::Continue };
    let mut progress = terminal::progress(arguments.display.style());
    let summary = surgery.prune(&arguments.out, overwrite, resume, &cancel, &mut *progress)?;
    drop(progress);
    match arguments.display.format {
        Format::Json => output::json(&summary_json(&surgery, &summary, &arguments.out))?,
        Format::Text => {
            output::text(&summary_text(&surgery, &summary, &arguments.model, &arguments.out))?;
        }
    }
    Ok(Outcome::True)
}

impl Arguments {
    /// What was typed, as what it means. An option that would have no effect is refused.
    fn recipe(&self, text: Option<&CalibrationText>) -> Result<Recipe, Error> {
        let method = match (self.method, self.sparsity, self.pattern) {
            (method, _, _) if method.sees_activations() => self.calibrated(text)?,
            _ if text.is_some() => {
                let what =
                    "--calibration has no effect: the method sees weights only; leave it out";
                return Err(Error::Usage(what.to_owned()));
            }
            (_, Some(sparsity), _) => {
                self.refuse_flow_options("--sparsity sets it")?;
                Method::Exact { sparsity, scope: self.exact_scope()? }
            }
            (_, None, Some(pattern)) => {
                self.refuse_flow_options("--pattern sets it")?;
                self.refuse_block_size("--pattern knows no tiles")?;
                Method::Pattern { pattern }
            }
            (MethodName::MagnitudeFlow, None, None) => self.flow(),
            (_, None, None) => {
                let what = "--method magnitude needs --sparsity S or --pattern N:M";
                return Err(Error::Usage(what.to_owned()));
            }
        };
        let non_finite = if self.allow_nonfinite { NonFinite::Keep } else { NonFinite::Refuse };
        let SelectionArguments { target, skip } = self.selection.clone();
        Ok(Recipe { method, target, skip, non_finite })
    }

    /// A method that sees activations.
    fn calibrated(&self, text: Option<&CalibrationText>) -> Result<Method, Error> {
        let name = self.method.to_possible_value().expect("no method is hidden");
        let name = name.get_name();
        self.refuse_flow_options("the method has none of them")?;
        self.refuse_block_size("the method knows no tiles")?;
        let refused =
            [("--scope", self.scope.is_some()), ("--allow-nonfinite", self.allow_nonfinite)];
        if let Some((option, _)) = refused.into_iter().find(|(_, given)| *given) {
            return Err(Error::Usage(format!("{option} has no effect with --method {name}")));
        }
        let needs = |what| Err(Error::Usage(format!("--method {name} needs {what}")));
        let amount = match (self.sparsity, self.pattern, self.price) {
            (Some(sparsity), ..) if self.allocation == Some(AllocationName::Flow) => {
                Amount::ModelSparsity(sparsity)
            }
            (Some(sparsity), ..) => Amount::Sparsity(sparsity),
            (_, Some(pattern), _) => Amount::Pattern(pattern),
            (.., Some(price)) => Amount::Price(price),
            _ if self.method == MethodName::ActivationFlow => {
                Amount::Price(Price::try_from(DEFAULT_PRICE).expect("above 0"))
            }
            _ => return needs("--sparsity S, --pattern N:M or --price P"),
        };
        let Some(text) = text else { return needs("--calibration FILE") };
        let window = match self.window {
            Some(window) => window,
            None => physarium::default_window(&self.model)?,
        };
        let tokens = self.calibration_tokens.unwrap_or(DEFAULT_CALIBRATION_TOKENS);
        let calibration = text.calibration(tokens, window, self.seed.unwrap_or(0));
        let calibrated = Calibrated { amount, calibration };
        Ok(match self.method {
            MethodName::Wanda => Method::Wanda(calibrated),
            MethodName::Sparsegpt => Method::SparseGpt(calibrated),
            _ => Method::ActivationFlow(calibrated),
        })
    }

    fn exact_scope(&self) -> Result<Scope, Error> {
        let by_default = match self.method {
            MethodName::MagnitudeFlow => ScopeName::Tile,
            _ => ScopeName::Tensor,
        };
        let scope = match self.scope.unwrap_or(by_default) {
            ScopeName::Tile => return Ok(Scope::Tile { block_size: self.block_size() }),
            ScopeName::Tensor => Scope::Tensor,
            ScopeName::Model => Scope::Model,
        };
        self.refuse_block_size("only --scope tile knows tiles")?;
        Ok(scope)
    }

    fn flow(&self) -> Method {
        let Method::MagnitudeFlow { flow, .. } = default_method() else {
            unreachable!("the default method is the flow")
        };
        let flow = FlowRecipe {
            iterations: self.iterations.unwrap_or(flow.iterations),
            beta: self.beta.unwrap_or(flow.beta),
            inflow: self.inflow.unwrap_or(flow.inflow),
        };
        Method::MagnitudeFlow { block_size: self.block_size(), flow }
    }

    fn block_size(&self) -> u64 {
        let Method::MagnitudeFlow { block_size, .. } = default_method() else {
            unreachable!("the default method is the flow")
        };
        self.block_size.unwrap_or(block_size)
    }

    fn refuse_flow_options(&self, why: &str) -> Result<(), Error> {
        let given = [
            ("--iterations", self.iterations.is_some()),
            ("--beta", self.beta.is_some()),
            ("--inflow", self.inflow.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => Err(Error::Usage(format!(
                "{option} has no effect on a requested sparsity: {why}; leave it out"
            ))),
        }
    }

    fn refuse_block_size(&self, why: &str) -> Result<(), Error> {
        match self.block_size {
            None => Ok(()),
            Some(_) => Err(Error::Usage(format!("--block-size has no effect: {why}"))),
        }
    }
}

/// What the user should know before it begins.
fn notes(surgery: &Surgery) {
    for warning in surgery.checkpoint.warnings() {
        output::note(&format!("note: {warning}"));
    }
    for sidecar in &surgery.sidecars {
        if let Disposition::LeftOut(reason) = sidecar.disposition {
            output::note(&format!(
                "note: left out: {}: {reason}",
                printable(&sidecar.path.to_string_lossy())
            ));
        }
    }
    let mut reasons: Vec<(String, u64)> = Vec::new();
    for tensor in &surgery.plan.tensors {
        if let physarium::checkpoint::Decision::Skip(reason) = &tensor.decision
            && reason.is_target_by_name()
        {
            let reason = reason.to_string();
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason, 1)),
            }
        }
    }
    for (reason, count) in reasons {
        output::note(&format!("note: {count} projections are carried, not pruned: {reason}"));
    }
    if let Method::Pattern { pattern } = surgery.recipe.method {
        let group = pattern.group();
        let home = |cols| physarium::flow::pattern_is_at_home(cols, group);
        let ragged = surgery.plan.targets().filter(|(_, shape)| !home(shape.cols)).count();
        if ragged > 0 {
            output::note(&format!(
                "note: {ragged} projections have a number of inputs that {group} does not divide; \
                 the shorter last group of each row keeps at most {}",
                pattern.keep()
            ));
        }
    }
}

fn dry_run_text(surgery: &Surgery, out: &Path) -> String {
    let (model, target) = (surgery.plan.model_elements(), surgery.plan.target_elements());
    let (workers, resident_bytes) = (surgery.memory.workers, surgery.resident_bytes());
    let recipe = serde_json::to_string(&surgery.recipe.method).expect("plain JSON");
    format!(
        "would prune {} of {} tensors: {} of {} elements ({})\n\
         method: {recipe}\n\
         would write {} to {}\n\
         memory: at most {} resident with {workers} worker threads\n\
         nothing was written\n",
        surgery.plan.targets().count(),
        surgery.plan.tensors.len(),
        grouped(target),
        grouped(model),
        Share::new(target, model, "model").sentence(),
        size(surgery.output_bytes()),
        out.display(),
        size(resident_bytes),
    )
}

fn dry_run_json(surgery: &Surgery) -> serde_json::Value {
    let (model, target) = (surgery.plan.model_elements(), surgery.plan.target_elements());
    json!({
        "schema": "physarium.plan/1",
        "recipe": surgery.recipe,
        "model": {"tensors": surgery.plan.tensors.len(), "elements": model},
        "target": {
            "tensors": surgery.plan.targets().count(),
            "elements": target,
            "of_model": Share::new(target, model, "model"),
        },
        "output_bytes": surgery.output_bytes(),
        "resident_bytes": surgery.resident_bytes(),
        "workers": surgery.memory.workers,
    })
}

/// What was done, in numbers.
pub fn counts(surgery: &Surgery, summary: &Summary) -> String {
    let (totals, target) = (summary.totals, surgery.plan.target_elements());
    let mut text = format!(
        "pruned {} weights: {}, {}\n",
        grouped(totals.pruned),
        Share::new(totals.pruned, target, "target").sentence(),
        Share::new(totals.pruned, totals.elements, "model").sentence(),
    );
    text += &format!(
        "processed {} of {} target elements in {} of {} tensors; {} were zero before\n",
        grouped(totals.processed),
        grouped(target),
        totals.processed_tensors,
        totals.tensors,
        grouped(totals.already_zero),
    );
    if totals.refitted > 0 {
        text += &format!(
            "refitted {} weights to make up for them: {}\n",
            grouped(totals.refitted),
            Share::new(totals.refitted, target, "target").sentence(),
        );
    }
    if totals.non_finite > 0 {
        text += &format!("{} NaN or infinite weights were kept as they are\n", totals.non_finite);
    }
    text
}

fn summary_text(surgery: &Surgery, summary: &Summary, model: &Path, out: &Path) -> String {
    let (model, shown) = (model.display(), out.display());
    let mut text = counts(surgery, summary);
    text += &format!(
        "wrote {shown}: {} in {} shards\n\
         next: physarium audit {shown} --against {model}\n      \
         physarium verify {model} {shown}\n",
        size(summary.output_bytes),
        summary.shards,
    );
    text
}

fn summary_json(surgery: &Surgery, summary: &Summary, out: &Path) -> serde_json::Value {
    let (totals, target) = (summary.totals, surgery.plan.target_elements());
    json!({
        "schema": "physarium.prune/1",
        "out": out.to_string_lossy(),
        "recipe": surgery.recipe,
        "model": {"tensors": totals.tensors, "elements": totals.elements},
        "target": {
            "tensors": surgery.plan.targets().count(),
            "elements": target,
            "of_model": Share::new(target, totals.elements, "model"),
        },
        "processed": {"tensors": totals.processed_tensors, "elements": totals.processed},
        "pruned": {
            "elements": totals.pruned,
            "of_target": Share::new(totals.pruned, target, "target"),
            "of_model": Share::new(totals.pruned, totals.elements, "model"),
        },
        "already_zero": totals.already_zero,
        "refitted": totals.refitted,
        "non_finite": totals.non_finite,
        "shards": {"written": summary.shards - summary.resumed_shards, "resumed": summary.resumed_shards},
        "output_bytes": summary.output_bytes,
    })
}
