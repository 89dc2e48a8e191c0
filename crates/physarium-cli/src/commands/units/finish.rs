//! `physarium finish`: publishes the output of a plan whose units are done.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use physarium::checkpoint::Resume;
use physarium::{MemoryLimit, Output, peak_resident_bytes};
use serde_json::json;

use super::workplace;
use crate::arguments::{Display, Format, INPUT, OUTPUT, ThreadsArgument, overwrite};
use crate::commands::prune;
use crate::output::{self, Outcome};
use crate::{signals, terminal};

/// Publish the output of a plan whose units are done
///
/// Every shard is hashed again. The output is byte for byte that of `physarium prune` with the same options. What the units have
/// left beside it is removed. Run the same command again if it was interrupted.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A plan, as `physarium plan` printed it
    plan: PathBuf,
    /// Wait until all units are done instead of failing if some are not
    #[arg(long, help_heading = INPUT)]
    wait: bool,
    /// Also replace a finished output that was not there when the plan was made
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
    /// Discard an interrupted `prune` or `finish` of the same output instead of resuming it
    #[arg(long, help_heading = OUTPUT)]
    restart: bool,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium finish plan.json
  physarium finish plan.json --wait";

/// Publishes.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let threads = arguments.threads.given();
    let place = workplace(&arguments.plan, threads, MemoryLimit::Free)?;
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    if arguments.wait {
        place.wait(&cancel)?;
    }
    let out = &place.plan().out;
    let resume = if arguments.restart { Resume::Restart } else { Resume::Continue };
    let output = Output { dir: out, overwrite: overwrite(arguments.force), resume };
    let summary = place.finish(output, &cancel, &mut *progress)?;
    drop(progress);
    let surgery = place.surgery();
    match arguments.display.format() {
        Format::Json => {
            let mut json = prune::summary_json(surgery, &summary, out);
            json["seconds"] = json!(began.elapsed().as_secs_f64());
            json["peak_rss_bytes"] = json!(peak_resident_bytes());
            output::json(&json)?;
        }
        Format::Text => {
            let text = prune::counts(surgery, &summary) + &prune::cost(began.elapsed());
            output::text(
                &(text
                    + &prune::summary_text(&summary, &place.plan().model.to_string_lossy(), out)),
            )?;
        }
    }
    Ok(Outcome::True)
}
