/*!
The time of a run that needs weights only.

In: an engine and targets. Out: seconds. Targets are read, hashed and pruned in memory for about a second; the speed is
that of the whole run as long as the disk keeps up.
*/

use std::time::{Duration, Instant};

use physarium_checkpoint::{Blake3, PlannedTensor, Sha256, Shard, Tasks};

use crate::engine::{Engine, TileSolver};
use crate::error::{Error, Result};

/// How long to measure.
const SAMPLE: Duration = Duration::from_secs(1);

/// Time that an engine takes for `bytes` bytes of shards, with `threads` workers. `targets` come with their shards;
/// there is at least one.
///
/// # Errors
/// `Checkpoint` for weights that cannot be read.
pub(crate) fn of_weights<'a>(
    engine: &Engine<'_>,
    targets: impl Iterator<Item = (&'a Shard, &'a PlannedTensor)>,
    bytes: u64,
    threads: usize,
) -> Result<Duration> {
    let began = Instant::now();
    let mut done = 0;
    for (shard, tensor) in targets {
        done += sample(engine, (shard, tensor), began, threads)?;
        if began.elapsed() >= SAMPLE {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64() * bytes as f64 / (done.max(1)) as f64;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Prunes pieces of a tensor until the sample's time is over. Returns the bytes done.
fn sample(
    engine: &Engine<'_>,
    (shard, tensor): (&Shard, &PlannedTensor),
    began: Instant,
    threads: usize,
) -> Result<u64> {
    let source = shard.reopen()?;
    let pieces = engine.pieces(&source, tensor)?;
    let tasks = Tasks { count: pieces.len(), threads };
    let mut done = 0;
    tasks.run(
        || (Vec::new(), TileSolver::default()),
        |(data, solver), index| {
            if began.elapsed() >= SAMPLE {
                return Ok(0);
            }
            let (_, piece) = &pieces[index];
            data.resize(piece.length, 0);
            source.read_exact_at(data, piece.offset)?;
            Sha256::of(data);
            piece.treatment.run(data, solver)?;
            Sha256::of(data);
            let mut digest = Blake3::default();
            digest.update(data);
            digest.finish();
            Ok::<u64, Error>(piece.length as u64)
        },
        &mut |bytes| {
            done += bytes;
            Ok(())
        },
    )?;
    Ok(done)
}
