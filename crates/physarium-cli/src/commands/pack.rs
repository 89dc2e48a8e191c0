//! `physarium pack` and `physarium unpack`: a directory to one file without zeros, and back.

use std::path::{Path, PathBuf};

use clap::Args;
use physarium::audit::Share;
use physarium::checkpoint::{self, Checkpoint, LinkPolicy, Overwrite, printable};
use physarium::pack::{NegativeZeros, PackRequest, PackSummary, Packed, TensorSizes, pack, unpack};
use physarium::{Cancel, Event, Progress};
use serde_json::json;

use crate::arguments::{Display, Format, OUTPUT, overwrite};
use crate::model::{RevisionArgument, refuse_in_cache};
use crate::output::{self, Outcome, counted, size};
use crate::{signals, terminal};

/// Pack a checkpoint into one file without zeros
///
/// Each target is stored as a mask and its nonzero weights, in their own dtype, or dense where that is
/// smaller; N:M patterns get a smaller code instead of the mask. All other files of the directory are stored
/// unchanged. `unpack` restores the same bytes; `run` and `eval` read the packed file directly.
#[derive(Args)]
#[command(after_help = PACK_EXAMPLES)]
pub struct PackArguments {
    /// Checkpoint directory, usually an output of `physarium prune`, or hub id
    dir: PathBuf,
    #[command(flatten)]
    revision: RevisionArgument,
    /// Packed file, usually NAME.physpack
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    out: PathBuf,
    /// Replace an existing packed file once the new one is complete
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
    /// Pack files that links out of the directory point to, instead of leaving them out
    #[arg(long, help_heading = OUTPUT)]
    follow_links: bool,
    #[command(flatten)]
    pub display: Display,
}

const PACK_EXAMPLES: &str = "\
Examples:
  physarium pack models/pruned --out pruned.physpack
  physarium run pruned.physpack --prompt 'Once upon a time'
  physarium unpack pruned.physpack --out models/pruned-again";

/// Restore the directory of a packed file, byte for byte
///
/// Every file is verified against its SHA-256 before the directory appears.
#[derive(Args)]
#[command(after_help = UNPACK_EXAMPLES)]
pub struct UnpackArguments {
    /// Packed file
    file: PathBuf,
    /// Output directory, new or empty
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    pub display: Display,
}

const UNPACK_EXAMPLES: &str = "\
Examples:
  physarium unpack pruned.physpack --out models/pruned-again";

/// What is packed where.
pub struct Packing<'a> {
    /// The checkpoint directory.
    pub dir: &'a Path,
    /// The packed file.
    pub out: &'a Path,
    /// What to do with an existing file.
    pub overwrite: Overwrite,
    /// What to do with links out of the directory.
    pub links: LinkPolicy,
}

/// Packs.
pub fn run(arguments: PackArguments) -> anyhow::Result<Outcome> {
    refuse_in_cache(&arguments.out)?;
    let model = arguments.revision.find(&arguments.dir)?;
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let packing = Packing {
        dir: &model.path,
        out: &arguments.out,
        overwrite: overwrite(arguments.force),
        links: if arguments.follow_links { LinkPolicy::Follow } else { LinkPolicy::LeaveOut },
    };
    let summary = packing.pack(&cancel, &mut *progress)?;
    drop(progress);
    for (path, why) in &summary.left_out {
        if !arguments.display.quiet {
            output::note(&format!("note: left out: {}: {why}", printable(path)));
        }
    }
    match arguments.display.format() {
        Format::Json => output::json(&as_json(&summary, &arguments.out))?,
        Format::Text => output::text(&as_text(&summary, &arguments.out))?,
    }
    Ok(Outcome::True)
}

impl Packing<'_> {
    /// Packs the directory.
    ///
    /// # Errors
    /// If the checkpoint cannot be read, the file cannot be written, or `cancel` is raised.
    pub fn pack(
        &self,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> anyhow::Result<PackSummary> {
        let Packing { dir, out, overwrite, links } = *self;
        let checkpoint = Checkpoint::open(dir)?;
        let bytes = checkpoint.shards().iter().map(|shard| shard.size_bytes()).sum();
        progress.event(Event::Started { task: "pack", bytes, tensors: 0 });
        let tool = concat!("physarium ", env!("CARGO_PKG_VERSION"));
        let request = PackRequest { checkpoint: &checkpoint, out, overwrite, links, tool };
        let summary = pack(&request, &mut |bytes| advance(bytes, cancel, progress))?;
        progress.event(Event::Finished);
        Ok(summary)
    }
}

/// Unpacks.
pub fn run_unpack(arguments: UnpackArguments) -> anyhow::Result<Outcome> {
    refuse_in_cache(&arguments.out)?;
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
    match arguments.display.format() {
        Format::Json => output::json(&json!({
            "schema": "physarium.unpack/1",
            "out": arguments.out.to_string_lossy(),
            "files": summary.files,
            "bytes": summary.bytes,
        }))?,
        Format::Text => output::text(&format!(
            "wrote {}: {}, {}, all SHA-256 verified\n",
            arguments.out.display(),
            counted(summary.files as u64, "file"),
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
        ("stored as masks and values", summary.masked),
        ("stored as pattern codes and values", summary.grouped),
        ("stored dense (not smaller otherwise)", summary.dense_projections),
    ];
    for (how, TensorSizes { tensors, dense, packed }) in
        rows.into_iter().filter(|(_, s)| s.tensors > 0)
    {
        let share = Share::new(packed, dense, "their dense bytes");
        text += &format!(
            "{} {how}: {} to {}, {}\n",
            counted(tensors, "tensor"),
            size(dense),
            size(packed),
            share.sentence()
        );
    }
    let NegativeZeros { tensors, elements } = summary.negative_zeros;
    if elements > 0 {
        text += &format!(
            "note: {} in {} -0.0, not +0.0: kept bit for bit, so each takes the place of a value\n",
            counted(elements, "weight"),
            counted(tensors, "tensor") + if elements == 1 { " is" } else { " are" },
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
    let mut object = json!({
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
    });
    let NegativeZeros { tensors, elements } = summary.negative_zeros;
    if elements > 0 {
        object["negative_zeros"] = json!({"tensors": tensors, "elements": elements});
    }
    object
}
