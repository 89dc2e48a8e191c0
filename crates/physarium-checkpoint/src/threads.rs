//! Threads that may not be had, and the one way in which work is shared out among them.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};

/// Starts a thread in a scope.
///
/// # Errors
/// `Thread` when the system has no more.
pub fn start_thread<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).map_err(|source| Error::Thread { source })
}

/// Tasks that can be done in any order by any thread.
#[derive(Debug, Clone, Copy)]
pub struct Tasks {
    /// How many tasks there are; each is known by its index.
    pub count: usize,
    /// Threads that do them; at least one works.
    pub threads: usize,
}

impl Tasks {
    /// Does every task once. Each thread has a state that `new` makes and `task` is given with a task's
    /// index; all states are returned, in no order. What `task` returns is handed to `done` on the calling
    /// thread as it comes. The first error of either ends the work.
    ///
    /// # Errors
    /// `Thread` when threads cannot be started; what `done` or `task` returns, `done`'s first.
    ///
    /// # Panics
    /// With the panic of a task.
    pub fn run<S: Send, M: Send, E: From<Error> + Send>(
        self,
        new: impl Fn() -> S + Sync,
        task: impl Fn(&mut S, usize) -> Result<M, E> + Sync,
        done: &mut dyn FnMut(M) -> Result<(), E>,
    ) -> Result<Vec<S>, E> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let (new, task, next, stop) = (&new, &task, &next, &stop);
        let work = move |sender: mpsc::Sender<M>| -> Result<S, E> {
            // Also when a task panics: the others end instead of working for nothing.
            let raised = StopOnDrop(stop);
            let mut state = new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count || stop.load(Ordering::Relaxed) {
                    raised.disarm();
                    return Ok(state);
                }
                // Nobody listens any more once the work was told to stop.
                let _ = sender.send(task(&mut state, index)?);
            }
        };
        std::thread::scope(|scope| {
            let started = (0..self.threads.max(1)).map(|_| {
                let sender = sender.clone();
                start_thread(scope, move || work(sender))
            });
            let workers = started.collect::<Result<Vec<_>>>();
            let workers = workers.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            drop(sender);
            let told = receiver.into_iter().try_for_each(done);
            if told.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            let join = |worker: ScopedJoinHandle<'_, Result<S, E>>| {
                worker.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            let states = workers.into_iter().map(join).collect::<Vec<_>>();
            told?;
            states.into_iter().collect()
        })
    }
}

/// Stops the other workers unless it was disarmed.
struct StopOnDrop<'a>(&'a AtomicBool);

impl StopOnDrop<'_> {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once() {
        for threads in [0, 1, 3] {
            let mut sum = 0;
            let mut told = |index: usize| -> Result<()> {
                sum += index;
                Ok(())
            };
            let task = |seen: &mut Vec<usize>, index: usize| {
                seen.push(index);
                Ok(index)
            };
            let states = Tasks { count: 100, threads }.run(Vec::new, task, &mut told);
            let mut seen: Vec<usize> =
                states.expect("no task fails").into_iter().flatten().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..100).collect::<Vec<_>>());
            assert_eq!(sum, 4950);
        }
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let fail = |_: &mut (), index: usize| match index {
            5 => Err(Error::Interrupted),
            _ => Ok(()),
        };
        let tasks = Tasks { count: usize::MAX, threads: 2 };
        assert!(matches!(tasks.run(|| (), fail, &mut |()| Ok(())), Err(Error::Interrupted)));
        let mut stop = |()| Err(Error::Interrupted);
        assert!(matches!(tasks.run(|| (), |(), _| Ok(()), &mut stop), Err(Error::Interrupted)));
    }
}
