/*!
The journal: what was done to each tensor, written as it happens.

JSON Lines, one [`Record`] a line: the run first, then for each shard its tensors in file order
(skipped ones too) and the shard itself, the totals last. Each line ends with a `check` field that
chains it to the line before, so that a torn, edited, lost or moved line is found. A line is never
trusted alone: who resumes a run hashes the shard again, who audits one counts the bytes again.

`docs/FORMATS.md` has the fields with an example.
*/

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::role::Role;
use crate::source::Source;

/// Name of the journal in an output directory.
pub const FILE_NAME: &str = "physarium.journal.jsonl";
/// Schema of the journal's first record.
pub const SCHEMA: &str = "physarium.journal/1";

/// Length of the text `,"check":"0123456789abcdef"}` that ends a line.
const CHECK_SUFFIX: usize = 28;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// First line: what is run on what.
    Run(RunRecord),
    /// One tensor, once its bytes are written.
    Tensor(TensorRecord),
    /// One shard, once it is durable under its name.
    Shard(ShardRecord),
    /// Last line.
    Totals(Totals),
}

/// What is run on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// Program and version.
    pub tool: String,
    /// What decides the output's bytes.
    pub recipe: Recipe,
    /// The input's shards, by name.
    pub input: Vec<InputShard>,
}

/// A shard of the input, as known before its weights are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputShard {
    /// File name.
    pub name: String,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// Digest of the length field and the header.
    pub header_sha256: Digest,
}

/// What was done to one tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorRecord {
    /// Its name.
    pub name: String,
    /// The shard that holds it.
    pub shard: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Product of the dimensions.
    pub elements: u64,
    /// Processed, or skipped and why.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Digest of its bytes in the output; absent in journals that other tools wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_blake3: Option<Digest>,
}

impl TensorRecord {
    /// What the engine did to it; `None` when it was skipped.
    pub fn processed(&self) -> Option<&Processed> {
        match &self.outcome {
            Outcome::Processed(done) => Some(done),
            Outcome::Skipped { .. } => None,
        }
    }
}

/// Processed or skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Outcome {
    /// The engine visited it.
    Processed(Processed),
    /// It was carried byte for byte.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// What the engine did to a projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Processed {
    /// Which projection it is.
    #[serde(flatten)]
    pub role: Role,
    /// Elements that the engine visited.
    pub processed: u64,
    /// Elements set to +0.0 that were not zero before.
    pub pruned: u64,
    /// Elements that were zero before (+0.0 or -0.0) and are unchanged.
    pub already_zero: u64,
    /// NaN and infinite elements, kept as they are.
    #[serde(default)]
    pub non_finite: u64,
    /// Elements that are not zero and not what they were: made to make up for the pruned ones.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub refitted: u64,
    /// Inputs of the projection that were nought on all of the calibration text.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub dead_inputs: u64,
    /// ‖X (Ŵ − W)ᵀ‖² ÷ ‖X Wᵀ‖² over the calibration text, X the inputs in the pruned model: how far the
    /// projection's outputs are from what its old weights would make of the same inputs. Absent where the
    /// method sees no activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// Tiles of the projection; absent in journals that other tools wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<Tiles>,
}

/// Tile coverage of one projection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiles {
    /// Tiles that the shape and the block size make.
    pub expected: u64,
    /// Tiles that the engine visited.
    pub visited: u64,
}

/// A shard that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// File name, in input and output.
    pub name: String,
    /// Size of the file in bytes, in input and output.
    pub size_bytes: u64,
    /// Digest of the input's file.
    pub input_sha256: Digest,
    /// Digest of the output's file.
    pub output_sha256: Digest,
}

/// Sums over all tensor records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Tensors of the model.
    pub tensors: u64,
    /// Elements of the model.
    pub elements: u64,
    /// Tensors that were processed.
    pub processed_tensors: u64,
    /// Elements that were processed.
    pub processed: u64,
    /// Elements set to +0.0 that were not zero before.
    pub pruned: u64,
    /// Elements of processed tensors that were zero before.
    pub already_zero: u64,
    /// NaN and infinite elements of processed tensors.
    pub non_finite: u64,
    /// Elements that are not zero and not what they were.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub refitted: u64,
    /// Inputs of processed tensors that were nought on all of the calibration text.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub dead_inputs: u64,
}

/// Whether a count goes without saying.
fn is_nought(count: &u64) -> bool {
    *count == 0
}

