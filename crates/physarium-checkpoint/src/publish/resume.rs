/*!
Resuming an interrupted run.

In: a staging directory, and the request of the run that is to resume it. Out: the shards whose digests match the
journal in input and output, and the place in the journal at which to resume. A staging directory of another recipe,
tool version or input is an error that names the difference.
*/

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::durable::sync_dir;
use super::inputs::{InputDigests, refuse_change};
use super::request::{FinishedShard, StagingRequest};
use super::solved_dir::SOLVED_DIR;
use crate::error::{Error, Result};
use crate::open::checkpoint::{Checkpoint, Shard};
use crate::open::digest::Digest;
use crate::open::source::Source;
use crate::open::unfinished::UNFINISHED_NAME;
use crate::records::journal::{self, Interrupted, MAX_JOURNAL_BYTES, Mark, TensorRecord};
use crate::threads::start_thread;

/// An unfinished run of the same recipe on the same input.
pub(crate) struct Earlier {
    journal: Interrupted,
}

/// Reads a staging directory without changing it; `None` when there is nothing to resume.
pub(crate) fn look(
    dir: &Path,
    request: &StagingRequest<'_>,
    ours: &InputDigests,
) -> Result<Option<Earlier>> {
    let path = dir.join(journal::FILE_NAME);
    let bytes = match Source::open(&path).and_then(|file| file.read_all(MAX_JOURNAL_BYTES)) {
        Ok(bytes) => bytes,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    // Killed before the first line was complete: no shard was written.
    if !bytes.contains(&b'\n') {
        return Ok(None);
    }
    let journal = Interrupted::parse(&path, &bytes).map_err(|fault| match fault {
        Error::Record { path, what, expected, found } => {
            let found = format!("{found}\nhint: use --restart to discard the unfinished run");
            Error::Record { path, what, expected, found }
        }
        other => other,
    })?;
    let theirs = serde_json::to_value(&journal.journal.run).expect("plain JSON");
    let run = serde_json::to_value(&request.run).expect("plain JSON");
    refuse_difference(dir, &theirs, &run)?;
    ours.refuse_difference(dir, &InputDigests::of_unfinished(dir, &request.inputs)?)?;
    Ok(Some(Earlier { journal }))
}

/// Fails on the first difference between two JSON values, naming its path.
fn refuse_difference(dir: &Path, theirs: &Value, ours: &Value) -> Result<()> {
    match first_difference(String::new(), theirs, ours) {
        None => Ok(()),
        Some((what, theirs, ours)) => {
            Err(Error::StagingMismatch { path: dir.to_owned(), what, theirs, ours })
        }
    }
}

fn first_difference(at: String, a: &Value, b: &Value) -> Option<(String, String, String)> {
    let child = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (a, b) {
        (Value::Object(a_map), Value::Object(b_map)) => {
            let keys = a_map.keys().chain(b_map.keys().filter(|key| !a_map.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let none = Value::Null;
                let (a, b) = (a_map.get(key), b_map.get(key));
                first_difference(child(key), a.unwrap_or(&none), b.unwrap_or(&none))
            })
        }
        (Value::Array(a_list), Value::Array(b_list)) if a_list.len() == b_list.len() => {
            let mut pairs = a_list.iter().zip(b_list).enumerate();
            pairs.find_map(|(i, (a, b))| {
                // A shard is shown by its name, which says more than its position.
                let name = a["name"].as_str().filter(|name| b["name"] == **name);
                let key = name.map_or_else(|| i.to_string(), str::to_owned);
                first_difference(child(&key), a, b)
            })
        }
        _ if a == b => None,
        _ => {
            let [a, b] = [a, b].map(|value| crate::escape::printable(&value.to_string()));
            Some((crate::escape::printable(&at), a, b))
        }
    }
}

impl Earlier {
    /// Number of shards that the journal records as durable.
    pub fn shards(&self) -> usize {
        self.journal.journal.shards.len()
    }

    /// Hashes each shard in the journal again, up to the first whose output differs from the journal. An input that
    /// differs is an error; those in `known` were hashed before. `on_bytes` is called with the number of bytes hashed.
    pub fn verify(
        &self,
        dir: &Path,
        (checkpoint, known): (&Checkpoint, &InputDigests),
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<FinishedShard>> {
        let mut finished = Vec::new();
        for (record, shard) in self.journal.journal.shards.iter().zip(checkpoint.shards()) {
            if record.name != shard.name {
                break;
            }
            let Ok(staged) = Source::open(&dir.join(&record.name)) else { break };
            let (input, output) = hash_both((shard, known), &staged, on_bytes)?;
            refuse_change(&shard.path, Some(record.input_sha256), input)?;
            if output != record.output_sha256 || staged.len() != record.size_bytes {
                break;
            }
            let of_shard = |tensor: &&TensorRecord| tensor.shard == record.name;
            let tensors = self.journal.journal.tensors.iter().filter(of_shard).cloned().collect();
            finished.push(FinishedShard { shard: record.clone(), tensors });
        }
        Ok(finished)
    }

    /// Where to resume the journal after the first `shards` shards.
    pub fn mark_after(&self, shards: usize) -> &Mark {
        match shards {
            0 => &self.journal.start,
            n => &self.journal.marks[n - 1],
        }
    }
}

/// The digests of a shard of the input, which may be `known`, and of the one made from it. Those that are hashed are hashed in
/// parallel; `on_bytes` is called with the bytes of `output` hashed.
pub(super) fn hash_both(
    (input, known): (&Shard, &InputDigests),
    output: &Source,
    on_bytes: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(Digest, Digest)> {
    if let Some(input) = known.of_shard(&input.name) {
        return Ok((input, output.sha256(on_bytes)?));
    }
    let input = input.reopen()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = start_thread(scope, || {
            input.sha256(&mut |_| match stop.load(Ordering::Relaxed) {
                true => Err(Error::Interrupted),
                false => Ok(()),
            })
        })?;
        let output = output.sha256(on_bytes);
        stop.store(output.is_err(), Ordering::Relaxed);
        let input = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The output's error first: after one, the input's hash is stopped with an error of its own.
        let output = output?;
        Ok((input?, output))
    })
}

/// Removes everything from a staging directory but verified shards, journal, marker and, until all `shards` are
/// verified, solved weights: a directory of that name is then a copy of one in the input.
pub(crate) fn remove_unverified(
    dir: &Path,
    finished: &[FinishedShard],
    shards: usize,
) -> Result<()> {
    let mut keep: HashSet<&str> = finished.iter().map(|done| done.shard.name.as_str()).collect();
    keep.extend([journal::FILE_NAME, UNFINISHED_NAME]);
    keep.extend((finished.len() < shards).then_some(SOLVED_DIR));
    let io = |e| Error::io(dir, "clear", e);
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
            continue;
        }
        let is_dir = entry.file_type().map_err(io)?.is_dir();
        let path = entry.path();
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| Error::io(&path, "remove", e))?;
    }
    sync_dir(dir)
}
