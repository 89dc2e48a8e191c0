//! `physarium report`: audits, comparisons and evaluations in one page.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use physarium::checkpoint::Checkpoint;
use physarium_report::{Document, overview_page};

use crate::arguments::{DISPLAY, OUTPUT};
use crate::model::refuse_in_cache;
use crate::output::{self, Outcome};

/// Show audits, comparisons and evaluations side by side in one HTML page
///
/// Reads the JSON that `audit --report`, `compare` and `eval --format json` write, or the pages made of it, and writes
/// one page that needs nothing else: no network, no other file. A single audit or comparison gets its own page again.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Directories with such JSON, or files
    #[arg(required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Page to write
    #[arg(long, value_name = "FILE", default_value = "physarium.report.html", help_heading = OUTPUT)]
    out: PathBuf,
    /// Write the charts as SVG files into this directory too: NAME-flow.svg, NAME-perplexity.svg, …
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pictures: Option<PathBuf>,
    /// Only errors on stderr, nothing on stdout
    #[arg(short, long, help_heading = DISPLAY)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  physarium report reports/wanda reports/flow --out reports.html
  physarium report table/physarium.compare.json eval.json --out reports.html
  physarium report table --pictures charts";

/// Makes the page.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let mut documents = Vec::new();
    for path in &arguments.paths {
        documents.extend(Document::read(path)?);
    }
    refuse_in_checkpoint(&arguments.out)?;
    refuse_in_cache(&arguments.out)?;
    if let Some(dir) = &arguments.pictures {
        refuse_in_checkpoint(&dir.join("chart.svg"))?;
        refuse_in_cache(dir)?;
    }
    output::file(&arguments.out, &overview_page(&documents))?;
    let mut written = vec![arguments.out.clone()];
    if let Some(dir) = &arguments.pictures {
        written.extend(write_pictures(dir, &documents)?);
    }
    if !arguments.quiet {
        let lines = written.iter().map(|path| format!("wrote {}\n", path.display()));
        output::text(&lines.collect::<String>())?;
    }
    Ok(Outcome::True)
}

/// Writes the charts of all documents, and returns where.
fn write_pictures(dir: &Path, documents: &[Document]) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    let mut written: Vec<PathBuf> = Vec::new();
    for document in documents {
        for (name, picture) in document.pictures() {
            let file = dir.join(format!("{}-{name}.svg", document.name));
            let twice = "two documents have this name, expected different ones";
            ensure!(!written.contains(&file), "{}: {twice}", document.name);
            output::file(&file, &picture)?;
            written.push(file);
        }
    }
    Ok(written)
}

/// A page inside a checkpoint would be a file that `verify` does not expect.
fn refuse_in_checkpoint(out: &Path) -> anyhow::Result<()> {
    let dir = match out.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    ensure!(
        Checkpoint::open(dir).is_err(),
        "{}: would be inside a checkpoint, expected a place outside",
        out.display()
    );
    Ok(())
}
