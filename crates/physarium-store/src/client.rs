//! Connections to stores, with credentials from the environment.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ObjectStore, RetryConfig};
use physarium_checkpoint::Error;
use tokio::runtime::{Builder, Runtime};

use crate::address::StoreAddress;

/// How often a request is repeated.
const RETRIES: usize = 4;
/// How long a request is repeated.
const RETRY_TIME: Duration = Duration::from_secs(20);

/// The clients that this process has, by the address of their bucket.
static CLIENTS: LazyLock<Mutex<HashMap<String, Client>>> = LazyLock::new(Mutex::default);

/// What runs requests: two threads, for all of them.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    // There may be one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
});

/// A connection to a bucket.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) store: Arc<dyn ObjectStore>,
}

impl Client {
    /// The connection to an address's bucket: that of [`Client::register`], or one from the environment variables of its provider
    /// (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    ///
    /// # Errors
    /// `Io` for settings that are missing or wrong.
    pub fn of(address: &StoreAddress) -> Result<Client, Error> {
        runtime()?;
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address.root()) {
            return Ok(client.clone());
        }
        let client = Client::of_environment(address).map_err(|e| failed(address, "reach", &e))?;
        clients.insert(address.root(), client.clone());
        Ok(client)
    }

    /// Uses a store for all addresses of a bucket from now on: one with credentials of its own, or one in memory.
    pub fn register(address: &StoreAddress, store: Arc<dyn ObjectStore>) {
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        clients.insert(address.root(), Client { store });
    }

    fn of_environment(address: &StoreAddress) -> object_store::Result<Client> {
        let (root, retry) = (address.root(), retries());
        let store: Arc<dyn ObjectStore> = match address.scheme() {
            "s3" => Arc::new(AmazonS3Builder::from_env().with_url(root).with_retry(retry).build()?),
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env();
                Arc::new(builder.with_url(root).with_retry(retry).build()?)
            }
            _ => {
                let builder = MicrosoftAzureBuilder::from_env();
                Arc::new(builder.with_url(root).with_retry(retry).build()?)
            }
        };
        Ok(Client { store })
    }
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIME, ..RetryConfig::default() }
}

/// The runtime of all requests.
///
/// # Errors
/// `Thread` if its threads cannot be started.
pub(crate) fn runtime() -> Result<&'static Runtime, Error> {
    RUNTIME.as_ref().map_err(|e| Error::Thread { source: io::Error::new(e.kind(), e.to_string()) })
}

/// Waits for a request.
///
/// # Errors
/// `Io` with the address and the store's reason; `Thread`.
pub(crate) fn wait<T>(
    address: &impl ToString,
    operation: &'static str,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Error> {
    runtime()?.block_on(request).map_err(|e| failed(address, operation, &e))
}

/// The error of a request to an address.
pub(crate) fn failed(
    address: &impl ToString,
    operation: &'static str,
    error: &object_store::Error,
) -> Error {
    let kind = match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    let said = physarium_checkpoint::printable(reason(error).trim());
    Error::io(Path::new(&address.to_string()), operation, io::Error::new(kind, said))
}

/// The first cause: the errors above it repeat the request, which is long.
fn reason(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}
