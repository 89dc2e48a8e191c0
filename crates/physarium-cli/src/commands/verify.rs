//! `physarium verify`: the proof.

use std::path::PathBuf;

use clap::Args;
use physarium::Event;
use physarium::audit::{Verification, grouped, verify};
use serde_json::json;

use crate::arguments::{Display, Format};
use crate::output::{self, Outcome};
use crate::{signals, terminal};

/// Prove that an output is its input with only pruned weights changed
///
/// Reads every byte of both: the same files, the same headers, every byte outside the targets
/// equal, inside them every weight equal or +0.0, counts and digests as journal and manifest say.
/// Exit code 1 on any difference, each named by file, tensor and index.
#[derive(Args)]
pub struct Arguments {
    /// The checkpoint that was pruned
    model: PathBuf,
    /// What `physarium prune` made of it
    out: PathBuf,
    #[command(flatten)]
    display: Display,
}

/// Findings that are printed; the rest are counted.
const SHOWN: usize = 20;

/// Runs it.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let result = {
        let mut steps = terminal::steps("verify", &mut *progress, &cancel);
        verify(&arguments.model, &arguments.out, &mut steps)?
    };
    progress.event(Event::Finished);
    drop(progress);
    match arguments.display.format {
        Format::Json => output::json(&as_json(&result))?,
        Format::Text => output::text(&as_text(&result))?,
    }
    Ok(outcome(&result))
}

/// Whether the output is proven.
pub fn outcome(result: &Verification) -> Outcome {
    if result.findings.is_empty() { Outcome::True } else { Outcome::False }
}

/// The verification for a terminal.
pub fn as_text(result: &Verification) -> String {
    let Verification { findings, files, tensors, bytes, pruned, refitted } = result;
    let refits = match refitted {
        0 => String::new(),
        n => format!(" and {} refitted, all in targets", grouped(*n)),
    };
    if findings.is_empty() {
        return format!(
            "verified: {files} files, {tensors} tensors, {} bytes compared; {} weights pruned{}, \
             nothing else differs; counts and digests are as journal and manifest say\n",
            grouped(*bytes),
            grouped(*pruned),
            refits,
        );
    }
    let mut text = format!("NOT verified: {} differences\n", findings.len());
    for finding in findings.iter().take(SHOWN) {
        text += &format!("  {finding}\n");
    }
    if findings.len() > SHOWN {
        text += &format!("  and {} more (--format json has all)\n", findings.len() - SHOWN);
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
