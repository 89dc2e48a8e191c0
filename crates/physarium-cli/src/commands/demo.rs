//! `physarium demo`: every command on the bundled model.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use physarium::audit::{
    AuditRequest, Claims, Evidence, Listing, audit, inspect, text, verify as verify_output,
};
use physarium::checkpoint::{BosPlace, LinkPolicy, Overwrite, Resume, Sparsity};
use physarium::{
    Begun, CalibrationText, Cancel, ComparisonRequest, Contender, Ended, Error, EvalRequest,
    GenerateRequest, Generated, MethodName, Options, Output, Outputs, Progress, Prompt,
    RecipeOptions, Sampling, Share, Surgery, evaluate, generate,
};

use crate::arguments::{DISPLAY, INPUT, OUTPUT};
use crate::commands::{audit as audit_command, compare, eval, pack, prune, verify};
use crate::model::refuse_in_model;
use crate::output::{self, Outcome, size};
use crate::{signals, terminal};

/// Run every command on the bundled model
///
/// Inspects, prunes, audits, verifies, evaluates, compares, packs and runs a small language model, and prints
/// each command with its result. Takes seconds and needs no network. Exit code 1 if a check fails.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Directory with the bundled model [default: demo/ here, above, or where this was built]
    #[arg(long, value_name = "DIR", help_heading = INPUT)]
    demo: Option<PathBuf>,
    /// Output directory for pruned models and reports; those of an earlier demo are replaced
    #[arg(long, value_name = "DIR", default_value = "demo-out", help_heading = OUTPUT)]
    out: PathBuf,
    /// Only errors on stderr: no progress
    #[arg(short, long, help_heading = DISPLAY)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  physarium demo
  physarium demo --out /tmp/physarium-demo --quiet";

/// Runs the demo.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    refuse_in_model(&arguments.out)?;
    let demo = find_demo(arguments.demo.as_deref())?;
    let (model, out) = (demo.join("model"), arguments.out.join("pruned"));
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("{}: cannot create", arguments.out.display()))?;
    let style = if arguments.quiet { terminal::Style::None } else { terminal::Style::Auto };
    let cancel = signals::cancel_on_signal()?;
    let (shown_model, shown_out) = (model.display(), out.display());

    heading(&format!("physarium inspect {shown_model}"))?;
    let recipe = RecipeOptions::default().recipe(&model, None)?;
    let surgery = Surgery::plan(&model, recipe, Options::default())?;
    let inspection = inspect(&surgery.checkpoint, &surgery.plan);
    output::text(&inspection.text(surgery.checkpoint.layout(), Listing::Sums))?;

    heading(&format!("physarium prune {shown_model} --out {shown_out}"))?;
    let mut progress = terminal::progress(style);
    let output = Output { dir: &out, overwrite: Overwrite::Replace, resume: Resume::Restart };
    let summary = surgery.prune(output, &cancel, &mut *progress)?;
    output::text(&prune::counts(&surgery, &summary))?;

    let claims_file = demo.join("claims.toml");
    let (claims, report) = (claims_file.display(), arguments.out.display());
    heading(&format!(
        "physarium audit {shown_out} --against {shown_model} --claims {claims} --report {report}"
    ))?;
    let request = AuditRequest {
        dir: &out,
        against: Some(&model),
        evidence: Evidence::Bytes,
        selection: None,
        threads: Options::default().threads,
    };
    let mut result = audit(&request, &mut terminal::steps("audit", &mut *progress, &cancel))?;
    result.claims = Claims::read(&claims_file)?.judge(&result)?;
    audit_command::write_report(&arguments.out, &result)?;
    output::text(&text(&result))?;

    heading(&format!("physarium verify {shown_out} --against {shown_model}"))?;
    let proof =
        verify_output(&model, &out, &mut terminal::steps("verify", &mut *progress, &cancel))?;
    output::text(&verify::as_text(&proof))?;

    let heldout = demo.join("heldout.txt");
    let shown_text = heldout.display();
    heading(&format!(
        "physarium eval {shown_out} --against {shown_model} --text {shown_text} --window 512"
    ))?;
    let request = EvalRequest { against: Some(&model), ..evaluation(&out, &heldout) };
    let measured = evaluate(&request, &cancel, &mut *progress)?;
    output::text(&eval::as_text(&measured))?;

    let better = compare_methods(&arguments, &demo, &cancel, &mut *progress)?;
    pack_and_generate(&arguments, &model, &cancel, &mut *progress)?;

    output::text(&format!(
        "\nTo look at in a browser: {report}/physarium.audit.html and {report}/compare.html. The pruned model is in {shown_out}.\n\
         Next, on a checkpoint of your own:\n  \
         physarium inspect MODEL\n  \
         physarium prune MODEL --out PRUNED\n  \
         physarium audit PRUNED --against MODEL\n  \
         physarium pack PRUNED --out PRUNED.physpack\n"
    ))?;
    let all = [audit_command::outcome(&result), verify::outcome(&proof), better];
    Ok(if all == [Outcome::True; 3] { Outcome::True } else { Outcome::False })
}

