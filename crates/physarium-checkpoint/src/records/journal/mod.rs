/*!
The journal: what was done to each tensor, written as it happens.

JSON Lines, one [`Record`] a line: the run first, then for each shard its tensors in file order
(skipped ones too) and the shard itself, the totals last. Each line ends with a `check` field that
chains it to the line before, so that a torn, edited, lost or moved line is found. A line is never
trusted alone: who resumes a run hashes the shard again, who audits one counts the bytes again.

`docs/FORMATS.md` has the fields with an example.
*/

mod chain;
mod read;
mod record;
mod write;

pub(crate) use read::Interrupted;
pub use read::{Checks, Journal};
pub use record::{
    FILE_NAME, InputShard, MatrixRecord, Outcome, Processed, Record, RunRecord, SCHEMA,
    ShardRecord, TensorRecord, Tiles, Totals,
};
pub use write::JournalWriter;
pub(crate) use write::Mark;
