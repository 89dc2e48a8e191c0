/*!
Work that a stranger's file decides: on a thread of its own, with a deadline, and with a panic as an error.

In: a closure, its stack and its processor time. Out: its result, or a [`Failure`]. Memory is not bounded here: what is
run must have bounds of its own, such as the fuel of a template and the checked shape of a tokenizer. Work that does not
end in time is left to itself and ends with the process: a thread cannot be stopped from outside.
*/

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Time between two looks at the work's processor time.
const LOOK: Duration = Duration::from_millis(10);
/// Real time that the work may take for each second of its processor time, on a machine that has other work to do.
const REAL_TIME: u32 = 20;

/// Bounds of the work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Stack in bytes; only what is used takes memory.
    pub(crate) stack: usize,
    /// Processor time.
    pub(crate) time: Duration,
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The work panicked.
    Panicked,
    /// The work was not done in time.
    TooSlow(Duration),
    /// The system cannot start a thread.
    Thread(std::io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Panicked => f.write_str("a value that the reader of this format fails on"),
            Failure::TooSlow(time) => {
                write!(f, "no result after {:.1} s of computing", time.as_secs_f64())
            }
            Failure::Thread(e) => write!(f, "no thread for it: {e}"),
        }
    }
}

impl Bounds {
    /// Does the work.
    ///
    /// # Errors
    /// If the work panics, takes too long, or cannot be started.
    pub(crate) fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        keep_panics_quiet();
        let (results, result) = mpsc::channel();
        let (names, name) = mpsc::channel();
        let thread = Builder::new().stack_size(self.stack).spawn(move || {
            QUIET.set(true);
            let _ = names.send(fs::read_link("/proc/thread-self").ok());
            let _ = results.send(panic::catch_unwind(AssertUnwindSafe(work)));
        });
        thread.map_err(Failure::Thread)?;
        let name = name.recv().ok().flatten();
        let began = Instant::now();
        loop {
            match result.recv_timeout(LOOK) {
                Ok(done) => return done.map_err(|_| Failure::Panicked),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Panicked),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let real = began.elapsed();
            let busy = name.as_ref().and_then(|name| {
                let used =
                    fs::read_to_string(format!("/proc/{}/schedstat", name.display())).ok()?;
                Some(Duration::from_nanos(used.split(' ').next()?.parse().ok()?))
            });
            if busy.unwrap_or(real) > self.time || real > self.time * REAL_TIME {
                return Err(Failure::TooSlow(self.time));
            }
        }
    }
}

/// Does short work here, with its panic as an error.
///
/// # Errors
/// If the work panics.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    keep_panics_quiet();
    let before = QUIET.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    done.map_err(|_| Failure::Panicked)
}

thread_local! {
    /// Whether panics of this thread are results, not bugs.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Lets panics of bounded work print nothing: they become errors that name the file.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_with_its_result_its_panic_or_its_time() {
        let bounds = Bounds { stack: 1 << 20, time: Duration::from_millis(200) };
        assert_eq!(bounds.run(|| 7).ok(), Some(7));
        let panicked = bounds.run(|| Vec::<u8>::new()[std::hint::black_box(3)]);
        assert!(matches!(panicked, Err(Failure::Panicked)), "{panicked:?}");
        let endless = bounds.run(|| while std::hint::black_box(true) {});
        assert!(matches!(endless, Err(Failure::TooSlow(_))), "{endless:?}");
    }
}
