//! `physarium plan`: a run as a list of units of work.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use physarium::checkpoint::{printable_path, write_whole};
use physarium::{MemoryLimit, Options, WorkPlan};
use serde_json::json;

use super::job::{Job, memory};
use super::{kubernetes, slurm};
use crate::arguments::{DISPLAY, Display, Format, OUTPUT, overwrite};
use crate::model::refuse_in_model;
use crate::output::{self, Outcome, counted, size};
use crate::surgery::SurgeryArguments;
use crate::{signals, terminal};

/// Print a run as a list of units of work, for several processes or machines
///
/// The plan is JSON: each unit with its id, the units that it needs, and what it is expected to take. `physarium unit PLAN ID`
/// runs one; `physarium unit PLAN --worker 0/4` runs a quarter of them as they become ready. Any number of
/// processes on any number of hosts can do so, in any order that the needs allow, and the same unit twice; only a shared file
/// system is needed. `physarium finish PLAN` then publishes the output, byte for byte that of `physarium prune`.
///
/// The paths of the model and of the output in the plan are absolute: they must be the same on every host.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    surgery: SurgeryArguments,
    /// Replace an earlier physarium output once the new one is complete
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
    /// Write the plan to this file instead of stdout; an earlier plan there is replaced
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    plan: Option<PathBuf>,
    /// Also print a job that runs the plan's units and publishes the output
    #[arg(long, value_enum, requires = "plan", help_heading = OUTPUT)]
    template: Option<Template>,
    /// Processes that the job of --template runs at once
    #[arg(long, value_name = "N", default_value = "4", requires = "template", help_heading = OUTPUT)]
    workers: NonZeroUsize,
    /// Processors for each unit; any number gives the same result [default: all of this machine]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024),
        help_heading = DISPLAY
    )]
    threads: Option<u16>,
    #[command(flatten)]
    pub display: Display,
}

/// Who runs the units.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Template {
    /// A script that submits an array of workers, and a job that publishes the output
    Slurm,
    /// An Indexed Job of workers, and a Job that publishes the output
    Kubernetes,
}

const EXAMPLES: &str = "\
Examples:
  physarium plan models/llama --out models/half --method wanda --sparsity 0.5 > plan.json
  physarium plan models/llama --out models/half --method activation-flow --sparsity 0.5 \\
      --calibration text.txt --plan plan.json --template slurm --workers 8 > job.sh
  physarium unit plan.json --worker 0/2 & physarium unit plan.json --worker 1/2 & wait
  physarium finish plan.json";

/// Plans.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    if let Some(file) = &arguments.plan {
        refuse_lost(file, &arguments.surgery)?;
    }
    let threads = arguments.threads.map_or(Options::default().threads, usize::from);
    // The units run elsewhere.
    let within = (threads, MemoryLimit::Bytes(u64::MAX));
    let (surgery, _) = arguments.surgery.plan(within, arguments.display.quiet)?;
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let output = (&*arguments.surgery.out, overwrite(arguments.force));
    let plan = WorkPlan::new(&surgery, output, &cancel, &mut *progress)?;
    drop(progress);
    let Some(path) = &arguments.plan else {
        output::text(&plan.encode())?;
        if !arguments.display.quiet {
            output::note(&format!("note: {}", sentence(&plan)));
        }
        return Ok(Outcome::True);
    };
    write_whole(path, plan.encode().as_bytes())?;
    let job = Job { plan: &plan, path: &std::path::absolute(path)?, workers: arguments.workers };
    let job = arguments.template.map(|template| match template {
        Template::Slurm => slurm::script(&job),
        Template::Kubernetes => kubernetes::manifest(&job),
    });
    match (arguments.display.format(), job) {
        (Format::Json, job) => output::json(&json!({
            "schema": "physarium.planned/1",
            "plan": path.to_string_lossy(),
            "units": plan.units.len(),
            "steps": steps(&plan),
            "seconds": seconds(&plan),
            "memory_bytes": memory(&plan),
            "job": job,
        }))?,
        (Format::Text, Some(job)) => output::text(&job)?,
        (Format::Text, None) => {
            output::text(&format!("wrote {}: {}\n", path.display(), sentence(&plan)))?;
        }
    }
    Ok(Outcome::True)
}

/// Fails if the plan could not be written to `file` in the end, or if it would replace or enter anything but an earlier plan.
fn refuse_lost(file: &Path, surgery: &SurgeryArguments) -> anyhow::Result<()> {
    refuse_in_model(file)?;
    output::refuse_lost("--plan", file, &surgery.paths())?;
    // Nothing is lost with an empty file.
    let is_free = match file.metadata() {
        Ok(meta) => meta.is_file() && (meta.len() == 0 || WorkPlan::is_at(file)),
        Err(_) => true,
    };
    let shown = printable_path(file);
    ensure!(
        is_free,
        "--plan {shown}: would replace {shown}, which is no plan, expected a new file or an earlier plan"
    );
    Ok(())
}

/// The plan in a sentence.
fn sentence(plan: &WorkPlan) -> String {
    format!(
        "{} of about {} together on {} each, in {} one after another; at most {} of memory for a unit",
        counted(plan.units.len() as u64, "unit"),
        output::duration(Duration::from_secs_f64(seconds(plan))),
        counted(plan.cpus as u64, "processor"),
        counted(steps(plan) as u64, "step"),
        size(memory(plan)),
    )
}

/// Seconds of all units together.
fn seconds(plan: &WorkPlan) -> f64 {
    plan.units.iter().map(|unit| unit.cost.seconds).sum()
}

/// Number of units in the longest chain of units that need each other.
fn steps(plan: &WorkPlan) -> usize {
    plan.waves().into_iter().max().map_or(0, |last| last + 1)
}
