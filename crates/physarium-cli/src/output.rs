//! Results on stdout, notes on stderr.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// What a command that could do its work has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or checked and true.
    True,
    /// Checked and false.
    False,
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

/// Writes a line to stderr. One that cannot be written (a closed pipe, a full disk) is no reason to
/// stop the work, as `eprintln!` would.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes one JSON object to stdout.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// A size for people: `1.23 GB`, powers of ten.
pub fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.2} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

/// Writes a file as a whole or not at all.
pub fn file(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        std::fs::write(&part, text)?;
        std::fs::rename(&part, path)
    };
    write().with_context(|| format!("{}: cannot write", path.display()))
}
