//! `physarium unit`: runs units of a plan.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use physarium::{MemoryLimit, Share, UnitEnded, Worker, peak_resident_bytes};
use serde_json::json;

use super::workplace;
use crate::arguments::{DISPLAY, Display, Format, INPUT, ThreadsArgument, memory_limit, share};
use crate::output::{self, Outcome, counted, size};
use crate::{signals, terminal};

/// Run a unit of work of a plan, or those that are ready
///
/// A unit that is done is not run again, so the same command can be repeated. Several processes may run the same unit: the first
/// result is kept, and another one must be the same. A unit is refused if the input, the program's version or the arithmetic
/// is not the plan's.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A plan, as `physarium plan` printed it
    plan: PathBuf,
    /// The unit's id
    #[arg(required_unless_present = "worker", conflicts_with = "worker")]
    id: Option<String>,
    /// Run every N-th of the units that can run side by side, from number I on, until all units are done
    #[arg(long, value_name = "I/N", value_parser = share, help_heading = INPUT)]
    worker: Option<Share>,
    /// Run units of other workers too when nothing was done for so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 600,
        conflicts_with = "id",
        help_heading = INPUT
    )]
    take_over_after: u64,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Most resident memory, e.g. 8GB or 512MiB: fewer threads run, or a unit that is expected to need more is refused
    /// [default: what is free, less 5 %]
    #[arg(long, value_name = "SIZE", value_parser = memory_limit, help_heading = DISPLAY)]
    memory: Option<MemoryLimit>,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium unit plan.json shard-00001
  physarium unit plan.json --worker 0/4";

/// Runs.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let threads = arguments.threads.given();
    let place = workplace(&arguments.plan, threads, arguments.memory.unwrap_or_default())?;
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let (text, mut json) = match (&arguments.id, arguments.worker) {
        (Some(id), _) => {
            let ended = place.run(id, &cancel, &mut *progress)?;
            (format!("{id}: {}", in_words(ended)), json!({"unit": id, "ended": in_words(ended)}))
        }
        (None, Some(share)) => {
            let patience = Duration::from_secs(arguments.take_over_after);
            let ran = Worker { share, patience }.run(&place, &cancel, &mut *progress)?;
            let all = place.plan().units.len();
            let text =
                format!("all {} are done; this worker ran {ran}", counted(all as u64, "unit"));
            (text, json!({"units": all, "ran": ran}))
        }
        (None, None) => unreachable!("an id or a worker is required"),
    };
    drop(progress);
    match arguments.display.format() {
        Format::Json => {
            json["schema"] = json!("physarium.unit-run/1");
            json["seconds"] = json!(began.elapsed().as_secs_f64());
            json["peak_rss_bytes"] = json!(peak_resident_bytes());
            output::json(&json)?;
        }
        Format::Text => {
            let memory =
                peak_resident_bytes().map(|bytes| format!(", peak memory {}", size(bytes)));
            let (took, memory) = (output::duration(began.elapsed()), memory.unwrap_or_default());
            output::text(&format!("{text}; took {took}{memory}\n"))?;
        }
    }
    Ok(Outcome::True)
}

fn in_words(ended: UnitEnded) -> &'static str {
    match ended {
        UnitEnded::Done => "done",
        UnitEnded::Before => "done before",
        UnitEnded::Elsewhere => "done by another process meanwhile",
    }
}