impl Totals {
    /// Adds up tensor records.
    pub fn of<'a>(tensors: impl IntoIterator<Item = &'a TensorRecord>) -> Totals {
        let mut totals = Totals::default();
        for tensor in tensors {
            totals.tensors += 1;
            totals.elements += tensor.elements;
            if let Some(done) = tensor.processed() {
                totals.processed_tensors += 1;
                totals.processed += done.processed;
                totals.pruned += done.pruned;
                totals.already_zero += done.already_zero;
                totals.non_finite += done.non_finite;
                totals.refitted += done.refitted;
                totals.dead_inputs += done.dead_inputs;
            }
        }
        totals
    }
}

/// A journal as it was read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Journal {
    /// First record.
    pub run: RunRecord,
    /// Tensor records in file order.
    pub tensors: Vec<TensorRecord>,
    /// Shard records.
    pub shards: Vec<ShardRecord>,
    /// Last record; absent while the run is unfinished.
    pub totals: Option<Totals>,
}

/// Whether lines must carry a right `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Each line must: what physarium wrote itself.
    Required,
    /// Lines without the field are accepted (a journal put together by hand or by another tool);
    /// where the field is there it must be right.
    IfPresent,
}

impl Journal {
    /// Reads a whole journal.
    ///
    /// # Errors
    /// `Record` naming the first line at fault; `Malformed` when it is not a regular file; `Io`.
    pub fn read(path: &Path, checks: Checks) -> Result<Journal> {
        let bytes = Source::open(path)?.read_all(u64::MAX)?;
        Journal::parse(path, &bytes, checks)
    }

    /// Reads a whole journal from its bytes; `path` is for messages.
    ///
    /// # Errors
    /// `Record` naming the first line at fault.
    pub fn parse(path: &Path, bytes: &[u8], checks: Checks) -> Result<Journal> {
        let mut lines = Lines::new(path, bytes, checks);
        let mut records = Vec::new();
        while let Some(record) = lines.next()? {
            records.push(record);
        }
        if !lines.rest.is_empty() {
            return Err(lines.fault("a whole line", "a line without its end".into()));
        }
        Journal::collect(path, records)
    }

    fn collect(path: &Path, records: Vec<Record>) -> Result<Journal> {
        let mut records = records.into_iter();
        let Some(Record::Run(run)) = records.next() else {
            return Err(record_error(path, 1, "the run record", "something else".into()));
        };
        let mut journal = Journal { run, tensors: Vec::new(), shards: Vec::new(), totals: None };
        for (at, record) in records.enumerate() {
            if journal.totals.is_some() {
                return Err(record_error(path, at + 2, "the end", "a line after totals".into()));
            }
            match record {
                Record::Tensor(tensor) => journal.tensors.push(tensor),
                Record::Shard(shard) => journal.shards.push(shard),
                Record::Totals(totals) => journal.totals = Some(totals),
                Record::Run(_) => {
                    let found = "a second run record".to_owned();
                    return Err(record_error(path, at + 2, "tensor, shard or totals", found));
                }
            }
        }
        Ok(journal)
    }
}

/// What an interrupted run left: the lines up to the last shard that is recorded as durable.
pub(crate) struct Interrupted {
    pub journal: Journal,
    /// After each shard record: bytes of the journal up to and with it, and its `check`.
    pub marks: Vec<Mark>,
    /// The same after the run record.
    pub start: Mark,
}

/// A place in the journal that writing can go on from.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// Bytes before it.
    pub length: u64,
    /// The `check` of the line before it.
    pub check: String,
}

impl Interrupted {
    /// Reads as much of a journal as is whole. A last line that is torn or whose check is wrong is
    /// what a crash leaves and is dropped; anything else that is wrong is an error.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Interrupted> {
        let mut lines = Lines::new(path, bytes, Checks::Required);
        let mut records = Vec::new();
        let mut marks = Vec::new();
        let mut start = None;
        loop {
            match lines.next() {
                Ok(None) => break,
                Ok(Some(record)) => {
                    let mark = || Mark { length: lines.consumed(), check: lines.previous.clone() };
                    match &record {
                        Record::Run(_) => start = Some(mark()),
                        Record::Shard(_) => marks.push(mark()),
                        Record::Tensor(_) | Record::Totals(_) => {}
                    }
                    records.push(record);
                }
                Err(fault) if lines.rest.is_empty() && !records.is_empty() => {
                    drop(fault);
                    break;
                }
                Err(fault) => return Err(fault),
            }
        }
        let journal = Journal::collect(path, records)?;
        let start = start.ok_or_else(|| record_error(path, 1, "the run record", "none".into()))?;
        Ok(Interrupted { journal, marks, start })
    }
}

