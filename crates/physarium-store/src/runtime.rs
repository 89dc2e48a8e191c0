//! The threads that make requests.

use std::io;
use std::sync::LazyLock;

use physarium_checkpoint::Error;
use tokio::runtime::{Builder, Runtime};

/// What runs requests: two threads, for all of them.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    // There may be one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
});

/// The runtime of all requests.
///
/// # Errors
/// `Thread` if its threads cannot be started.
pub(crate) fn runtime() -> Result<&'static Runtime, Error> {
    RUNTIME.as_ref().map_err(|e| Error::Thread { source: io::Error::new(e.kind(), e.to_string()) })
}
