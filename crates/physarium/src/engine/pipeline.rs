/*!
The pipeline that prunes one shard: read → process → hash → write.

One thread reads and hashes the input, workers process pieces in any order, one thread restores their order and
hashes the output, and the calling thread writes. A fixed number of buffers is recycled, which bounds memory. If a
stage fails, its channels close, and the other stages end; no stage waits forever.
*/

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::Result as Caught;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use physarium_checkpoint::{
    Blake3, Digest, NonFinite, PartFile, PlannedTensor, Sha256, Shard, Source, start_thread,
};

use super::pieces::{Piece, TensorPieces, copied};
use super::prepared::Engine;
use super::solve::TileSolver;
use super::tiles::RowMajor;
use super::treatment::Done;
use crate::error::{Error, Result};

/// One shard to prune.
pub(crate) struct ShardRun<'a> {
    pub engine: &'a Engine<'a>,
    pub shard: &'a Shard,
    /// The shard's tensors in file order.
    pub tensors: &'a [PlannedTensor],
}

/// A tensor whose bytes are written.
pub(crate) struct TensorDone<'a> {
    pub planned: &'a PlannedTensor,
    /// What was done to each matrix; one entry for a tensor that is copied.
    pub matrices: Vec<Done>,
    pub output_blake3: Digest,
}

impl TensorDone<'_> {
    /// What was done to the whole tensor.
    pub fn sum(&self) -> Done {
        let mut sum = Done::default();
        self.matrices.iter().for_each(|done| sum.add(*done));
        sum
    }
}

/// A piece in the pipeline.
struct InFlight {
    /// Position in the shard's order of pieces.
    sequence: u64,
    /// Index of its tensor in the shard; `None` for the header.
    tensor: Option<usize>,
    /// Index of its matrix in the tensor.
    matrix: usize,
    /// Whether it is the last piece of its tensor.
    last: bool,
    piece: Piece,
    data: Vec<u8>,
    done: Done,
}

/// A piece to write, with the digest of its tensor if it is the last piece.
type Hashed = (InFlight, Option<Digest>);

