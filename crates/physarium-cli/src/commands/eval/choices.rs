//! The result of multiple-choice items, for a terminal and as a file.

use std::path::Path;

use physarium::audit::grouped;
use physarium::checkpoint::printable;
use physarium::{Accuracy, ChoicesResult, ComparedAccuracy, Taken};
use serde_json::{Value, json};

use crate::output;

/// The result for a terminal.
pub fn as_text(result: &ChoicesResult) -> String {
    let protocol = &result.protocol;
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<18}{value}\n"));
    if result.partial {
        let all = grouped(protocol.items as u64);
        line("PARTIAL", format!("interrupted after {} of {all} items", grouped(items(result))));
    }
    line("accuracy", share(&result.accuracy));
    line("normalised", share(&result.accuracy_normalised) + ", by log-likelihood per character");
    if let Some(against) = &result.against {
        line("against", compared(&against.accuracy));
        line("against, norm.", compared(&against.accuracy_normalised));
    }
    if result.cut_contexts > 0 {
        let cut = output::counted(result.cut_contexts as u64, "item");
        let most = protocol.positions.unwrap_or_default();
        line("cut", format!("the context of {cut}, at its beginning, to {most} positions"));
    }
    let file = printable(&protocol.file);
    line("choices", format!("{file}, sha256 {}", protocol.sha256));
    let bos = match &protocol.bos.token {
        Some(token) => format!("{} before each context", printable(token)),
        None => "none added".to_owned(),
    };
    line("BOS", format!("{bos} ({})", protocol.bos.said_by));
    if let Some(token) = &protocol.empty_context {
        line("no context", format!("{} stands for it", printable(token)));
    }
    line("computed", format!("{} weights, {}", protocol.weights, protocol.arithmetic));
    let memory = result.peak_rss_bytes.map(|bytes| format!(", peak {}", output::size(bytes)));
    let (seconds, rate) = (result.seconds, result.tokens_per_second);
    line("time", format!("{seconds:.1} s, {rate:.0} tokens/s{}", memory.unwrap_or_default()));
    lines.concat()
}

fn items(result: &ChoicesResult) -> u64 {
    result.items as u64
}

/// `62.00 % of items (31 of 50) ± 6.93 % (standard error)`.
fn share(accuracy: &Accuracy) -> String {
    let right = &accuracy.right;
    let counts = format!("{} of {}", grouped(right.part), grouped(right.whole));
    let stderr = accuracy.stderr.map(|e| format!(" ± {:.2} % (standard error)", 100.0 * e));
    format!("{} ({counts}){}", right.sentence(), stderr.unwrap_or_default())
}

fn compared(other: &ComparedAccuracy) -> String {
    let stderr = other.difference_stderr.map(|e| format!(" ± {:.2} %", 100.0 * e));
    format!(
        "{}; difference {:+.2} % of items{}; another choice in {}: {} gained, {} lost",
        other.accuracy.right.sentence(),
        100.0 * other.difference,
        stderr.unwrap_or_default(),
        output::counted(other.changed as u64, "item"),
        grouped(other.gained as u64),
        grouped(other.lost as u64),
    )
}

/// Writes a line for each item that was scored.
pub fn write_items(path: &Path, result: &ChoicesResult) -> anyhow::Result<()> {
    let mut text = String::new();
    for score in &result.scores {
        let mut item =
            json!({"line": score.line, "answer": score.answer, "characters": score.characters});
        add(&mut item, "", &score.taken);
        if let Some(against) = &score.against {
            add(&mut item, "against_", against);
        }
        text += &format!("{item}\n");
    }
    output::file(path, &text)
}

/// Adds what a model takes to an item's object.
fn add(item: &mut Value, prefix: &str, taken: &Taken) {
    item[format!("{prefix}choice")] = taken.choice.into();
    item[format!("{prefix}choice_normalised")] = taken.choice_normalised.into();
    item[format!("{prefix}log_likelihoods_nats")] = json!(taken.log_likelihoods);
}
