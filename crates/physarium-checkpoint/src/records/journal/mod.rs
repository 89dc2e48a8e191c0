/*!
The journal: what was done to each tensor, written during the run.

JSON Lines, one [`Record`] per line: the run first, then for each shard its tensors in file order (including
skipped ones) and the shard itself, and the totals last. Each line ends with a `check` field that chains it to the
line before, so that a torn, edited, lost or moved line is detected. No line is trusted by itself: a resumed run
hashes the shard again, and an audit counts the weights again.

`docs/FORMATS.md` describes the fields with an example.
*/

mod chain;
mod read;
mod record;
mod write;

pub use read::{Checks, Journal};
pub(crate) use read::{Interrupted, MAX_JOURNAL_BYTES};
pub use record::{
    FILE_NAME, InputShard, MatrixRecord, Outcome, Processed, Record, RunRecord, SCHEMA,
    ShardRecord, TensorRecord, Tiles, Totals,
};
pub use write::JournalWriter;
pub(crate) use write::Mark;
