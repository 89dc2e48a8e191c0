//! Ctrl-C and SIGTERM: the first signal stops the work cleanly, the second ends the process at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use physarium::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Number of the signal that was caught, for the exit code.
static CAUGHT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// A token that the first signal raises; the second signal ends the process.
pub fn cancel_on_signal() -> anyhow::Result<Cancel> {
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

/// The signal that was caught; SIGINT if none was.
pub fn caught() -> u8 {
    let number = CAUGHT.get().map_or(0, |caught| caught.load(Ordering::Relaxed));
    u8::try_from(number).ok().filter(|n| *n > 0).unwrap_or(SIGINT as u8)
}

/// The command line, quoted for a shell.
pub fn command_line() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quote = |argument: String| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    };
    let arguments = std::env::args_os().map(|a| quote(a.to_string_lossy().into_owned()));
    arguments.collect::<Vec<_>>().join(" ")
}
