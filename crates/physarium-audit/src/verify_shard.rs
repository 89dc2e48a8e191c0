/*!
One shard against its original: both are read once, side by side, hashed and compared.

Two threads read and hash the files, one side each; the calling thread compares and hashes tensors. A fixed number of buffers
bounds memory.
*/

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use physarium_checkpoint::journal::{MatrixRecord, Processed, TensorRecord};
use physarium_checkpoint::{Blake3, Digest, Dtype, Sha256, Shard, Source, start_thread};
use safetensors::tensor::Metadata;

use crate::compare::{first_illegal, first_negative_zero, non_finite, tally};
use crate::error::Result;
use crate::verify::{Verification, open_output};

/// Bytes read at once from each side; a multiple of every element size.
const READ_BYTES: u64 = 1 << 20;
/// Buffers between a reader and the comparison.
const AHEAD: usize = 4;

/// A shard to verify.
pub(crate) struct ShardCheck<'a> {
    pub shard: &'a Shard,
    pub out: &'a Path,
    /// Journal records of processed tensors.
    pub processed: &'a HashMap<&'a str, &'a Processed>,
    /// Whether the recipe keeps infinite and NaN weights; if not, none are there.
    pub keeps: bool,
    /// Whether the recipe changes weights that survive.
    pub refits: bool,
}

/// What a shard's bytes say.
pub(crate) struct ShardSeen {
    pub input_sha256: Digest,
    pub output_sha256: Digest,
    pub tensors: Vec<TensorSeen>,
}

/// What a tensor's bytes say.
pub(crate) struct TensorSeen {
    pub name: String,
    output_blake3: Digest,
    pruned: u64,
    already_zero: u64,
    non_finite: u64,
    refitted: u64,
    /// Pruned weights and weights zero before of each matrix, of a tensor that has several.
    matrices: Vec<[u64; 2]>,
}

impl TensorSeen {
    /// Compares with the journal.
    pub fn compare(&self, record: &TensorRecord, shard: &str, result: &mut Verification) {
        if record.output_blake3 != Some(self.output_blake3) {
            let stated = record.output_blake3.map_or("none".to_owned(), |d| d.to_string());
            let what = format!("BLAKE3, expected {stated}, found {}", self.output_blake3);
            result.find(shard, Some(&self.name), what);
        }
        if let Some(done) = record.processed() {
            let stated = done.matrices.iter().map(|m| [m.pruned, m.already_zero]);
            if let Some(at) = stated.zip(&self.matrices).position(|(a, b)| a != *b) {
                let [pruned, already_zero] = self.matrices[at];
                let what = format!(
                    "matrix {at}: record is not as its weights say, which are {pruned} pruned and \
                     {already_zero} zero before"
                );
                result.find(shard, Some(&self.name), what);
            }
            for (what, stated, counted) in [
                ("pruned weights", done.pruned, self.pruned),
                ("weights zero before", done.already_zero, self.already_zero),
                ("infinite and NaN weights", done.non_finite, self.non_finite),
                ("refitted weights", done.refitted, self.refitted),
            ] {
                if stated != counted {
                    let what = format!("{what}, expected {stated}, found {counted}");
                    result.find(shard, Some(&self.name), what);
                }
            }
        }
    }
}

/// A run of bytes of the shard that belongs together.
struct Span {
    /// The tensor's name; `None` for the header.
    name: Option<String>,
    /// Its dtype, of targets.
    weights: Option<Dtype>,
    begin: u64,
    end: u64,
    /// Where its matrices end, of a tensor that has several; no piece crosses one.
    borders: Vec<u64>,
}

impl Span {
    /// Where the piece that begins at `at` ends.
    fn piece_end(&self, at: u64) -> u64 {
        let border = self.borders.iter().find(|border| **border > at);
        self.end.min(at + READ_BYTES).min(border.copied().unwrap_or(u64::MAX))
    }
}

