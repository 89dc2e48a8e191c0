/*!
Results on stdout, notes on stderr.

All that the program prints goes through here, and is escaped here: names and values come from files of strangers, and a
terminal obeys control characters. Only `run` writes the model's own words to stdout itself.
*/

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use physarium::audit::grouped;
use physarium::checkpoint::{json_visible, printable_path, visible, write_whole};
use serde::Serialize;

use crate::host;

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
    /// A part of the work failed, which the result names.
    Failed,
}

/// Writes text to stdout, with control characters other than newline and tab escaped.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(visible(text).as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// An argument as a shell takes it.
pub fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !argument.is_empty() && argument.chars().all(plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}

/// A path as a shell takes it, and no program as an option.
pub fn quoted_path(path: &str) -> String {
    match path.starts_with('-') {
        true => quoted(&format!("./{path}")),
        false => quoted(path),
    }
}

/// Whether stderr gets JSON objects only.
static JSON_ON_STDERR: AtomicBool = AtomicBool::new(false);

/// From now on, stderr gets JSON objects only, one in each line.
pub fn use_json_on_stderr() {
    JSON_ON_STDERR.store(true, Ordering::Relaxed);
}

/// Writes a line to stderr: as it is, or as a JSON object.
pub fn note(line: &str) {
    match host::is_present() || JSON_ON_STDERR.load(Ordering::Relaxed) {
        false => stderr_line(line),
        true => {
            let (event, text) = match line.split_once(": ") {
                Some((event @ ("note" | "error"), text)) => (event, text),
                _ => ("note", line),
            };
            event_line(&serde_json::json!({"event": event, "text": text}));
        }
    }
}

/// Writes an event of the progress to stderr, or tells the host.
pub fn event_line(event: &serde_json::Value) {
    if host::tell(event) {
        return;
    }
    stderr_line(&json_visible(event.to_string()));
}

/// Writes a line to stderr, escaped as on stdout. A line that cannot be written (closed pipe, full disk) does not stop the run;
/// `eprintln!` would panic.
fn stderr_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", visible(line));
}

/// Writes each of `notes` as a line to stderr.
pub fn notes(notes: &[String]) {
    notes.iter().for_each(|text| note(&format!("note: {text}")));
}

/// Adds `notes` to a JSON object, if there are any.
pub fn with_notes(mut object: serde_json::Value, notes: &[String]) -> serde_json::Value {
    if !notes.is_empty() {
        object["notes"] = notes.into();
    }
    object
}

/// Writes one JSON object to stdout, or gives it to the host.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    host::give(json_text(value)?).map_or(Ok(()), |json| text(&json))
}

/// A value as JSON in lines, with all control characters escaped, those above U+007F too.
pub fn json_text(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(json_visible(serde_json::to_string_pretty(value)? + "\n"))
}

/// What a model wrote, for a terminal: without control characters other than newline and tab, and without characters
/// that reverse the direction of what follows. Joiners stay; languages need them.
pub fn spoken(text: &str) -> String {
    let is_plain = |c: &char| match c {
        '\n' | '\t' => true,
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        c => !c.is_control(),
    };
    text.chars().filter(is_plain).collect()
}

/// A size for display, in powers of ten: `1.23 GB`.
pub fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.2} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

/// A time for display: `4.2 s`, `3 min 20 s`, `1 h 05 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", time.as_secs_f64()),
        10..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A count with its noun: `1 shard`, `1,200 shards`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// Fails unless a file can be made at `path`, and if it would replace one of `others` or lie in a directory among them.
///
/// # Errors
/// Names `option`, the path, and what is there.
pub fn refuse_lost(option: &str, path: &Path, others: &[&Path]) -> anyhow::Result<()> {
    let shown = printable_path(path);
    let place = placed(path).with_context(|| format!("{option} {shown}: cannot write there"))?;
    ensure!(!place.is_dir(), "{option} {shown}: a directory, expected a file");
    for other in others {
        // An address in a store is no path.
        let is_lost = placed(other).is_ok_and(|other| place.starts_with(other));
        ensure!(
            !is_lost,
            "{option} {shown}: would replace {}, or a file in it",
            printable_path(other)
        );
    }
    Ok(())
}

/// A path without links, of a file that need not be there.
fn placed(path: &Path) -> io::Result<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(parent.unwrap_or(Path::new(".")).canonicalize()?.join(name))
}

/// Writes a file whose name appears only once its bytes are durable. A file of that name is replaced.
pub fn file(path: &Path, text: &str) -> anyhow::Result<()> {
    write_whole(path, text.as_bytes())
        .with_context(|| format!("{}: cannot write", printable_path(path)))
}

#[cfg(test)]
mod tests {
    use super::spoken;

    #[test]
    fn a_model_cannot_speak_to_the_terminal() {
        let words = "a\u{1b}]0;title\u{7}\u{9b}31m b\r\n\tc\u{202e}d\u{2066}\u{200d}é";
        assert_eq!(spoken(words), "a]0;title31m b\n\tcd\u{200d}é");
    }
}
