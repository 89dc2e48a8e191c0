//! The record of a unit of work.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::open::digest::Digest;
use crate::open::source::Source;
use crate::records::from_json;
use crate::records::manifest::FileEntry;

/// Name of the record in a unit's directory.
pub(super) const FILE_NAME: &str = "unit.json";
/// Schema of the record.
const SCHEMA: &str = "physarium.unit/1";
/// Largest record that is read, in bytes: one of a shard has some 500 bytes for each tensor.
const MAX_RECORD_BYTES: u64 = 256 << 20;

/// What a unit did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitRecord {
    schema: String,
    /// The unit's id.
    pub unit: String,
    /// The digest of the plan that it belongs to: everything that decides its result.
    pub key: Digest,
    /// Its files.
    pub files: Vec<FileEntry>,
    /// What there is to say of its result; each kind of unit has a form of its own.
    pub did: Value,
    /// What it took. Two attempts at the same unit differ in this only.
    pub took: Took,
}

/// What a unit took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Took {
    /// Seconds.
    pub seconds: f64,
    /// Seconds of all processors.
    pub cpu_seconds: f64,
    /// Most resident memory of the process, if the system says it.
    pub peak_rss_bytes: Option<u64>,
    /// The host's name.
    pub host: String,
}

/// Measures what a unit takes.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    cpu_began: Duration,
}

impl Stopwatch {
    /// Starts.
    pub fn start() -> Stopwatch {
        Stopwatch { began: Instant::now(), cpu_began: process_cpu_time() }
    }

    /// What was taken since, with the peak memory of the process.
    pub fn took(&self, peak_rss_bytes: Option<u64>) -> Took {
        Took {
            seconds: self.began.elapsed().as_secs_f64(),
            cpu_seconds: process_cpu_time().saturating_sub(self.cpu_began).as_secs_f64(),
            peak_rss_bytes,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }
    }
}

/// Time that all processors have worked for this process.
fn process_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl UnitRecord {
    /// A record.
    pub fn new(unit: &str, key: Digest, did: Value, took: Took) -> UnitRecord {
        let (schema, unit) = (SCHEMA.to_owned(), unit.to_owned());
        UnitRecord { schema, unit, key, files: Vec::new(), did, took }
    }

    /// Whether two attempts had the same result.
    pub fn is_same_result(&self, other: &UnitRecord) -> bool {
        (&self.unit, &self.key, &self.files, &self.did)
            == (&other.unit, &other.key, &other.files, &other.did)
    }

    pub(super) fn encode(&self) -> String {
        serde_json::to_string_pretty(self).expect("records are plain JSON") + "\n"
    }

    pub(super) fn read(dir: &Path) -> Result<Option<UnitRecord>> {
        let path = dir.join(FILE_NAME);
        let bytes = match Source::open(&path).and_then(|file| file.read_all(MAX_RECORD_BYTES)) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            read => read?,
        };
        let fault = |expected: &str, found: String| Error::Record {
            path: path.clone(),
            what: "record of a unit of work".to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let record: UnitRecord =
            from_json(&bytes).map_err(|why| fault("what physarium wrote", why))?;
        if record.schema != SCHEMA {
            return Err(fault(SCHEMA, crate::escape::printable(&record.schema)));
        }
        Ok(Some(record))
    }
}
