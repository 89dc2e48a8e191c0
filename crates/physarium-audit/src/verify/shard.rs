/*!
One shard against its original: both are read once, side by side, hashed and compared.

Two threads read and hash the files, one side each; the calling thread compares and hashes tensors. A fixed
number of pieces in flight bounds memory.
*/

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use physarium_checkpoint::{Blake3, Digest, MatrixView, Sha256, Shard, Source, start_thread};

use super::findings::Verification;
use super::own::open_output;
use super::seen::{ShardSeen, TensorSeen};
use super::span::{Span, spans};
use super::weights::{Changes, Counts, Piece};
use crate::error::Result;
use crate::request::bounds::Request;
use crate::request::cells::Cells;

/// Pieces between a reader and the comparison.
const AHEAD: usize = 4;

/// A shard to verify.
pub(super) struct ShardCheck<'a> {
    pub shard: &'a Shard,
    pub out: &'a Path,
    /// The matrices of targets, by the target's name.
    pub targets: &'a HashMap<&'a str, &'a [MatrixView]>,
    /// What the recipe may do to targets.
    pub changes: Changes,
    /// How many of their weights it requests to be zero.
    pub request: Option<Request>,
}

/// Compares a shard with its original and computes what its records should state. `on_bytes` receives the
/// bytes read of both sides; an error from it stops the work.
///
/// # Errors
/// `Checkpoint` if either side cannot be read.
pub(super) fn verify_shard(
    check: &ShardCheck<'_>,
    result: &mut Verification,
    on_bytes: &mut dyn FnMut(u64) -> Result<(), physarium_checkpoint::Error>,
) -> Result<ShardSeen> {
    let name = &check.shard.name;
    let input = check.shard.reopen()?;
    let output = open_output(check.out, name, result);
    let output = match output {
        Some(output) if output.len() == input.len() => output,
        other => {
            if let Some(output) = &other {
                let what = format!("expected {} bytes, found {}", input.len(), output.len());
                result.report(name, None, what);
            }
            let input_sha256 = input.sha256(on_bytes)?;
            let output_sha256 = other.map(|output| output.sha256(on_bytes)).transpose()?;
            return Ok(ShardSeen { input_sha256, output_sha256, tensors: Vec::new() });
        }
    };
    let spans = spans(check.shard, &input, check.targets)?;
    std::thread::scope(|scope| {
        let (input_bytes, from_input) = sync_channel(AHEAD);
        let (output_bytes, from_output) = sync_channel(AHEAD);
        let (input, output, spans) = (&input, &output, &spans);
        let input_reader = start_thread(scope, move || read(input, spans, input_bytes))?;
        let output_reader = start_thread(scope, move || read(output, spans, output_bytes))?;
        let mut comparison = Comparison { check, result, tensors: Vec::new() };
        let compared = comparison.run(spans, [from_input, from_output], on_bytes);
        let tensors = comparison.tensors;
        let join = |reader: ScopedJoinHandle<'_, Result<Digest>>| {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let (input, output) = (join(input_reader), join(output_reader));
        let (input_sha256, output_sha256) = (input?, Some(output?));
        compared?;
        Ok(ShardSeen { input_sha256, output_sha256, tensors })
    })
}

/// Reads and hashes a file span by span and sends its pieces.
fn read(source: &Source, spans: &[Span], pieces: SyncSender<Vec<u8>>) -> Result<Digest> {
    let mut file = Sha256::default();
    for span in spans {
        let mut at = span.begin;
        while at < span.end {
            let mut piece = vec![0; (span.piece_end(at) - at) as usize];
            source.read_exact_at(&mut piece, at)?;
            file.update(&piece);
            at += piece.len() as u64;
            // The comparison was stopped; nobody will use the digest.
            if pieces.send(piece).is_err() {
                return Ok(file.finish());
            }
        }
    }
    Ok(file.finish())
}

/// Compares the bytes of both sides.
struct Comparison<'a> {
    check: &'a ShardCheck<'a>,
    result: &'a mut Verification,
    tensors: Vec<TensorSeen>,
}

impl<'a> Comparison<'a> {
    /// Counts the cells of a target in which the recipe fixes the number of zeros.
    fn cells(&self, span: &Span) -> Option<Cells<'a>> {
        let ShardCheck { targets, changes, request, .. } = self.check;
        let views: &'a [MatrixView] = targets.get(span.name.as_deref()?)?;
        Cells::new(*request, views, span.weights?, changes.keeps_non_finite)
    }

    fn run(
        &mut self,
        spans: &[Span],
        [input, output]: [Receiver<Vec<u8>>; 2],
        on_bytes: &mut dyn FnMut(u64) -> Result<(), physarium_checkpoint::Error>,
    ) -> Result<()> {
        for span in spans {
            let mut counts = Counts::default();
            let mut cells = self.cells(span);
            let mut blake3 = Blake3::default();
            let mut at = span.begin;
            let mut reported = false;
            while at < span.end {
                // A reader that has ended early returns its own error.
                let (Ok(before), Ok(now)) = (input.recv(), output.recv()) else { return Ok(()) };
                let piece = Piece { at, before: &before, now: &now };
                let differs = match span.weights {
                    Some(dtype) => counts.add(&piece, dtype, self.check.changes) > 0,
                    None => now != before,
                };
                if differs && !reported {
                    let what = piece.difference(span, self.check.changes);
                    let what = what.expect("a difference that was counted is found");
                    self.result.report(&self.check.shard.name, span.name.as_deref(), what);
                    reported = true;
                }
                if let Some(cells) = &mut cells {
                    cells.add(&now, &before);
                }
                blake3.update(&now);
                at += now.len() as u64;
                if span.ends_matrix(at) {
                    counts.end_matrix();
                }
                on_bytes(2 * now.len() as u64)?;
            }
            if let Some(what) = cells.and_then(|cells| cells.finding()) {
                self.result.report(&self.check.shard.name, span.name.as_deref(), what);
            }
            self.result.bytes += span.end - span.begin;
            let Some(name) = span.name.clone() else { continue };
            self.result.tensors += 1;
            self.result.pruned += counts.pruned;
            self.result.refitted += counts.refitted;
            self.tensors.push(TensorSeen { name, output_blake3: blake3.finish(), counts });
        }
        Ok(())
    }
}