/// Compares a shard with its original and computes what its records should say.
///
/// # Errors
/// `Checkpoint` when either side cannot be read.
pub(crate) fn verify_shard(
    check: &ShardCheck<'_>,
    result: &mut Verification,
    on_bytes: &mut dyn FnMut(u64) -> Result<(), physarium_checkpoint::Error>,
) -> Result<ShardSeen> {
    let name = &check.shard.name;
    let input = check.shard.reopen()?;
    let spans = spans(check, &input)?;
    let output = match open_output(check.out, name, result) {
        Some(output) if output.len() == input.len() => output,
        Some(output) => {
            let what = format!("expected {} bytes, found {}", input.len(), output.len());
            result.find(name, None, what);
            return hash_only(&input, &output);
        }
        None => return hash_only(&input, &input),
    };
    std::thread::scope(|scope| {
        let (input_bytes, from_input) = sync_channel(AHEAD);
        let (output_bytes, from_output) = sync_channel(AHEAD);
        let (input, output, spans) = (&input, &output, &spans);
        let input_reader = start_thread(scope, move || read(input, spans, input_bytes))?;
        let output_reader = start_thread(scope, move || read(output, spans, output_bytes))?;
        let mut comparison = Comparison { check, result, tensors: Vec::new() };
        let compared = comparison.run(spans, from_input, from_output, on_bytes);
        let tensors = comparison.tensors;
        let join = |reader: std::thread::ScopedJoinHandle<'_, Result<Digest>>| {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let (input, output) = (join(input_reader), join(output_reader));
        let (input_sha256, output_sha256) = (input?, output?);
        compared?;
        Ok(ShardSeen { input_sha256, output_sha256, tensors })
    })
}

/// The header and the tensors of the original, as the `safetensors` crate reads them.
fn spans(check: &ShardCheck<'_>, input: &Source) -> Result<Vec<Span>> {
    let data_begin = check.shard.data_begin;
    let mut header = vec![0; data_begin as usize];
    input.read_exact_at(&mut header, 0)?;
    let metadata: Metadata = serde_json::from_slice(&header[8..])
        .expect("the crate reads every header that opening the checkpoint accepts");
    let header = Span { name: None, weights: None, begin: 0, end: data_begin, borders: Vec::new() };
    let mut spans = vec![header];
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).expect("a name of its own list");
        let (begin, end) = info.data_offsets;
        let done = check.processed.get(name.as_str());
        let weights = done.and(match info.dtype {
            safetensors::Dtype::BF16 => Some(Dtype::BF16),
            safetensors::Dtype::F16 => Some(Dtype::F16),
            safetensors::Dtype::F32 => Some(Dtype::F32),
            _ => None,
        });
        let (begin, end) = (data_begin + begin as u64, data_begin + end as u64);
        let borders = done.zip(weights).map(|(done, dtype)| borders(done, dtype, begin));
        let borders = borders.unwrap_or_default();
        spans.push(Span { name: Some(name), weights, begin, end, borders });
    }
    Ok(spans)
}

/// Where the matrices that a record tells of end, in bytes of the file. That they cover the tensor is checked
/// with the plan.
fn borders(done: &Processed, dtype: Dtype, begin: u64) -> Vec<u64> {
    let mut at = begin;
    let end = |matrix: &MatrixRecord| {
        at = at.saturating_add(matrix.elements.saturating_mul(dtype.bits() / 8));
        at
    };
    done.matrices.iter().map(end).collect()
}

fn hash_only(input: &Source, output: &Source) -> Result<ShardSeen> {
    let hash = |source: &Source| -> Result<Digest> {
        let mut hasher = Sha256::default();
        source.read_pieces(0..source.len(), |piece| {
            hasher.update(piece);
            Ok::<(), physarium_checkpoint::Error>(())
        })?;
        Ok(hasher.finish())
    };
    let (input_sha256, output_sha256) = (hash(input)?, hash(output)?);
    Ok(ShardSeen { input_sha256, output_sha256, tensors: Vec::new() })
}

/// Reads a file span by span, hashes it and hands the bytes on.
fn read(source: &Source, spans: &[Span], bytes: SyncSender<Vec<u8>>) -> Result<Digest> {
    let mut file = Sha256::default();
    for span in spans {
        let mut at = span.begin;
        while at < span.end {
            let mut buffer = vec![0; (span.piece_end(at) - at) as usize];
            source.read_exact_at(&mut buffer, at)?;
            file.update(&buffer);
            at += buffer.len() as u64;
            // The comparison ends early when it is told to stop; the digest is then of no use.
            if bytes.send(buffer).is_err() {
                return Ok(file.finish());
            }
        }
    }
    Ok(file.finish())
}

