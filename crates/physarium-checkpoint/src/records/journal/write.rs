//! Appending to a journal file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::chain::{chain, encode};
use super::record::Record;
use crate::error::{Error, Result};

/// The end of a line in a journal, after which writing can resume.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// Bytes of the journal up to here.
    pub length: u64,
    /// The `check` of that line.
    pub check: String,
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

    /// Resumes a journal at a mark; the lines after it are removed.
    pub(crate) fn resume(path: &Path, mark: &Mark) -> Result<JournalWriter> {
        let io = |e| Error::io(path, "truncate", e);
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        file.set_len(mark.length).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(JournalWriter { file, path: path.to_owned(), previous: mark.check.clone() })
    }

    /// Appends a record as one line, in one system call.
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
    /// `Io`. Do not retry: a second sync may succeed without the data being on disk. Resume the run instead.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, "sync the journal", e))
    }
}
