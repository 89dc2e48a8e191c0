/*!
Verification: an output equals its input except for pruned and, by methods that compensate, updated target weights.

In: the two directories. Out: every difference, with its file, tensor and index. All files of both are read,
all digests in journal and manifest are computed again. A weight of a target must be the input value or +0.0
(or refitted, after a method that refits); every other byte must equal the input's. As many weights must be zero
as the recipe requests, where it fixes their number. A link out of the output is a finding: what it leads to is not
the output's.

Headers are read by the `safetensors` crate, not by the reader that the pruner uses, so that a header which
one of the two misreads becomes a finding.
*/

mod files;
pub(crate) mod findings;
mod kinship;
mod own;
mod readme;
mod records;
mod seen;
mod shard;
mod span;
mod weights;

use std::path::Path;

use physarium_checkpoint::Checkpoint;

use self::files::Files;
use self::findings::Verification;
use self::kinship::Sides;
use self::records::Records;
use self::shard::{ShardCheck, verify_shard};
use crate::error::Result;
use crate::request::bounds::Weights;
use crate::step::Step;

/// Verifies the output `out` against the input `model`. `on_step` receives the progress; an error from it
/// stops the work.
///
/// # Errors
/// `Checkpoint` if the *model* is malformed or something cannot be read. A fault of the output is a finding, and
/// `unrelated` says if the output was not made from this model at all.
pub fn verify(
    model: &Path,
    out: &Path,
    on_step: &mut dyn FnMut(Step) -> Result<(), physarium_checkpoint::Error>,
) -> Result<Verification> {
    let checkpoint = Checkpoint::open(model)?;
    Checkpoint::require_directory(out)?;
    let sides = Sides { model: &checkpoint, out };
    if let Some(unrelated) = sides.unrelated_by_headers() {
        return Ok(Verification { unrelated: Some(unrelated), ..Verification::default() });
    }
    let total = checkpoint.shards().iter().map(|shard| 2 * shard.size_bytes()).sum();
    on_step(Step::Total(total))?;
    let mut result = Verification::default();
    let records = Records::read(out, &mut result);
    let files = Files { checkpoint: &checkpoint, out, records: &records };
    files.verify_list(&mut result)?;
    files.verify_contents(&mut result)?;
    records.verify_against_each_other(&mut result);
    let plan = records.verify_plan(&checkpoint, &mut result);
    let targets = records.targets(plan.as_ref());
    let by_name = records.by_name();
    let mut is_recorded_input = false;
    let mut all = Weights::default();
    for shard in checkpoint.shards() {
        let mut on_bytes = |bytes| on_step(Step::Read(bytes));
        let (changes, request) = (records.changes(), records.request());
        let check = ShardCheck { shard, out, targets: &targets, changes, request };
        let seen = verify_shard(&check, &mut result, &mut on_bytes)?;
        records.verify_digests(shard, &seen, &mut result);
        is_recorded_input |= records.may_be_input(shard, &seen);
        for tensor in &seen.tensors {
            if targets.contains_key(tensor.name.as_str()) {
                all += tensor.counts.weights();
            }
            match by_name.get(tensor.name.as_str()) {
                Some(record) => tensor.compare(record, &shard.name, &mut result),
                None => records.report_unrecorded(&tensor.name, &mut result),
            }
        }
    }
    records.verify_sum(all, &mut result);
    result.unrelated = sides.unrelated_by_findings(&result, is_recorded_input);
    Ok(result)
}
