//! `physarium audit`: counts what was pruned.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use physarium::Event;
use physarium::audit::{Audit, AuditRequest, Claims, Evidence, Verdict, audit, markdown, text};
use physarium::checkpoint::{Selection, decode_hint};
use physarium_report::{Content, Document, audit_page};

use crate::arguments::{Display, Format, INPUT, OUTPUT, SelectionArguments, ThreadsArgument};
use crate::model::{Model, RevisionArgument, refuse_in_model};
use crate::output::{self, Outcome, counted};
use crate::{signals, terminal};

/// Recount zeros from the bytes, independently of the pruner
///
/// Counts the weights of DIR and, with --against, compares each with the original. The counts are checked
/// against each other and, if DIR has a journal, against the journal; every percentage states what it is a
/// percentage of. Models that other tools pruned need no journal.
///
/// Exit code 1 if the numbers contradict each other, a claim is not correct, or MODEL is not the original; 2 if
/// nothing can be counted, so that no claim can be judged: no projection is stored as plain weights.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Checkpoint directory or hub id to audit
    #[arg(required_unless_present = "from_report")]
    dir: Option<PathBuf>,
    /// Original checkpoint; tells pruned weights from those that were zero before
    #[arg(long, value_name = "MODEL", conflicts_with = "from_journal", help_heading = INPUT)]
    against: Option<PathBuf>,
    /// Count from the headers in DIR and this journal, without reading weights
    #[arg(long, value_name = "JOURNAL", conflicts_with = "threads", help_heading = INPUT)]
    from_journal: Option<PathBuf>,
    /// Read an earlier audit back from its page or its JSON, without the model
    #[arg(long, value_name = "FILE", help_heading = INPUT,
          conflicts_with_all =
              ["dir", "against", "from_journal", "revision", "threads", "target", "skip"])]
    from_report: Option<PathBuf>,
    #[command(flatten)]
    revision: RevisionArgument,
    /// Judge the claims in this TOML file (docs/FORMATS.md)
    #[arg(long, value_name = "FILE", help_heading = INPUT)]
    claims: Option<PathBuf>,
    /// Write physarium.audit.html, physarium.audit.json and physarium.audit.md into this directory
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    report: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArguments,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    pub display: Display,
}

const EXAMPLES: &str = "\
Examples:
  physarium audit models/pruned --against models/llama
  physarium audit models/pruned --against models/llama --claims claims.toml --report reports
  physarium audit headers-only --from-journal physarium.journal.jsonl
  physarium audit --from-report reports/physarium.audit.html --claims claims.toml";

/// Names of the files in a report's directory.
const REPORT_FILES: [&str; 3] =
    ["physarium.audit.html", "physarium.audit.json", "physarium.audit.md"];

/// Audits.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    if let Some(report) = &arguments.report {
        refuse_in_model(report)?;
    }
    let claims = arguments.claims.as_deref().map(Claims::read).transpose()?;
    let mut result = match (&arguments.dir, &arguments.from_report) {
        (Some(dir), _) => arguments.count(dir)?,
        (None, Some(report)) => earlier(report)?,
        (None, None) => unreachable!("one of them is required"),
    };
    if let Some(claims) = claims {
        result.claims = claims.judge(&result)?;
    }
    if let Some(report) = &arguments.report {
        write_report(report, &result)?;
    }
    match arguments.display.format() {
        Format::Json => output::json(&result)?,
        Format::Text => output::text(&text(&result))?,
    }
    if let Some(report) = &arguments.report {
        let line = format!(
            "wrote {}",
            REPORT_FILES.map(|name| report.join(name).display().to_string()).join(", ")
        );
        match arguments.display.format() {
            Format::Text => output::text(&(line + "\n"))?,
            Format::Json if arguments.display.quiet => {}
            Format::Json => output::note(&line),
        }
    }
    let outcome = outcome(&result);
    if outcome == Outcome::Undecided {
        let audited = arguments.dir.or(arguments.from_report).unwrap_or_default();
        output::note(&format!("error: {}: {}", audited.display(), why_undecided(&result)));
    }
    Ok(outcome)
}

impl Arguments {
    /// Counts in a checkpoint.
    fn count(&self, dir: &Path) -> anyhow::Result<Audit> {
        let (Model { path, source, .. }, against) =
            self.revision.find_both(dir, self.against.as_deref())?;
        let SelectionArguments { target, skip } = self.selection.clone();
        let named = !target.is_empty() || !skip.is_empty();
        let request = AuditRequest {
            dir: &path,
            against: against.as_ref().map(|model| &*model.path),
            evidence: self.from_journal.clone().map_or(Evidence::Bytes, Evidence::Journal),
            selection: named.then_some(Selection { target, skip }),
            threads: self.threads.count(),
        };
        let cancel = signals::cancel_on_signal()?;
        let mut progress = terminal::progress(self.display.style());
        let mut result = audit(&request, &mut terminal::steps("audit", &mut *progress, &cancel))?;
        progress.event(Event::Finished);
        if let Some(provenance) = &mut result.provenance {
            provenance.source = source;
            provenance.against_source = against.and_then(|model| model.source);
        }
        Ok(result)
    }
}

/// The audit that a page or its JSON holds.
fn earlier(report: &Path) -> anyhow::Result<Audit> {
    let documents = Document::read(report)?;
    let audits = documents.into_iter().filter_map(|document| match document.content {
        Content::Audit(audit) => Some(*audit),
        Content::Comparison(_) | Content::Evaluation(_) | Content::Choices(_) => None,
    });
    let mut audits = audits.fuse();
    match (audits.next(), audits.next()) {
        (Some(audit), None) => Ok(audit),
        (None, _) => bail!("{}: expected the report of an audit, found another", report.display()),
        (Some(_), Some(_)) => {
            bail!("{}: expected the report of one audit, found several", report.display())
        }
    }
}

/// Whether the numbers agree and every claim is correct. Anything false counts more than what cannot be judged.
pub fn outcome(audit: &Audit) -> Outcome {
    let false_claim = audit.claims.iter().any(|claim| claim.verdict.is_false());
    let unjudged = audit.claims.iter().any(|claim| claim.verdict == Verdict::CannotBeJudged);
    if !audit.denominator_correct || false_claim || audit.unrelated.is_some() {
        Outcome::False
    } else if unjudged || audit.target.elements == 0 {
        Outcome::Undecided
    } else {
        Outcome::True
    }
}

/// What cannot be judged, and what can be done about it.
fn why_undecided(audit: &Audit) -> String {
    let unjudged = audit.claims.iter().filter(|claim| claim.verdict == Verdict::CannotBeJudged);
    let what = match unjudged.count() as u64 {
        0 => "nothing can be counted".to_owned(),
        n => format!("{} cannot be judged", counted(n, "claim")),
    };
    let hint = match audit.encoded.as_slice() {
        [] => "hint: --target GLOB names the tensors to count; inspect --tensors lists all names",
        encoded => decode_hint(encoded),
    };
    format!("{what}\n{hint}")
}

/// Writes the report's files.
pub fn write_report(dir: &Path, audit: &Audit) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    let [html, json, md] = REPORT_FILES.map(|name| dir.join(name));
    output::file(&html, &audit_page(audit))?;
    output::file(&json, &output::json_text(audit)?)?;
    output::file(&md, &markdown(audit))
}
