//! `physarium pack` and `physarium unpack`: one small file, and the directory back.

use std::path::{Path, PathBuf};

use clap::Args;
use physarium::audit::Share;
use physarium::checkpoint::{self, Checkpoint, LinkPolicy, Overwrite, printable};
use physarium::pack::{PackRequest, PackSummary, Packed, TensorSizes, pack, unpack};
use physarium::{Cancel, Event, Progress};
use serde_json::json;

use crate::arguments::{Display, Format};
use crate::output::{self, Outcome, size};
use crate::{signals, terminal};

/// Pack a checkpoint into one file that leaves the zeros out
///
/// Projections are stored as a mask and the weights that are not zero, in their own dtype, or as they
/// are where that is smaller; N:M patterns as a denser index. Everything else in the directory goes in
/// as it is. `physarium unpack` gives the same bytes back; `run` and `eval` read the file as it is.
#[derive(Args)]
#[command(after_help = PACK_EXAMPLES)]
pub struct PackArguments {
    /// Checkpoint directory, usually an output of `physarium prune`
    dir: PathBuf,
    /// The packed file; its name usually ends in .physpack
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace a file that is there, once the new one is complete
    #[arg(long)]
    force: bool,
    /// Pack what links out of the directory point to
    #[arg(long)]
    follow_links: bool,
    #[command(flatten)]
    display: Display,
}

const PACK_EXAMPLES: &str = "\
Examples:
  physarium pack models/pruned --out pruned.physpack
  physarium run pruned.physpack --prompt 'Once upon a time'
  physarium unpack pruned.physpack --out models/pruned-again";

/// Unpack a packed file into the directory that it was made from, byte for byte
///
/// Every file is proven by its SHA-256 before the directory appears.
#[derive(Args)]
pub struct UnpackArguments {
    /// The packed file
    file: PathBuf,
    /// The directory, new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    display: Display,
}

/// Packs.
pub fn run(arguments: PackArguments) -> anyhow::Result<Outcome> {
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let overwrite = if arguments.force { Overwrite::Replace } else { Overwrite::Refuse };
    let links = if arguments.follow_links { LinkPolicy::Follow } else { LinkPolicy::LeaveOut };
    let summary =
        pack_directory(&arguments.dir, &arguments.out, overwrite, links, &cancel, &mut *progress)?;
    drop(progress);
    for (path, why) in &summary.left_out {
        if !arguments.display.quiet {
            output::note(&format!("left out: {}: {why}", printable(path)));
        }
    }
    match arguments.display.format {
        Format::Json => output::json(&as_json(&summary, &arguments.out))?,
        Format::Text => output::text(&as_text(&summary, &arguments.out))?,
    }
    Ok(Outcome::True)
}

/// Packs a directory, with progress.
pub fn pack_directory(
    dir: &Path,
    out: &Path,
    overwrite: Overwrite,
    links: LinkPolicy,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> anyhow::Result<PackSummary> {
    let checkpoint = Checkpoint::open(dir)?;
    let bytes = checkpoint.shards().iter().map(|shard| shard.size_bytes()).sum();
    progress.event(Event::Started { task: "pack", bytes, tensors: 0 });
    let tool = concat!("physarium ", env!("CARGO_PKG_VERSION"));
    let request = PackRequest { checkpoint: &checkpoint, out, overwrite, links, tool };
    let summary = pack(&request, &mut |bytes| advance(bytes, cancel, progress))?;
    progress.event(Event::Finished);
    Ok(summary)
}

/// Unpacks.
pub fn run_unpack(arguments: UnpackArguments) -> anyhow::Result<Outcome> {
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let packed = Packed::open(&arguments.file)?;
    let bytes = packed.unpacked_bytes();
    progress.event(Event::Started { task: "unpack", bytes, tensors: 0 });
    let summary = {
        let progress = &mut *progress;
        unpack(&packed, &arguments.out, &mut |bytes| advance(bytes, &cancel, progress))?
    };
    progress.event(Event::Finished);
    drop(progress);
    match arguments.display.format {
        Format::Json => output::json(&json!({
            "schema": "physarium.unpack/1",
            "out": arguments.out.to_string_lossy(),
            "files": summary.files,
            "bytes": summary.bytes,
        }))?,
        Format::Text => output::text(&format!(
            "wrote {}: {} files, {}, each as its SHA-256 says\n",
            arguments.out.display(),
            summary.files,
            size(summary.bytes)
        ))?,
    }
    Ok(Outcome::True)
}

fn advance(
    bytes: u64,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), checkpoint::Error> {
    progress.event(Event::Bytes(bytes));
    if cancel.is_raised() { Err(checkpoint::Error::Interrupted) } else { Ok(()) }
}

/// The sizes for a terminal.
pub fn as_text(summary: &PackSummary, out: &Path) -> String {
    let mut text = String::new();
    let rows = [
        ("as masks and values", summary.masked),
        ("as pattern codes and values", summary.grouped),
        ("as they are (no smaller otherwise)", summary.dense_projections),
    ];
    for (how, TensorSizes { tensors, dense, packed }) in
        rows.into_iter().filter(|(_, s)| s.tensors > 0)
    {
        let share = Share::new(packed, dense, "their dense bytes");
        text += &format!(
            "{tensors} projections {how}: {} to {}, {}\n",
            size(dense),
            size(packed),
            share.sentence()
        );
    }
    let share = Share::new(summary.output_bytes, summary.input_bytes, "the directory");
    text += &format!(
        "wrote {}: {} to {}, {}\n",
        out.display(),
        size(summary.input_bytes),
        size(summary.output_bytes),
        share.sentence()
    );
    text
}

fn as_json(summary: &PackSummary, out: &Path) -> serde_json::Value {
    let sizes = |sizes: TensorSizes| {
        json!({
            "tensors": sizes.tensors,
            "dense_bytes": sizes.dense,
            "packed_bytes": sizes.packed,
        })
    };
    let left_out = |(path, why): &(String, &str)| json!({"path": path, "reason": why});
    json!({
        "schema": "physarium.pack/1",
        "out": out.to_string_lossy(),
        "input_bytes": summary.input_bytes,
        "output_bytes": summary.output_bytes,
        "projections": {
            "mask": sizes(summary.masked),
            "groups": sizes(summary.grouped),
            "dense": sizes(summary.dense_projections),
        },
        "left_out": summary.left_out.iter().map(left_out).collect::<Vec<_>>(),
    })
}