/// Prunes with magnitude and activation-flow at the same sparsity. A success if the flow loses less quality.
fn compare_methods(
    arguments: &Arguments,
    demo: &Path,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> anyhow::Result<Outcome> {
    let (model, heldout) = (demo.join("model"), demo.join("heldout.txt"));
    let calibration_file = demo.join("calibration.txt");
    let (shown_model, shown_text) = (model.display(), heldout.display());
    heading(&format!(
        "physarium compare {shown_model} --out {} --methods magnitude,activation-flow --sparsity 0.5 \
         --calibration {} --calibration-tokens 16384 --window 512 --text {shown_text} \
         --eval-window 512 --keep",
        arguments.out.display(),
        calibration_file.display(),
    ))?;
    let text = CalibrationText::read(&calibration_file, None)?;
    let sparsity = Some(Sparsity::try_from(0.5).map_err(Error::Usage)?);
    let calibration = text.calibration(16_384, 512, 0);
    let contender = |method: MethodName| -> Result<Contender, Error> {
        let options = RecipeOptions { method, sparsity, ..RecipeOptions::default() };
        let name = format!("{}-0.5", method.text());
        Ok(Contender { name, recipe: options.build(Some(calibration))? })
    };
    let contenders = [contender(MethodName::Magnitude)?, contender(MethodName::ActivationFlow)?];
    let request = ComparisonRequest {
        contenders: &contenders,
        calibration: &text,
        eval: evaluation(&model, &heldout),
        dir: &arguments.out,
        tables: &[],
        outputs: Outputs::Keep,
        begun: Begun::Discard,
        share: Share::ALL,
        options: Options::default(),
    };
    let comparison = physarium::compare(&request, cancel, progress, |_| {})?;
    if comparison.ended == Ended::Unfinished {
        return Err(Error::Stopped.into());
    }
    output::text(&compare::table::as_text(&comparison))?;
    let runs: Vec<_> = comparison.runs().map(|run| run.evaluation.perplexity).collect();
    Ok(match runs[..] {
        [magnitude, flow] if flow < magnitude => Outcome::True,
        _ => Outcome::False,
    })
}

/// Packs the model that the flow pruned, generates text, and compares the speed with the dense model's.
fn pack_and_generate(
    arguments: &Arguments,
    model: &Path,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> anyhow::Result<()> {
    const PROMPT: &str = "Long ago a girl named Tilda left the house.";
    let pruned = arguments.out.join("activation-flow-0.5");
    let file = arguments.out.join("activation-flow-0.5.physpack");
    let (shown_pruned, shown_file) = (pruned.display(), file.display());
    heading(&format!("physarium pack {shown_pruned} --out {shown_file} --force"))?;
    let packing = pack::Packing {
        dir: &pruned,
        out: &file,
        overwrite: Overwrite::Replace,
        links: LinkPolicy::LeaveOut,
    };
    let packed = packing.pack(cancel, progress)?;
    output::text(&pack::as_text(&packed, &file))?;

    heading(&format!("physarium run {shown_file} --prompt '{PROMPT}' --max-tokens 197"))?;
    let run = |model: &Path| {
        let request = GenerateRequest {
            model,
            prompt: Prompt::Text(PROMPT),
            max_tokens: 197,
            sampling: Sampling::default(),
            threads: Options::default().threads,
            arithmetic: None,
        };
        generate(&request, cancel, &mut |_| Ok(()))
    };
    let (packed, from_directory, dense) = (run(&file)?, run(&pruned)?, run(model)?);
    output::text(&format!("{}\n\n", packed.text.trim_start()))?;
    ensure!(
        packed.text == from_directory.text,
        "{shown_file} and {shown_pruned} generate different text"
    );
    let row = |name: &str, run: &Generated| {
        format!(
            "{name:<34}{:>10} of weights, {:.2} ms per token\n",
            size(run.weights_bytes as u64),
            ms(run)
        )
    };
    output::text(&format!(
        "{}{}{}The packed file and its directory generate the same text. Packing makes larger models faster; a\n\
         model this small fits into the processor's caches.\n",
        row("packed, 50 % of target zero", &packed),
        row("the same as a directory", &from_directory),
        row("dense model", &dense),
    ))
}

/// Milliseconds per token after the first.
fn ms(run: &Generated) -> f64 {
    1e3 * run.generation.as_secs_f64() / run.generated_tokens.saturating_sub(1).max(1) as f64
}

/// The evaluation of the demo.
fn evaluation<'a>(model: &'a Path, text: &'a Path) -> EvalRequest<'a> {
    EvalRequest {
        model,
        against: None,
        text,
        field: None,
        window: Some(512),
        stride: None,
        limit: None,
        bos: BosPlace::Text,
        threads: Options::default().threads,
        arithmetic: None,
    }
}

/// The directory with `model/` and `claims.toml`.
fn find_demo(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = named {
        return Ok(dir.to_owned());
    }
    let here = std::env::current_dir().context("cannot find the current directory")?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = built.canonicalize().unwrap_or(built);
    let shown = |root: &Path| if root == here { "demo".into() } else { root.join("demo") };
    here.ancestors()
        .chain([built.as_path()])
        .find(|root| root.join("demo/model/config.json").is_file())
        .map(shown)
        .context(
            "cannot find demo/ here, above, or where physarium was built: name it with --demo DIR",
        )
}

fn heading(command: &str) -> anyhow::Result<()> {
    output::text(&format!("\n$ {command}\n\n"))
}
