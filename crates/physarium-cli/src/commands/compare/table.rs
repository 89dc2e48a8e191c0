//! The table of a comparison, for a terminal and in files.

use std::path::Path;

use physarium::audit::grouped;
use physarium::checkpoint::{markdown, printable};
use physarium::{ComparedRun, Comparison, Ended, FailedRun, Row};
use physarium_report::comparison_page;

use crate::output::{self, size};

/// Names of the files that hold the rows.
pub const FILES: [&str; 3] = ["physarium.compare.md", "physarium.compare.json", "compare.html"];

/// Writes the rows so far.
pub fn write(out: &Path, comparison: &Comparison) -> anyhow::Result<()> {
    let record = comparison.record();
    let texts = [as_text(comparison), output::json_text(&record)?, comparison_page(&record)];
    for (name, text) in FILES.into_iter().zip(texts) {
        output::file(&out.join(name), &text)?;
    }
    Ok(())
}

/// The table, in Markdown.
pub fn as_text(comparison: &Comparison) -> String {
    let mut text = "\
| method | zero, of target | updated | perplexity | ratio to dense | KL, nats | top-1 | layer error | seconds | peak memory |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"
    .to_owned();
    if let Some(dense) = &comparison.dense {
        text += &format!("| dense | | | {:.3} | | | | | | |\n", dense.perplexity);
    }
    for row in &comparison.rows {
        text += &match row {
            Row::Measured(run) => measured(run),
            Row::Failed(run) => failed(run),
        };
    }
    if comparison.ended == Ended::Unfinished {
        text += "\nUnfinished: there are more rows to come.\n";
    }
    text + &footnotes(comparison)
}

fn measured(run: &ComparedRun) -> String {
    let (eval, pruned) = (&run.evaluation, &run.pruned);
    let Some(against) = &eval.against else { return String::new() };
    let zero = pruned.totals.pruned + pruned.totals.already_zero;
    let error = against.ratio_stderr.map_or(String::new(), |error| format!(" ± {error:.4}"));
    let share = 100.0 * against.top1_agreement;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    format!(
        "| {} | {:.2} % | {} | {:.3} | {:.4}{error} | {:.4} | {share:.2} % | {} | {} | {} |\n",
        run.name,
        100.0 * zero as f64 / pruned.target.max(1) as f64,
        grouped(pruned.totals.refitted),
        eval.perplexity,
        against.ratio,
        against.kl_nats,
        or_dash(pruned.output_error.map(|error| format!("{error:.4}"))),
        or_dash(pruned.prune_seconds.map(|seconds| format!("{seconds:.1}"))),
        or_dash(pruned.prune_peak_rss_bytes.map(size)),
    )
}

/// The row of a contender that has no result: its error, in one cell.
fn failed(run: &FailedRun) -> String {
    let lines: Vec<String> = run.error.lines().map(|line| markdown(&printable(line))).collect();
    format!("| {} | failed: {} | | | | | | | | |\n", run.name, lines.join("; "))
}

/// How the numbers were measured.
fn footnotes(comparison: &Comparison) -> String {
    let Some(run) = comparison.runs().next() else { return String::new() };
    let protocol = &run.evaluation.protocol;
    let mut text = format!(
        "\nMeasured on {}: {} tokens in windows of {}; BOS: {}. \"Zero\" includes weights that were zero before; \
         \"updated\" counts weights updated to compensate. Layer error: ‖X(Ŵ−W)ᵀ‖² ÷ ‖XWᵀ‖², mean over the \
         targets; X are the inputs on the calibration tokens, for Wanda on the first 2,048. Seconds and peak memory are \
         those of the process during the row's own pruning; \"–\" where they are not known.\n",
        markdown(&printable(&protocol.text.file)),
        grouped(run.evaluation.tokens_scored as u64),
        protocol.window,
        markdown(&printable(&protocol.bos.to_string())),
    );
    if let Some(calibration) = comparison.runs().find_map(|run| run.recipe.needs().calibration) {
        text += &format!(
            "Calibrated on {} tokens in windows of {}, seed {}, of the text with SHA-256 {}.\n",
            grouped(calibration.tokens_used()),
            calibration.window,
            calibration.seed,
            calibration.text_sha256,
        );
    }
    text
}
