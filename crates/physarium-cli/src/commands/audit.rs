//! `physarium audit`: the coverage audit.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use physarium::Event;
use physarium::audit::{Audit, AuditRequest, Claims, Evidence, Verdict, audit, markdown, text};
use physarium::checkpoint::Selection;

use crate::arguments::{Display, Format, SelectionArguments, ThreadsArgument};
use crate::output::{self, Outcome};
use crate::{signals, terminal};

/// Recount a pruned checkpoint and name every denominator
///
/// Counts from the bytes of DIR, and with --against from those of the original too; takes no
/// number from the pruner, and compares with its journal where there is one. Works on models that
/// other tools pruned: `physarium audit DIR --against BASE` needs no journal.
///
/// Exit code 1 when an identity between the numbers does not hold or a claim is not correct.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory to audit
    dir: PathBuf,
    /// What it was made from; tells pruned weights from weights that were zero before
    #[arg(long, value_name = "MODEL", conflicts_with = "from_journal")]
    against: Option<PathBuf>,
    /// Reconstruct the report from the headers in DIR and this journal; reads no weights
    #[arg(long, value_name = "JOURNAL")]
    from_journal: Option<PathBuf>,
    /// Judge the claims in this file (TOML; docs/FORMATS.md)
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// Write physarium.audit.json and physarium.audit.md into this directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArguments,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium audit models/pruned --against models/llama
  physarium audit models/pruned --against models/llama --claims claims.toml --report reports
  physarium audit headers-only --from-journal physarium.journal.jsonl";

/// Runs it.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let claims = arguments.claims.as_deref().map(Claims::read).transpose()?;
    let SelectionArguments { target, skip } = arguments.selection;
    let named = !target.is_empty() || !skip.is_empty();
    let request = AuditRequest {
        dir: &arguments.dir,
        against: arguments.against.as_deref(),
        evidence: arguments.from_journal.map_or(Evidence::Bytes, Evidence::Journal),
        selection: named.then_some(Selection { target, skip }),
        threads: arguments.threads.count(),
    };
    let cancel = signals::cancel_on_signal()?;
    let mut progress = terminal::progress(arguments.display.style());
    let mut result = audit(&request, &mut terminal::steps("audit", &mut *progress, &cancel))?;
    progress.event(Event::Finished);
    drop(progress);
    if let Some(claims) = claims {
        result.claims = claims.judge(&result)?;
    }
    if let Some(report) = &arguments.report {
        refuse_inside(report, &arguments.dir)?;
        write_report(report, &result)?;
    }
    match arguments.display.format {
        Format::Json => output::json(&result)?,
        Format::Text => output::text(&text(&result))?,
    }
    Ok(outcome(&result))
}

/// Whether everything that was checked is true.
pub fn outcome(audit: &Audit) -> Outcome {
    let claims = audit.claims.iter().all(|claim| claim.verdict == Verdict::Correct);
    if audit.denominator_correct && claims { Outcome::True } else { Outcome::False }
}

/// A report inside the checkpoint would be a file that `verify` does not expect there.
fn refuse_inside(report: &Path, audited: &Path) -> anyhow::Result<()> {
    let audited = std::fs::canonicalize(audited)?;
    let absolute = std::path::absolute(report)?;
    let real = absolute.ancestors().find_map(|above| std::fs::canonicalize(above).ok());
    ensure!(
        !real.is_some_and(|real| real.starts_with(&audited)),
        "{}: report directory is inside the audited checkpoint, expected another place",
        report.display()
    );
    Ok(())
}

/// Writes the two report files.
pub fn write_report(dir: &Path, audit: &Audit) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    let json = serde_json::to_string_pretty(audit)? + "\n";
    for (name, text) in [("physarium.audit.json", json), ("physarium.audit.md", markdown(audit))] {
        output::file(&dir.join(name), &text)?;
    }
    Ok(())
}
