//! Evaluations of texts and of multiple-choice items.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use physarium::{Cancel, Event, Progress};

mod choices;
mod parts;
mod texts;

/// Raises `cancel` after this many tokens.
struct StopAfter {
    tokens: u64,
    cancel: Cancel,
    done: u64,
}

impl Progress for StopAfter {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Tokens(tokens) = event {
            self.done += tokens;
            if self.done >= self.tokens {
                self.cancel.raise();
            }
        }
    }
}