/// Compares the two streams of bytes.
struct Comparison<'a> {
    check: &'a ShardCheck<'a>,
    result: &'a mut Verification,
    tensors: Vec<TensorSeen>,
}

impl Comparison<'_> {
    fn run(
        &mut self,
        spans: &[Span],
        input: Receiver<Vec<u8>>,
        output: Receiver<Vec<u8>>,
        on_bytes: &mut dyn FnMut(u64) -> Result<(), physarium_checkpoint::Error>,
    ) -> Result<()> {
        for span in spans {
            let mut sums = Sums::default();
            let mut blake3 = Blake3::default();
            let mut at = span.begin;
            let mut clean = true;
            while at < span.end {
                // A reader that is gone has an error of its own to report.
                let (Ok(before), Ok(now)) = (input.recv(), output.recv()) else { return Ok(()) };
                let differs = match span.weights {
                    Some(dtype) => sums.add(&now, &before, dtype, self.check),
                    None => now != before,
                };
                if differs
                    && clean
                    && let Some(what) = span.difference(at, &now, &before, self.check.refits)
                {
                    clean = false;
                    self.result.find(&self.check.shard.name, span.name.as_deref(), what);
                }
                blake3.update(&now);
                at += now.len() as u64;
                if span.borders.contains(&at) {
                    sums.end_matrix();
                }
                on_bytes(2 * now.len() as u64)?;
            }
            self.result.bytes += span.end - span.begin;
            let Some(name) = span.name.clone() else { continue };
            self.result.tensors += 1;
            self.result.pruned += sums.pruned;
            self.result.refitted += sums.refitted;
            self.tensors.push(sums.tensor(name, blake3.finish()));
        }
        Ok(())
    }
}

/// What the weights of a span say.
#[derive(Default)]
struct Sums {
    pruned: u64,
    already_zero: u64,
    non_finite: u64,
    refitted: u64,
    /// Of the matrices that have ended.
    matrices: Vec<[u64; 2]>,
}

impl Sums {
    /// Adds a piece of weights; returns whether one of them is as it must not be.
    fn add(&mut self, now: &[u8], before: &[u8], dtype: Dtype, check: &ShardCheck<'_>) -> bool {
        let tally = tally(now, before, dtype);
        self.pruned += tally.pruned;
        self.already_zero += tally.zeros - tally.pruned;
        if check.keeps || check.refits {
            self.non_finite += non_finite(now, dtype);
        }
        if check.refits {
            self.refitted += tally.changed;
            tally.to_negative_zero > 0
        } else {
            tally.illegal() > 0
        }
    }

    fn end_matrix(&mut self) {
        let [pruned, already_zero] =
            self.matrices.iter().fold([0, 0], |[a, b], m| [a + m[0], b + m[1]]);
        self.matrices.push([self.pruned - pruned, self.already_zero - already_zero]);
    }

    fn tensor(self, name: String, output_blake3: Digest) -> TensorSeen {
        let Sums { pruned, already_zero, non_finite, refitted, matrices } = self;
        TensorSeen { name, output_blake3, pruned, already_zero, non_finite, refitted, matrices }
    }
}

impl Span {
    /// The first difference of a piece at `at` that may not be there.
    fn difference(&self, at: u64, now: &[u8], before: &[u8], refits: bool) -> Option<String> {
        match self.weights {
            Some(dtype) => {
                let size = dtype.bits() / 8;
                let (first, what) = if refits {
                    (first_negative_zero(now, before, size as usize)?, "is -0.0, and was not")
                } else {
                    let what = "is neither as in the input nor +0.0";
                    (first_illegal(now, before, size as usize)?, what)
                };
                let index = first + (at - self.begin) / size;
                Some(format!("weight {index} {what} (byte offset {})", self.begin + index * size))
            }
            None if now == before => None,
            None => {
                let byte = now.iter().zip(before).position(|(a, b)| a != b)? as u64 + at;
                let what = if self.name.is_none() { "header" } else { "not a target, but" };
                Some(format!("{what} differs from the input first at byte offset {byte}"))
            }
        }
    }
}