impl ShardRun<'_> {
    /// Prunes the shard into `part`. Calls `written` for each piece, with its size in bytes and, after the last
    /// piece of a tensor, with that tensor. Returns the digests of input and output.
    ///
    /// # Errors
    /// The error of the first stage that failed. `NonFinite` for NaN and infinite weights, unless the recipe keeps
    /// them; `Checkpoint` for reading, writing and cancellation.
    pub fn run(
        &self,
        part: &mut PartFile,
        written: &mut dyn FnMut(u64, Option<TensorDone<'_>>) -> Result<()>,
    ) -> Result<(Digest, Digest)> {
        let source = self.shard.reopen()?;
        let (free_in, free_out) = unbounded();
        for _ in 0..self.engine.memory.pieces {
            free_in.send(Vec::new()).expect("both ends are here");
        }
        let (work_in, work_out) = bounded(self.engine.memory.pieces);
        let (processed_in, processed_out) = bounded(self.engine.memory.pieces);
        let (hashed_in, hashed_out) = bounded(self.engine.memory.pieces);
        let digests = std::thread::scope(|scope| {
            // If a thread cannot start, its channels close, and the other threads end.
            let reader = start_thread(scope, || self.read(&source, free_out, work_in))?;
            for _ in 0..self.engine.memory.workers {
                let (work, processed) = (work_out.clone(), processed_in.clone());
                start_thread(scope, || self.process(&source, work, processed))?;
            }
            // Only workers may keep these ends open.
            drop((work_out, processed_in));
            let hasher = start_thread(scope, || self.hash(processed_out, hashed_in))?;
            let write = self.write(part, hashed_out, free_in, written);
            let input = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
            let output = hasher.join().unwrap_or_else(|panic| resume_unwind(panic));
            let (input, output) = (input?, output?);
            write?;
            Ok::<_, Error>(input.zip(output).expect("a stage ends early only after an error"))
        })?;
        source.check_unchanged(&self.shard.identity)?;
        Ok(digests)
    }

    /// Reads pieces in file order. `None` if the next stage has ended early.
    fn read(
        &self,
        source: &Source,
        free: Receiver<Vec<u8>>,
        work: Sender<InFlight>,
    ) -> Result<Option<Digest>> {
        let mut hasher = Sha256::default();
        let mut sequence = 0;
        let header = copied(0, self.shard.data_begin, self.engine.sizes);
        let header = header.into_iter().map(|piece| (0, piece)).collect();
        let mut next: Option<(Option<usize>, TensorPieces)> = Some((None, header));
        let mut tensors = self.tensors.iter().enumerate();
        while let Some((tensor, pieces)) = next {
            let count = pieces.len();
            for (i, (matrix, piece)) in pieces.into_iter().enumerate() {
                self.engine.cancel.check()?;
                let Ok(mut data) = free.recv() else { return Ok(None) };
                data.resize(piece.length, 0);
                source.read_exact_at(&mut data, piece.offset)?;
                hasher.update(&data);
                let (last, done) = (i + 1 == count, Done::default());
                let item = InFlight { sequence, tensor, matrix, last, piece, data, done };
                if work.send(item).is_err() {
                    return Ok(None);
                }
                sequence += 1;
            }
            next = match tensors.next() {
                Some((i, tensor)) => Some((Some(i), self.engine.pieces(source, tensor)?)),
                None => None,
            };
        }
        Ok(Some(hasher.finish()))
    }

    /// Processes pieces until there are no more. A panic is passed on as a value, so that the next stages end
    /// instead of waiting for the lost piece.
    fn process(
        &self,
        source: &Source,
        work: Receiver<InFlight>,
        processed: Sender<Caught<Result<InFlight>>>,
    ) {
        let mut solver = TileSolver::default();
        for mut item in work {
            let result = catch_unwind(AssertUnwindSafe(|| {
                item.done = item.piece.treatment.run(&mut item.data, &mut solver)?;
                self.refuse_non_finite(source, &item)?;
                Ok(item)
            }));
            if processed.send(result).is_err() {
                return;
            }
        }
    }

    fn refuse_non_finite(&self, source: &Source, item: &InFlight) -> Result<()> {
        if item.done.counts.non_finite == 0 || self.engine.non_finite == NonFinite::Keep {
            return Ok(());
        }
        let tensor = &self.tensors[item.tensor.expect("the header is only copied")];
        Err(describe_non_finite(source, tensor)?)
    }

    /// Restores the order of pieces and hashes them. `None` if another stage has ended early.
    fn hash(
        &self,
        processed: Receiver<Caught<Result<InFlight>>>,
        hashed: Sender<Hashed>,
    ) -> Result<Option<Digest>> {
        let mut file = Sha256::default();
        let mut tensor = Blake3::default();
        let mut waiting = BTreeMap::new();
        let mut sequence = 0;
        for result in processed {
            let item = result.unwrap_or_else(|panic| resume_unwind(panic))?;
            waiting.insert(item.sequence, item);
            while let Some(item) = waiting.remove(&sequence) {
                sequence += 1;
                file.update(&item.data);
                let digest = item.tensor.and_then(|_| {
                    tensor.update(&item.data);
                    item.last.then(|| std::mem::take(&mut tensor).finish())
                });
                if hashed.send((item, digest)).is_err() {
                    return Ok(None);
                }
            }
        }
        Ok(waiting.is_empty().then(|| file.finish()))
    }

    /// Writes pieces and recycles their buffers.
    fn write(
        &self,
        part: &mut PartFile,
        hashed: Receiver<Hashed>,
        free: Sender<Vec<u8>>,
        written: &mut dyn FnMut(u64, Option<TensorDone<'_>>) -> Result<()>,
    ) -> Result<()> {
        let mut matrices: Vec<Done> = Vec::new();
        for (item, digest) in hashed {
            part.write_all(&item.data)?;
            if item.tensor.is_some() {
                matrices.resize(item.matrix + 1, Done::default());
                matrices[item.matrix].add(item.done);
            }
            let complete = item.tensor.zip(digest).map(|(tensor, output_blake3)| TensorDone {
                planned: &self.tensors[tensor],
                matrices: std::mem::take(&mut matrices),
                output_blake3,
            });
            written(item.data.len() as u64, complete)?;
            // If the reader has ended, the buffer is dropped with the error.
            let _ = free.send(item.data);
        }
        Ok(())
    }
}

/// The error for a target with NaN or infinite weights: how many there are, and where the first is.
fn describe_non_finite(source: &Source, tensor: &PlannedTensor) -> Result<Error> {
    let view = tensor.views.first().expect("a target has a matrix");
    let matrix = RowMajor::of(view, tensor.input.dtype);
    let (mut count, mut first, mut position) = (0, None, 0);
    source.read_pieces(tensor.input.begin..tensor.input.end, |piece| -> Result<()> {
        for at in physarium_flow::non_finite_positions(piece, matrix.format) {
            first.get_or_insert(position + at);
            count += 1;
        }
        position += piece.len() as u64 / matrix.element_bytes();
        Ok(())
    })?;
    let first = first.expect("the worker saw one");
    // Row and column in the whole tensor, with its leading dimensions merged into rows.
    Ok(Error::NonFinite {
        file: source.path().to_owned(),
        tensor: tensor.input.name.clone(),
        count,
        row: first / matrix.cols,
        column: first % matrix.cols,
    })
}
