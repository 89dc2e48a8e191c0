//! Reading a complete journal, or the one of an interrupted run.

use std::path::Path;

use super::chain::{chain, encode, split_check};
use super::record::{Record, RunRecord, SCHEMA, ShardRecord, TensorRecord, Totals};
use super::write::Mark;
use crate::error::{Error, Result};
use crate::escape::printable;
use crate::open::header::MAX_TENSORS;
use crate::open::source::Source;
use crate::records::from_json;
use crate::records::recipe::Recipe;

/// Largest journal that is read, in bytes; one takes some 500 bytes per tensor or expert, so 250,000 fit.
pub(crate) const MAX_JOURNAL_BYTES: u64 = 128 << 20;
/// Most records of a journal that is read: for each tensor that a checkpoint may have, for shards, and two.
const MAX_RECORDS: usize = MAX_TENSORS + 100_000;

/// The records of a journal.
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

/// Whether lines must have a `check` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Each line must, and must be exactly as physarium writes it.
    Required,
    /// A line without the field is accepted, as another tool may write it. A `check` that is present must be
    /// right.
    IfPresent,
}

impl Journal {
    /// Reads a complete journal.
    ///
    /// # Errors
    /// `Record` with the first invalid line; `Malformed` when it is not a regular file, or larger than
    /// 128 MiB; `Io`.
    pub fn read(path: &Path, checks: Checks) -> Result<Journal> {
        let bytes = Source::open(path)?.read_all(MAX_JOURNAL_BYTES)?;
        Journal::parse(path, &bytes, checks)
    }

    /// Reads a complete journal from its bytes; `path` is for messages.
    ///
    /// # Errors
    /// `Record` with the first invalid line.
    pub fn parse(path: &Path, bytes: &[u8], checks: Checks) -> Result<Journal> {
        let mut lines = Lines::new(path, bytes, checks);
        let mut records = Vec::new();
        while let Some(record) = lines.next()? {
            records.push(record);
        }
        if !lines.rest.is_empty() {
            let found = "a line without its end".to_owned();
            return Err(record_error(path, lines.number + 1, "a whole line", found));
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

/// The complete lines in the journal of an interrupted run.
pub(crate) struct Interrupted {
    pub journal: Journal,
    /// The end of each shard record.
    pub marks: Vec<Mark>,
    /// The end of the run record.
    pub start: Mark,
}

impl Interrupted {
    /// Reads the lines that are complete. A last line that is torn or has a wrong check is dropped, because a crash
    /// leaves such a line; any other fault is an error.
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
                Err(_) if lines.rest.is_empty() && !records.is_empty() => break,
                Err(fault) => return Err(fault),
            }
        }
        let journal = Journal::collect(path, records)?;
        let start = start.ok_or_else(|| record_error(path, 1, "the run record", "none".into()))?;
        Ok(Interrupted { journal, marks, start })
    }
}

/// The lines of a journal in order, with the chain of their checks.
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

    /// The record of the next line; `None` at the end, and before a line without its newline.
    fn next(&mut self) -> Result<Option<Record>> {
        let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        self.number += 1;
        if self.number > MAX_RECORDS {
            return Err(self.fault(&format!("at most {MAX_RECORDS} lines"), "more".into()));
        }
        let text = std::str::from_utf8(line)
            .map_err(|e| self.fault("UTF-8", format!("a bad byte at {}", e.valid_up_to())))?;
        let body = match split_check(text) {
            Some((body, stated)) => {
                let right = chain(&self.previous, &body);
                if stated != right {
                    let found = format!("check {}", printable(stated));
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
            .map_err(|e| self.fault("a journal record", printable(&fault_in(&body, &e))))?;
        if let Record::Run(run) = &record
            && run.schema != SCHEMA
        {
            return Err(self.fault(SCHEMA, printable(&run.schema)));
        }
        // A line may hold the same record in other bytes (an escape, a space): it was not written by physarium.
        if self.checks == Checks::Required && encode(&record) != body {
            return Err(self.fault("the record as physarium writes it", "other bytes".into()));
        }
        Ok(Some(record))
    }
}

/// What is wrong with a record. serde buffers it and forgets the keys above; those of a recipe are named.
fn fault_in(body: &str, error: &serde_json::Error) -> String {
    let recipe = serde_json::from_str::<serde_json::Value>(body).ok();
    let recipe = recipe.and_then(|record| record.get("recipe").map(ToString::to_string));
    match recipe.map(|recipe| from_json::<Recipe>(recipe.as_bytes())) {
        Some(Err(why)) => format!("recipe: {why}"),
        _ => error.to_string(),
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
