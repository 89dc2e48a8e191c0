//! `physarium report`: audits, comparisons and evaluations in one page.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use physarium_report::{Document, overview_page};

use crate::arguments::{DISPLAY, OUTPUT};
use crate::model::refuse_in_model;
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
    refuse_in_model(&arguments.out)?;
    let mut others: Vec<&Path> = documents.iter().map(|document| &*document.file).collect();
    output::refuse_lost("--out", &arguments.out, &others)?;
    others.push(&arguments.out);
    let pictures = match &arguments.pictures {
        Some(dir) => pictures(dir, &documents, &others)?,
        None => Vec::new(),
    };
    output::file(&arguments.out, &overview_page(&documents))?;
    if let Some(dir) = &arguments.pictures {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("{}: cannot create", dir.display()))?;
    }
    for (file, picture) in &pictures {
        output::file(file, picture)?;
    }
    let written = [&arguments.out].into_iter().chain(pictures.iter().map(|(file, _)| file));
    if !arguments.quiet {
        let lines = written.map(|path| format!("wrote {}\n", path.display()));
        output::text(&lines.collect::<String>())?;
    }
    Ok(Outcome::True)
}

/// The charts of all documents, each with its file in `dir`.
///
/// # Errors
/// For a directory in a checkpoint, for two charts of one name, and for one that would replace a file of `others`.
fn pictures(
    dir: &Path,
    documents: &[Document],
    others: &[&Path],
) -> anyhow::Result<Vec<(PathBuf, String)>> {
    refuse_in_model(dir)?;
    let mut pictures: Vec<(PathBuf, String)> = Vec::new();
    for document in documents {
        for (name, picture) in document.pictures() {
            let file = dir.join(format!("{}-{name}.svg", document.name));
            let twice = "two documents have this name, expected different ones";
            ensure!(pictures.iter().all(|(other, _)| *other != file), "{}: {twice}", document.name);
            if dir.is_dir() {
                output::refuse_lost("--pictures", &file, others)?;
            }
            pictures.push((file, picture));
        }
    }
    Ok(pictures)
}
