//! Starting threads, and distributing tasks among them.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};

/// Starts a thread in a scope.
///
/// # Errors
/// `Thread` when the system cannot start another one.
pub fn start_thread<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).map_err(|source| Error::Thread { source })
}

/// Tasks that can be done in any order by any thread.
#[derive(Debug, Clone, Copy)]
pub struct Tasks {
    /// Number of tasks; each is identified by its index.
    pub count: usize,
    /// Most threads to use. At least one works, and no more than there are tasks.
    pub threads: usize,
}

impl Tasks {
    /// Does every task once, and returns the states of all threads in no particular order.
    ///
    /// Each thread has a state, made by `new_state`. `task` is called with that state and the index of a task.
    /// What it returns is passed to `on_result` on the calling thread, in the order in which tasks end. After
    /// the first error or panic no further task begins.
    ///
    /// # Errors
    /// `Thread` when threads cannot be started. Otherwise an error of `on_result`, or else one of `task`.
    ///
    /// # Panics
    /// With the panic of a task or of `on_result`.
    pub fn run<S: Send, R: Send, E: From<Error> + Send>(
        self,
        new_state: impl Fn() -> S + Sync,
        task: impl Fn(&mut S, usize) -> Result<R, E> + Sync,
        on_result: &mut dyn FnMut(R) -> Result<(), E>,
    ) -> Result<Vec<S>, E> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let (new_state, task, next, stop) = (&new_state, &task, &next, &stop);
        let work = move |sender: mpsc::Sender<R>| -> Result<S, E> {
            let stop_others = StopOnDrop(stop);
            let mut state = new_state();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count || stop.load(Ordering::Relaxed) {
                    stop_others.disarm();
                    return Ok(state);
                }
                // The receiver is gone after an error of `on_result`; the result is then not needed.
                let _ = sender.send(task(&mut state, index)?);
            }
        };
        std::thread::scope(|scope| {
            // Dropped before the scope waits for its threads, on every path out of here.
            let stop_all = StopOnDrop(stop);
            let threads = self.threads.min(self.count).max(1);
            let started = (0..threads).map(|_| {
                let sender = sender.clone();
                start_thread(scope, move || work(sender))
            });
            let workers = started.collect::<Result<Vec<_>>>()?;
            drop(sender);
            // Ends when every worker has dropped its sender, so that there is nothing left to stop.
            let received = receiver.into_iter().try_for_each(on_result);
            drop(stop_all);
            let join = |worker: ScopedJoinHandle<'_, Result<S, E>>| {
                worker.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            let states = workers.into_iter().map(join).collect::<Vec<_>>();
            received?;
            states.into_iter().collect()
        })
    }
}

/// Makes all workers stop when it is dropped, also by an error or a panic.
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
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// More tasks than can ever be done: a run of them ends only if it is stopped.
    const ENDLESS: Tasks = Tasks { count: usize::MAX, threads: 2 };

    #[test]
    fn every_task_is_done_once() {
        for threads in [0, 1, 3] {
            let mut sum = 0;
            let mut add = |index: usize| -> Result<()> {
                sum += index;
                Ok(())
            };
            let task = |seen: &mut Vec<usize>, index: usize| {
                seen.push(index);
                Ok(index)
            };
            let states = Tasks { count: 100, threads }.run(Vec::new, task, &mut add);
            let mut seen: Vec<usize> =
                states.expect("no task fails").into_iter().flatten().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..100).collect::<Vec<_>>());
            assert_eq!(sum, 4950);
        }
    }

    #[test]
    fn there_are_no_more_states_than_tasks_and_at_least_one() {
        for (count, threads, expected) in [(0, 3, 1), (2, 3, 2), (2, 0, 1), (5, 3, 3)] {
            let states =
                Tasks { count, threads }.run(|| (), |(), _| Ok::<_, Error>(()), &mut |()| Ok(()));
            assert_eq!(states.expect("no task fails").len(), expected, "{count} on {threads}");
        }
    }

    #[test]
    fn an_error_stops_all_threads() {
        let fail = |_: &mut (), index: usize| match index {
            5 => Err(Error::Interrupted),
            _ => Ok(()),
        };
        assert!(matches!(ENDLESS.run(|| (), fail, &mut |()| Ok(())), Err(Error::Interrupted)));
        let mut stop = |()| Err(Error::Interrupted);
        assert!(matches!(ENDLESS.run(|| (), |(), _| Ok(()), &mut stop), Err(Error::Interrupted)));
    }

    #[test]
    fn a_panic_stops_all_threads_and_is_passed_on() {
        let in_task = || {
            let task = |_: &mut (), index: usize| -> Result<()> {
                assert!(index != 5, "in a task");
                Ok(())
            };
            ENDLESS.run(|| (), task, &mut |()| Ok(()))
        };
        let on_result = || ENDLESS.run(|| (), |(), _| Ok::<_, Error>(()), &mut |()| panic!("here"));
        assert!(catch_unwind(AssertUnwindSafe(in_task)).is_err());
        assert!(catch_unwind(AssertUnwindSafe(on_result)).is_err());
    }
}
