/*!
Whether the model is the input of the output at all. If not, one sentence says so in place of a difference for
each tensor.

Before any weight is read, names, shapes and element types are compared; afterwards, how many tensors differ.
*/

use std::collections::{HashMap, HashSet};
use std::path::Path;

use physarium_checkpoint::{Checkpoint, TensorInfo, journal, manifest};

use super::findings::Verification;
use crate::count::relation::{headers_differ, shown};
use crate::report::share::grouped;

/// The two directories of a verification.
#[derive(Clone, Copy)]
pub(super) struct Sides<'a> {
    pub model: &'a Checkpoint,
    pub out: &'a Path,
}

impl Sides<'_> {
    /// Why the output cannot have been made from the model, by the headers of both. `None` if at least half of
    /// the tensors are the same, or the output cannot be opened: the differences then say what is wrong.
    pub fn unrelated_by_headers(self) -> Option<String> {
        let out = Checkpoint::open(self.out).ok()?;
        let there: HashMap<&str, &TensorInfo> =
            out.tensors().map(|(_, tensor)| (tensor.name.as_str(), tensor)).collect();
        let (mut all, mut names, mut shapes, mut cast) = (0, 0, 0, Vec::new());
        for (_, tensor) in self.model.tensors() {
            all += 1;
            match there.get(tensor.name.as_str()) {
                None => names += 1,
                Some(found) if found.shape != tensor.shape => shapes += 1,
                Some(found) if found.dtype != tensor.dtype => {
                    cast.push([found.dtype, tensor.dtype]);
                }
                Some(_) => {}
            }
        }
        let (model, out) = (shown(self.model.dir()), shown(self.out));
        if 2 * (names + shapes) > all {
            return Some(headers_differ([&out, &model], [names, shapes], all));
        }
        let [here, original] = *cast.first()?;
        (2 * cast.len() > all).then(|| {
            format!(
                "{out} is not what prune made of {model}: {} of {} tensors have another element type \
                 ({here} here, {original} in the original); compare by value: \
                 physarium audit {out} --against {model}",
                grouped(cast.len() as u64),
                grouped(all as u64),
            )
        })
    }

    /// The same by the differences that were found. An output without records is not prune's; with them, the
    /// model is another one if no shard has the bytes that the journal records, and most tensors differ.
    pub fn unrelated_by_findings(
        self,
        result: &Verification,
        is_recorded_input: bool,
    ) -> Option<String> {
        let (model, out) = (shown(self.model.dir()), shown(self.out));
        let records = [journal::FILE_NAME, manifest::FILE_NAME];
        if records.iter().all(|name| self.out.join(name).symlink_metadata().is_err()) {
            return Some(format!(
                "{out} is not an output of prune: it has neither {} nor {}; compare by value: \
                 physarium audit {out} --against {model}",
                records[0], records[1],
            ));
        }
        let names = result.findings.iter().filter_map(|finding| finding.tensor.as_deref());
        let differing = names.collect::<HashSet<&str>>().len();
        let all = self.model.tensors().count();
        (!is_recorded_input && 2 * differing > all).then(|| {
            format!(
                "{model} is not the original of {out}: {} of {} tensors differ from what prune leaves, \
                 or are in other files than the journal records",
                grouped(differing as u64),
                grouped(all as u64),
            )
        })
    }
}
