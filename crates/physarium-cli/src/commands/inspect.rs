//! `physarium inspect`: lists tensors from the headers.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use physarium::audit::{Listing, inspect};
use physarium::checkpoint::{Checkpoint, Selection, TargetPlan};

use crate::arguments::{DISPLAY, Format, FormatArgument, SelectionArguments};
use crate::model::{Model, RevisionArgument};
use crate::output::{self, Outcome};
use crate::surgery::note_left_alone;

/// List tensors, targets, and why other tensors are skipped
///
/// Reads headers only, so it takes milliseconds for any size. A target is a tensor that `prune` would prune;
/// every other tensor is listed by what it is (embedding, norm, bias, head) or by why it is skipped.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory or hub id
    model: PathBuf,
    #[command(flatten)]
    revision: RevisionArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    /// List every tensor, as target or with the reason for skipping it; JSON always does
    #[arg(long, help_heading = DISPLAY)]
    tensors: bool,
    #[command(flatten)]
    result: FormatArgument,
}

const EXAMPLES: &str = "\
Examples:
  physarium inspect models/llama
  physarium inspect Qwen/Qwen2.5-0.5B                # in the hub cache; `hf download` fetches it
  physarium inspect models/llama --tensors --skip '*.k_proj.weight'";

/// Inspects.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    ensure!(
        !(arguments.tensors && arguments.result.format == Format::Json),
        "--tensors has no effect with --format json, which always lists every tensor"
    );
    let Model { path, source, .. } = arguments.revision.find(&arguments.model)?;
    let checkpoint = Checkpoint::open(&path)?;
    let SelectionArguments { target, skip } = arguments.selection;
    let plan = TargetPlan::new(&checkpoint, &Selection { target, skip })?;
    let mut inspection = inspect(&checkpoint, &plan);
    inspection.source = source;
    note_left_alone(&plan);
    match arguments.result.format {
        Format::Json => output::json(&inspection)?,
        Format::Text => {
            let listing = if arguments.tensors { Listing::Tensors } else { Listing::Sums };
            output::text(&inspection.text(checkpoint.layout(), listing))?;
        }
    }
    Ok(Outcome::True)
}
