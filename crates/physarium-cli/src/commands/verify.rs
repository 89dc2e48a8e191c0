//! `physarium verify`: proves that nothing else changed.

use std::path::{Path, PathBuf};

use clap::Args;
use physarium::Event;
use physarium::audit::{Verification, grouped, verify};
use physarium::checkpoint::manifest;
use serde_json::json;

use crate::arguments::{Display, Format};
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
    /// Original checkpoint directory
    model: PathBuf,
    /// Output directory of `physarium prune`
    out: PathBuf,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium verify models/llama models/pruned
  physarium verify models/llama models/pruned --format json";

/// Number of differences that are printed; the rest are counted.
const SHOWN: usize = 20;

/// Verifies.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let result = {
        let mut steps = terminal::steps("verify", &mut *progress, &cancel);
        verify(&arguments.model, &arguments.out, &mut steps)?
    };
    progress.event(Event::Finished);
    drop(progress);
    match arguments.display.format() {
        Format::Json => output::json(&as_json(&result))?,
        Format::Text => output::text(&as_text(&result))?,
    }
    let is_output = |dir: &Path| dir.join(manifest::FILE_NAME).is_file();
    if is_output(&arguments.model) && !is_output(&arguments.out) && !arguments.display.quiet {
        output::note("note: the original comes first: physarium verify MODEL DIR");
    }
    Ok(outcome(&result))
}

/// Whether no difference was found.
pub fn outcome(result: &Verification) -> Outcome {
    if result.findings.is_empty() { Outcome::True } else { Outcome::False }
}

/// The verification for a terminal.
pub fn as_text(result: &Verification) -> String {
    let Verification { findings, files, tensors, bytes, pruned, refitted } = result;
    let refits = match refitted {
        0 => String::new(),
        n => format!(" and {} updated to compensate, all in targets", grouped(*n)),
    };
    if findings.is_empty() {
        return format!(
            "verified: {}, {}, {} bytes compared; {} weights pruned{}, nothing else differs; counts and \
             digests match journal and manifest\n",
            counted(*files, "file"),
            counted(*tensors, "tensor"),
            grouped(*bytes),
            grouped(*pruned),
            refits,
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
        "verified": result.findings.is_empty(),
        "files": result.files,
        "tensors": result.tensors,
        "bytes": result.bytes,
        "pruned": result.pruned,
        "refitted": result.refitted,
        "findings": findings,
    })
}
