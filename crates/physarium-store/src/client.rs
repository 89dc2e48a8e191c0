//! Connections to stores, with credentials from the environment.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ObjectStore, RetryConfig};
use physarium_checkpoint::{Error, Malformed};

use crate::address::StoreAddress;
use crate::ranges::Ranges;
use crate::runtime::runtime;

/// How often the first requests of a command are repeated, and for how long: a wrong address is to be told soon.
const AT_FIRST: (usize, Duration) = (3, Duration::from_secs(20));
/// The same for reads and writes of weights: a run of hours outlives an outage of a minute. Only the time is a bound, for the pauses between
/// repetitions are random and may be short.
const LATER: (usize, Duration) = (usize::MAX, Duration::from_secs(300));

/// The clients that this process has, by the address of their bucket.
static CLIENTS: LazyLock<Mutex<HashMap<String, Client>>> = LazyLock::new(Mutex::default);

/// A connection to a bucket.
#[derive(Debug, Clone)]
pub struct Client {
    /// For listings and small files.
    pub(crate) at_first: Arc<dyn ObjectStore>,
    /// For weights.
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) ranges: Arc<Ranges>,
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
        check_endpoint(address)?;
        let client = Client::of_environment(address).map_err(|e| failed(address, "reach", &e))?;
        clients.insert(address.root(), client.clone());
        Ok(client)
    }

    /// Uses a store for all addresses of a bucket from now on: one with credentials of its own, or one in memory.
    pub fn register(address: &StoreAddress, store: Arc<dyn ObjectStore>) {
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        let at_first = Arc::clone(&store);
        clients.insert(address.root(), Client { at_first, store, ranges: Arc::default() });
    }

    fn of_environment(address: &StoreAddress) -> object_store::Result<Client> {
        let (at_first, store) = (connect(address, AT_FIRST)?, connect(address, LATER)?);
        Ok(Client { at_first, store, ranges: Arc::default() })
    }
}

/// Fails for an endpoint in the environment that is no URL.
fn check_endpoint(address: &StoreAddress) -> Result<(), Error> {
    if address.scheme() != "s3" {
        return Ok(());
    }
    for variable in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"] {
        let Ok(value) = std::env::var(variable) else { continue };
        if reqwest::Url::parse(&value).ok().is_none_or(|url| !url.has_host()) {
            let path = PathBuf::from(address.to_string());
            let expected = format!("a URL in {variable}, such as https://host:9000");
            let found = physarium_checkpoint::printable(&value);
            return Err(Malformed::new(&path, "no such endpoint", expected, found).into());
        }
    }
    Ok(())
}

fn connect(
    address: &StoreAddress,
    (max_retries, retry_timeout): (usize, Duration),
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let (root, retry) =
        (address.root(), RetryConfig { max_retries, retry_timeout, ..RetryConfig::default() });
    Ok(match address.scheme() {
        "s3" => Arc::new(AmazonS3Builder::from_env().with_url(root).with_retry(retry).build()?),
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env();
            Arc::new(builder.with_url(root).with_retry(retry).build()?)
        }
        _ => {
            let builder = MicrosoftAzureBuilder::from_env();
            Arc::new(builder.with_url(root).with_retry(retry).build()?)
        }
    })
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
    let said = physarium_checkpoint::printable(without_xml(&reason(error)).trim());
    Error::io(Path::new(&address.to_string()), operation, io::Error::new(kind, said))
}

/// What a store said, without the XML around it.
fn without_xml(said: &str) -> String {
    let in_tag = |tag: &str| {
        let (_, after) = said.split_once(&format!("<{tag}>"))?;
        Some(after.split_once(&format!("</{tag}>"))?.0)
    };
    match (in_tag("Code"), in_tag("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => said.to_owned(),
    }
}

/// The first cause: the errors above it repeat the request, which is long.
fn reason(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}
