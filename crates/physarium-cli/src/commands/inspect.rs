//! `physarium inspect`: headers only.

use std::path::PathBuf;

use clap::Args;
use physarium::audit::{Listing, inspect};
use physarium::checkpoint::{Checkpoint, Selection, TargetPlan};

use crate::arguments::{Display, Format, SelectionArguments};
use crate::output::{self, Outcome};

/// Show what a checkpoint holds and what would be pruned, from its headers alone
///
/// Reads no weights: milliseconds for any size. Every tensor is either a target or skipped for a
/// stated reason.
#[derive(Args)]
pub struct Arguments {
    /// Checkpoint directory
    model: PathBuf,
    #[command(flatten)]
    selection: SelectionArguments,
    /// List every tensor with its decision
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    display: Display,
}

/// Runs it.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let SelectionArguments { target, skip } = arguments.selection;
    let plan = TargetPlan::new(&checkpoint, &Selection { target, skip })?;
    let inspection = inspect(&checkpoint, &plan);
    match arguments.display.format {
        Format::Json => output::json(&inspection)?,
        Format::Text => {
            let listing = if arguments.tensors { Listing::Tensors } else { Listing::Sums };
            output::text(&inspection.text(checkpoint.layout(), listing))?;
        }
    }
    Ok(Outcome::True)
}
