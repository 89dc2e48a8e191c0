//! Results on stdout, notes on stderr.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use physarium::audit::grouped;
use physarium::checkpoint::write_whole;
use serde::Serialize;

/// How a command ended that met no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Success: done, or every check passed.
    True,
    /// A check failed.
    False,
    /// There was nothing to check, which the result says.
    Undecided,
    /// Stopped by a signal, with a part of the result.
    Partial,
}

/// Writes text to stdout.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Writes a line to stderr. A line that cannot be written (closed pipe, full disk) does not stop the run;
/// `eprintln!` would panic.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes one JSON object to stdout.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// A size for display, in powers of ten: `1.23 GB`.
pub fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.2} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

/// A count with its noun: `1 shard`, `1,200 shards`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// Writes a file whose name appears only once its bytes are durable. A file of that name is replaced.
pub fn file(path: &Path, text: &str) -> anyhow::Result<()> {
    write_whole(path, text.as_bytes()).with_context(|| format!("{}: cannot write", path.display()))
}
