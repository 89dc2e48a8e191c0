//! Runs commands, measures their time and memory, and names the program under test.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// Time and memory that a command used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Wall-clock time.
    pub seconds: f64,
    /// Peak resident memory, polled every 2 ms (`VmHWM`, which never falls).
    pub peak_bytes: u64,
}

/// The path of the program under test.
pub fn physarium() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PHYSARIUM").map(PathBuf::from);
    path.context(
        "PHYSARIUM, the path of the program under test, is not set: start with `cargo xtask bench`",
    )
}

/// Runs a command to its end and returns its stdout.
pub fn printed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command to its end, discards its stdout and measures it.
pub fn timed(command: &mut Command) -> anyhow::Result<Usage> {
    let begin = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    let status = loop {
        peak_bytes = peak(&status_file).unwrap_or(0).max(peak_bytes);
        match child.try_wait()? {
            Some(status) => break status,
            None => sleep(Duration::from_millis(2)),
        }
    };
    ensure!(status.success(), "{command:?}: {status}");
    Ok(Usage { seconds: begin.elapsed().as_secs_f64(), peak_bytes })
}

fn peak(status_file: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status_file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Flushes all written data to disk.
pub fn sync() -> anyhow::Result<()> {
    timed(&mut Command::new("sync")).map(|_| ())
}

/// Empties the page cache; returns whether that is permitted.
pub fn drop_caches() -> anyhow::Result<bool> {
    sync()?;
    Ok(std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok())
}
