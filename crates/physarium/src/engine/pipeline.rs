/*!
One shard through the surgery: read → decide → hash → write.

One thread reads and hashes the input, workers treat pieces in any order, one thread puts them in
order again and hashes the output, the calling thread writes and journals. A fixed number of
buffers goes round, which bounds memory. Whichever stage fails, the others find their neighbour
gone and end; nothing waits for ever.
*/

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::Result as Caught;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use physarium_checkpoint::{
    Blake3, Digest, NonFinite, PartFile, PlannedTensor, Sha256, Shard, Source, start_thread,
};

use super::pieces::{Piece, copied};
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

/// A tensor whose bytes have been written.
pub(crate) struct TensorDone<'a> {
    pub planned: &'a PlannedTensor,
    /// What was done to each of its matrices; one entry for a tensor that is copied.
    pub matrices: Vec<Done>,
    pub output_blake3: Digest,
}

impl TensorDone<'_> {
    /// What was done to all of the tensor.
    pub fn sum(&self) -> Done {
        let mut sum = Done::default();
        self.matrices.iter().for_each(|done| sum.add(*done));
        sum
    }
}

/// A piece on its way.
struct Item {
    sequence: u64,
    /// Index of its tensor in the shard; `None` for the header.
    tensor: Option<usize>,
    /// Index of its matrix in the tensor.
    matrix: usize,
    /// Whether its tensor ends with it.
    last: bool,
    piece: Piece,
    data: Vec<u8>,
    done: Done,
}

/// A piece ready to be written, and the digest of its tensor if that ends with it.
type Hashed = (Item, Option<Digest>);

impl ShardRun<'_> {
    /// Prunes the shard into `part`. `written` is told of every piece's bytes and of every tensor
    /// that is complete. Returns the digests of input and output.
    ///
    /// # Errors
    /// What the stages give; the first stage's error where several fail.
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
        let (treated_in, treated_out) = bounded(self.engine.memory.pieces);
        let (hashed_in, hashed_out) = bounded(self.engine.memory.pieces);
        let digests = std::thread::scope(|scope| {
            // Whichever cannot be started: the channels' other ends go, and the rest end.
            let reader = start_thread(scope, || self.read(&source, free_out, work_in))?;
            for _ in 0..self.engine.memory.workers {
                let (work, treated) = (work_out.clone(), treated_in.clone());
                start_thread(scope, || self.treat(&source, work, treated))?;
            }
            // Only the workers' ends may stay open.
            drop((work_out, treated_in));
            let hasher = start_thread(scope, || self.hash(treated_out, hashed_in))?;
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

    /// Reads pieces in file order. `None` when the next stage is gone.
    fn read(
        &self,
        source: &Source,
        free: Receiver<Vec<u8>>,
        work: Sender<Item>,
    ) -> Result<Option<Digest>> {
        let mut hasher = Sha256::default();
        let mut sequence = 0;
        let header = copied(0, self.shard.data_begin, self.engine.sizes);
        let header = header.into_iter().map(|piece| (0, piece)).collect();
        let mut next: Option<(Option<usize>, Vec<(usize, Piece)>)> = Some((None, header));
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
                let item = Item { sequence, tensor, matrix, last, piece, data, done };
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

    /// Treats pieces until there are no more. A panic is carried on as a value, so that the stages
    /// after it end instead of waiting for the lost piece.
    fn treat(&self, source: &Source, work: Receiver<Item>, treated: Sender<Caught<Result<Item>>>) {
        let mut solver = TileSolver::default();
        for mut item in work {
            let result = catch_unwind(AssertUnwindSafe(|| {
                item.done = item.piece.treatment.run(&mut item.data, &mut solver)?;
                self.refuse_non_finite(source, &item)?;
                Ok(item)
            }));
            if treated.send(result).is_err() {
                return;
            }
        }
    }

    fn refuse_non_finite(&self, source: &Source, item: &Item) -> Result<()> {
        if item.done.counts.non_finite == 0 || self.engine.non_finite == NonFinite::Keep {
            return Ok(());
        }
        let tensor = &self.tensors[item.tensor.expect("the header is not treated")];
        Err(describe_non_finite(source, tensor)?)
    }

    /// Puts pieces in order and hashes them. `None` when a neighbour is gone.
    fn hash(
        &self,
        treated: Receiver<Caught<Result<Item>>>,
        hashed: Sender<Hashed>,
    ) -> Result<Option<Digest>> {
        let mut file = Sha256::default();
        let mut tensor = Blake3::default();
        let mut waiting = BTreeMap::new();
        let mut sequence = 0;
        for result in treated {
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

    /// Writes pieces as they come and gives their buffers back.
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
            // The reader may be done and gone; the buffer is then dropped with the error.
            let _ = free.send(item.data);
        }
        Ok(())
    }
}

/// The error for a target that holds NaN or infinite weights: their number and the first.
fn describe_non_finite(source: &Source, tensor: &PlannedTensor) -> Result<Error> {
    let view = tensor.views.first().expect("only targets are treated");
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
    // Row and column of the whole tensor, its leading dimensions taken together.
    Ok(Error::NonFinite {
        file: source.path().to_owned(),
        tensor: tensor.input.name.clone(),
        count,
        row: first / matrix.cols,
        column: first % matrix.cols,
    })
}
