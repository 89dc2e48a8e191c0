//! `physarium verify`: proves that nothing else changed.

use std::path::{Path, PathBuf};

use clap::Args;
use physarium::Event;
use physarium::audit::{Verification, grouped, verify};
use physarium::checkpoint::manifest;
use serde_json::json;

use crate::arguments::{Display, Format, INPUT};
use crate::model::RevisionArgument;
use crate::output::{self, Outcome, counted};
use crate::{signals, terminal};

/// Prove that an output differs from its input only in pruned or updated target weights
///
/// Reads every byte of both directories and checks that they have the same files and headers; that every byte
/// outside the targets is equal; that every weight of a target is unchanged, +0.0 or, with methods that
/// compensate, updated; and that counts and digests match journal and manifest.
///
/// Exit code 1 on any difference; each is listed with file, tensor and index.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Output directory of `physarium prune`, or its hub id
    dir: PathBuf,
    /// Original checkpoint directory or hub id
    #[arg(long, value_name = "MODEL", help_heading = INPUT, required_unless_present = "old_order")]
    against: Option<PathBuf>,
    // The order of earlier releases: MODEL DIR.
    #[arg(hide = true, conflicts_with = "against")]
    old_order: Option<PathBuf>,
    #[command(flatten)]
    revision: RevisionArgument,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium verify models/pruned --against models/llama
  physarium verify models/pruned --against models/llama --format json";

/// Number of differences that are printed; the rest are counted.
const SHOWN: usize = 20;

impl Arguments {
    /// Output and original, and whether they were given in the old order.
    fn directories(&self) -> (&Path, &Path, bool) {
        match (&self.against, &self.old_order) {
            (Some(against), _) => (&self.dir, against, false),
            (None, Some(out)) => (out, &self.dir, true),
            (None, None) => unreachable!("the parser requires one of the two"),
        }
    }
}

/// Verifies.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let (out, model, is_old_order) = arguments.directories();
    let note = |line: &str| {
        if !arguments.display.quiet {
            output::note(line);
        }
    };
    if is_old_order {
        note("note: `verify MODEL DIR` is the old order; write `verify DIR --against MODEL`");
    }
    let [out, model] = arguments.revision.find_pair(out, model)?;
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let result = {
        let mut steps = terminal::steps("verify", &mut *progress, &cancel);
        verify(&model.path, &out.path, &mut steps)?
    };
    progress.event(Event::Finished);
    drop(progress);
    match arguments.display.format() {
        Format::Json => output::json(&as_json(&result))?,
        Format::Text => output::text(&as_text(&result))?,
    }
    let is_output = |dir: &Path| dir.join(manifest::FILE_NAME).is_file();
    if is_output(&model.path) && !is_output(&out.path) {
        let (model, out) = (model.shown, out.shown);
        note(&format!(
            "note: the directories look swapped: physarium verify {model} --against {out}"
        ));
    }
    Ok(outcome(&result))
}

/// Whether no difference was found.
pub fn outcome(result: &Verification) -> Outcome {
    if result.is_proven() { Outcome::True } else { Outcome::False }
}

/// The verification for a terminal.
pub fn as_text(result: &Verification) -> String {
    let Verification { unrelated, findings, files, tensors, bytes, pruned, refitted, rewritten } =
        result;
    let refits = match refitted {
        0 => String::new(),
        n => format!(" and {} updated to compensate, all in targets", grouped(*n)),
    };
    if let Some(unrelated) = unrelated {
        let listed = match findings.len() {
            0 => String::new(),
            n => format!(" (--format json lists {})", counted(n as u64, "difference")),
        };
        return format!("NOT verified: {unrelated}{listed}\n");
    }
    if findings.is_empty() {
        return format!(
            "verified: {}, {}, {} bytes compared; {} weights pruned{}, nothing else differs{}; counts \
             and digests match journal and manifest\n",
            counted(*files, "file"),
            counted(*tensors, "tensor"),
            grouped(*bytes),
            grouped(*pruned),
            refits,
            match rewritten.as_slice() {
                [] => String::new(),
                names => format!(" but {}, which has the model card", names.join(", ")),
            },
        );
    }
    let mut text = format!("NOT verified: {}\n", counted(findings.len() as u64, "difference"));
    for finding in findings.iter().take(SHOWN) {
        text += &format!("  {finding}\n");
    }
    if findings.len() > SHOWN {
        text += &format!("  and {} more (--format json lists all)\n", findings.len() - SHOWN);
    }
    text
}

fn as_json(result: &Verification) -> serde_json::Value {
    let findings: Vec<_> = result
        .findings
        .iter()
        .map(|f| json!({"file": f.file, "tensor": f.tensor, "what": f.what}))
        .collect();
    json!({
        "schema": "physarium.verify/1",
        "verified": result.is_proven(),
        "files": result.files,
        "tensors": result.tensors,
        "bytes": result.bytes,
        "pruned": result.pruned,
        "refitted": result.refitted,
        "rewritten": result.rewritten,
        "unrelated": result.unrelated,
        "findings": findings,
    })
}
