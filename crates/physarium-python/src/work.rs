/*!
Work on a thread of its own, while the calling thread serves Python.

In: a function that takes a token to stop it and a place for events. Out: its result or an exception. The calling thread
holds no lock while it waits; it calls the listener, and it runs the handlers of signals: an exception of either, such as
KeyboardInterrupt, stops the work and is raised when it has ended.
*/

use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use physarium::Cancel;
use physarium::checkpoint::{ErrorKind, Fault};
use physarium_cli::embedded::Failure;
use pyo3::prelude::*;

use crate::exceptions;

/// Time between two looks for signals.
const LOOK: Duration = Duration::from_millis(20);
/// Stack of the work's thread: as much as a program's main thread has.
const STACK_BYTES: usize = 8 << 20;

/// Where work sends its events, in JSON.
pub struct Events(Sender<String>);

impl Events {
    /// Sends an event.
    pub fn send(&self, event: &impl ToString) {
        // Nobody listens once the calling thread has gone on, which it does not before the work has ended.
        let _ = self.0.send(event.to_string());
    }
}

/// How work is run.
pub struct Work<'py, R> {
    pub py: Python<'py>,
    /// Called with each event as JSON.
    pub listener: Option<Bound<'py, PyAny>>,
    /// The JSON of a result that was there when the work was stopped, if it has any.
    pub result: R,
}

impl<'py, R> Work<'py, R> {
    /// Runs `work`.
    ///
    /// # Errors
    /// Its failure or panic as an exception, and what the listener or the handler of a signal raised.
    pub fn run<T: Send>(
        self,
        work: impl FnOnce(Cancel, Events) -> Result<T, Failure> + Send,
    ) -> PyResult<T>
    where
        R: Fn(&T) -> Option<String>,
    {
        let (py, cancel) = (self.py, Cancel::default());
        let (send, events) = unbounded();
        thread::scope(|scope| {
            let token = cancel.clone();
            let thread =
                thread::Builder::new().name("physarium".to_owned()).stack_size(STACK_BYTES);
            let worker = thread.spawn_scoped(scope, move || work(token, Events(send)));
            let worker = worker.map_err(|e| exceptions::of_failure(py, &no_thread(&e)))?;
            let mut raised = None;
            loop {
                match py.detach(|| events.recv_timeout(LOOK)) {
                    Ok(event) if raised.is_none() => raised = self.tell(&event).err(),
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if let Err(e) = py.check_signals() {
                    raised.get_or_insert(e);
                }
                if raised.is_some() {
                    cancel.raise();
                }
            }
            let ended = py.detach(|| worker.join());
            match (raised, ended) {
                (_, Err(payload)) => Err(exceptions::of_panic(py, &*payload)),
                (None, Ok(Ok(result))) => Ok(result),
                (None, Ok(Err(failure))) => Err(exceptions::of_failure(py, &failure)),
                (Some(raised), Ok(ended)) => Err(self.because(raised, &ended)),
            }
        })
    }

    fn tell(&self, event: &str) -> PyResult<()> {
        self.listener.as_ref().map_or(Ok(()), |listener| listener.call1((event,)).map(|_| ()))
    }

    /// What was raised, with what has become of the work as its cause.
    fn because<T>(&self, raised: PyErr, ended: &Result<T, Failure>) -> PyErr
    where
        R: Fn(&T) -> Option<String>,
    {
        let cause = match ended {
            Ok(result) => {
                (self.result)(result).map(|json| exceptions::of_partial_result(self.py, &json))
            }
            Err(failure) => Some(exceptions::of_failure(self.py, failure)),
        };
        if raised.cause(self.py).is_none() {
            raised.set_cause(self.py, cause);
        }
        raised
    }
}

fn no_thread(e: &std::io::Error) -> Failure {
    Failure {
        kind: Some(ErrorKind::Environment),
        message: format!("cannot start a thread: {e}"),
        fault: Box::new(Fault::default()),
    }
}