/// Walks over the lines of a journal, checking the chain.
struct Lines<'a> {
    path: &'a Path,
    total: usize,
    rest: &'a [u8],
    checks: Checks,
    number: usize,
    previous: String,
}

impl<'a> Lines<'a> {
    fn new(path: &'a Path, bytes: &'a [u8], checks: Checks) -> Self {
        let previous = String::new();
        Lines { path, total: bytes.len(), rest: bytes, checks, number: 0, previous }
    }

    fn consumed(&self) -> u64 {
        (self.total - self.rest.len()) as u64
    }

    fn fault(&self, expected: &str, found: String) -> Error {
        record_error(self.path, self.number, expected, found)
    }

    /// The next whole line; `None` at the end or before a line without its newline.
    fn next(&mut self) -> Result<Option<Record>> {
        let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        self.number += 1;
        let text = std::str::from_utf8(line)
            .map_err(|e| self.fault("UTF-8", format!("a bad byte at {}", e.valid_up_to())))?;
        let body = match split_check(text) {
            Some((body, stated)) => {
                let right = chain(&self.previous, &body);
                if stated != right {
                    let found = format!("check {}", crate::printable(stated));
                    return Err(self.fault(&format!("check {right}"), found));
                }
                self.previous = right;
                body
            }
            None if self.checks == Checks::Required => {
                return Err(self.fault("a check field at the end", "none".into()));
            }
            None => text.to_owned(),
        };
        let record: Record = serde_json::from_str(&body)
            .map_err(|e| self.fault("a journal record", crate::printable(&e.to_string())))?;
        if let Record::Run(run) = &record
            && run.schema != SCHEMA
        {
            return Err(self.fault(SCHEMA, crate::printable(&run.schema)));
        }
        // A line that says the same in other bytes (an escape, a blank) is not what was written.
        if self.checks == Checks::Required && encode(&record) != body {
            return Err(self.fault("the record as physarium writes it", "other bytes".into()));
        }
        Ok(Some(record))
    }
}

fn record_error(path: &Path, line: usize, expected: &str, found: String) -> Error {
    Error::Record {
        path: path.to_owned(),
        what: format!("journal line {line}"),
        expected: expected.to_owned(),
        found,
    }
}

/// Splits a line into its body (with the closing brace) and its check.
fn split_check(line: &str) -> Option<(String, &str)> {
    let at = line.len().checked_sub(CHECK_SUFFIX)?;
    let suffix = line.get(at..)?;
    let check = suffix.strip_prefix(",\"check\":\"")?.strip_suffix("\"}")?;
    Some((format!("{}}}", &line[..at]), check))
}

/// The check of a line: the first 64 bits of BLAKE3 over the previous check and the body.
fn chain(previous: &str, body: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous.as_bytes()).update(body.as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

fn encode(record: &Record) -> String {
    serde_json::to_string(record).expect("records hold nothing that JSON cannot")
}

/// Appends records to a journal file.
#[derive(Debug)]
pub struct JournalWriter {
    file: File,
    path: PathBuf,
    previous: String,
}

impl JournalWriter {
    /// Starts a journal; the file must not exist.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn create(path: &Path) -> Result<JournalWriter> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io(path, "create", e))?;
        Ok(JournalWriter { file, path: path.to_owned(), previous: String::new() })
    }

    /// Goes on with a journal from a mark; what stands after it is cut off.
    pub(crate) fn resume(path: &Path, mark: &Mark) -> Result<JournalWriter> {
        let io = |e| Error::io(path, "cut", e);
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        file.set_len(mark.length).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(JournalWriter { file, path: path.to_owned(), previous: mark.check.clone() })
    }

    /// Writes one record as one line, in one system call.
    ///
    /// # Errors
    /// `Io`.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let body = encode(record);
        let check = chain(&self.previous, &body);
        let line = format!("{},\"check\":\"{check}\"}}\n", &body[..body.len() - 1]);
        self.file
            .write_all(line.as_bytes())
            .map_err(|e| Error::io(&self.path, "append to the journal", e))?;
        self.previous = check;
        Ok(())
    }

    /// Makes every line so far durable.
    ///
    /// # Errors
    /// `Io`. Not to be tried again: the staging directory is resumed instead.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, "sync the journal", e))
    }
}
