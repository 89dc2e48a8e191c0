//! Ctrl-C and SIGTERM: the first signal stops the work cleanly, the second ends the process at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use physarium::{Cancel, Event, Progress};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::{host, output};

/// Number of the signal that was caught, for the exit code.
static CAUGHT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// A token that the first signal raises; the second signal ends the process. With a host, its token.
pub fn cancel_on_signal() -> anyhow::Result<Cancel> {
    if let Some(cancel) = host::cancel() {
        return Ok(cancel);
    }
    let raised = Arc::new(AtomicBool::new(false));
    let caught = CAUGHT.get_or_init(|| Arc::new(AtomicUsize::new(0)));
    for signal in [SIGINT, SIGTERM] {
        let context = "cannot install signal handlers";
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&raised))
            .context(context)?;
        flag::register_usize(signal, Arc::clone(caught), signal as usize).context(context)?;
        flag::register(signal, Arc::clone(&raised)).context(context)?;
    }
    Ok(Cancel::watching(raised))
}

/// The time in which a command only reads. There is nothing to keep, so the first signal ends the process at once,
/// also within a library's call that cannot be stopped, such as tokenizing a long text.
pub struct Reading(Arc<AtomicBool>);

impl Reading {
    /// Begins, before any other handler is installed. Signals are a host's own.
    pub fn begin() -> anyhow::Result<Reading> {
        if host::is_present() {
            return Ok(Reading(Arc::default()));
        }
        let reading = Arc::new(AtomicBool::new(true));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&reading))
                .context("cannot install signal handlers")?;
        }
        Ok(Reading(reading))
    }

    /// Ends: from now on the first signal stops the work, and what there is is kept.
    pub fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Ends the time of reading when tokens are scored.
pub struct UntilScoring<'a> {
    /// What is told of everything.
    pub progress: &'a mut dyn Progress,
    /// What ends.
    pub reading: Reading,
}

impl Progress for UntilScoring<'_> {
    fn event(&mut self, event: Event<'_>) {
        if let Event::TokensStarted { .. } = event {
            self.reading.end();
        }
        self.progress.event(event);
    }
}

/// The signal that was caught; SIGINT if none was.
pub fn caught() -> u8 {
    let number = CAUGHT.get().map_or(0, |caught| caught.load(Ordering::Relaxed));
    u8::try_from(number).ok().filter(|n| *n > 0).unwrap_or(SIGINT as u8)
}

/// The command line that resumes this run, quoted for a shell.
pub fn command_line() -> String {
    again(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))
}

/// The arguments without `--restart`, which would discard what was done.
fn again(arguments: impl Iterator<Item = String>) -> String {
    let kept = arguments.filter(|argument| argument != "--restart");
    kept.map(|argument| output::quoted(&argument)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_run_goes_on_without_being_discarded() {
        let arguments = ["physarium", "prune", "a model", "--restart", "--out", "it's"];
        let again = super::again(arguments.map(str::to_owned).into_iter());
        assert_eq!(again, r"physarium prune 'a model' --out 'it'\''s'");
    }
}
