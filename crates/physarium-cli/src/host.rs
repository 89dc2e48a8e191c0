/*!
The host of a command: another program that runs it on one of its threads.

In: what the command would write to stdout and stderr, and its question when to stop. A host takes the place of the
terminal and of signals; without one, the command has these. It belongs to a thread, as commands write from the thread
that they are run on.
*/

use std::cell::RefCell;

use physarium::Cancel;
use serde_json::Value;

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// What takes events.
pub type Listener = Box<dyn FnMut(&Value)>;

/// Another program.
pub struct Host {
    /// Stops the command.
    pub cancel: Cancel,
    /// Is told of progress, notes and errors, as `--progress json` writes them.
    pub listener: Listener,
    /// The command's result in JSON, once there is one.
    pub result: Option<String>,
}

impl Host {
    /// Does `work` with this host. Returns what it returns, and the host.
    pub fn during<R>(self, work: impl FnOnce() -> R) -> (R, Host) {
        HOST.set(Some(self));
        let result = work();
        let host = HOST.take().expect("only this function takes it");
        (result, host)
    }
}

/// Whether this thread has a host.
pub fn is_present() -> bool {
    HOST.with_borrow(Option::is_some)
}

/// How the host stops the command.
pub fn cancel() -> Option<Cancel> {
    HOST.with_borrow(|host| host.as_ref().map(|host| host.cancel.clone()))
}

/// Tells the host of an event. Returns whether there is one.
pub fn tell(event: &Value) -> bool {
    HOST.with_borrow_mut(|host| host.as_mut().map(|host| (host.listener)(event)).is_some())
}

/// Gives the host the result. Returns it if there is none.
pub fn give(result: String) -> Option<String> {
    HOST.with_borrow_mut(|host| match host {
        Some(host) => {
            host.result = Some(result);
            None
        }
        None => Some(result),
    })
}
